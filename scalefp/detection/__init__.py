"""Classifiers that learn from examples to tell images apart, and what they are worth.

Adversaries who look for fingerprints, and the baselines beside which reading a key is measured.
"""
