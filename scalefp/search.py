"""Kept for scripts that import it from here; the code is in scalefp.attribution."""

from scalefp.attribution.search import Found, Query, count_matches, runners_up, search

__all__ = ["Found", "Query", "count_matches", "runners_up", "search"]
