"""How sure a figure is."""

import math
import statistics
from collections.abc import Sequence

Z95 = 1.959964
# 97.5% points of Student's t distribution for 1, 2, ... degrees of freedom.
T95 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
)  # fmt: skip


def wilson(right: int, trials: int) -> list[float]:
    """95% interval [low, high] of the share ``right`` / ``trials`` (Wilson, JASA 22, 1927)."""
    share = right / trials
    middle = (share + Z95**2 / (2 * trials)) / (1 + Z95**2 / trials)
    root = math.sqrt(share * (1 - share) / trials + (Z95 / 2 / trials) ** 2)
    half = Z95 / (1 + Z95**2 / trials) * root
    # Rounding must not leave the share outside where it is 0 or 1.
    return [min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))]


def student(values: Sequence[float]) -> list[float] | None:
    """95% interval [low, high] of the mean of independent runs (Student, Biometrika 6, 1908).

    None for a single one, which does not tell how far runs lie apart. Runs are taken to scatter
    normally; beyond 21 of them the point is that of its expansion about the normal one (Fisher and
    Cornish 1960), which is right to four digits there.
    """
    freedom = len(values) - 1
    if freedom < 1:
        return None
    z = Z95
    t = (
        T95[freedom - 1]
        if freedom <= len(T95)
        else z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    )
    mean, half = statistics.fmean(values), t * statistics.stdev(values) / math.sqrt(len(values))
    return [mean - half, mean + half]
