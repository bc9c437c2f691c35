"""Kept for scripts that import it from here; the code is in scalefp.attribution."""

from scalefp.attribution.coalition import attribute_coalition

__all__ = ["attribute_coalition"]
