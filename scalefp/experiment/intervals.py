"""How sure a figure is."""

import math

Z95 = 1.959964


def wilson(right: int, trials: int) -> list[float]:
    """95% interval [low, high] of the share ``right`` / ``trials`` (Wilson, JASA 22, 1927)."""
    share = right / trials
    middle = (share + Z95**2 / (2 * trials)) / (1 + Z95**2 / trials)
    root = math.sqrt(share * (1 - share) / trials + (Z95 / 2 / trials) ** 2)
    half = Z95 / (1 + Z95**2 / trials) * root
    # Rounding must not leave the share outside where it is 0 or 1.
    return [min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))]
