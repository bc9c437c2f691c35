"""How fast, and in how much memory: every figure beside a peer or a limit of the same run.

``scalefp bench`` runs each measurement in a process of its own (worker.py) and prints one table.
"""
