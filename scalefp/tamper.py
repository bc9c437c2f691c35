"""Kept for scripts that import it from here; the code is in scalefp.evaluation."""

from scalefp.evaluation.tamper import TAMPERINGS, Tampering, tamper

__all__ = ["TAMPERINGS", "Tampering", "tamper"]
