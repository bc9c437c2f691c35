"""How likely fair coins agree at least this well: the exact tails that attribution rests on.

Hard: n coins count alike, and the number that agree is Binomial(n, 1/2). Soft: coin i counts w_i,
a whole number, and the score is the sum of the w_i of those that agree. That is the Rademacher
sum of +-w_i in other units: sum(+-w_i) = 2 score - sum(w_i).

Nothing underflows at these lengths: the rarest outcome has probability 2^-512 (7e-155), a normal
float64. Standard library and numpy only.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalefp.errors import UserError
from scalefp.key import MAX_BITS

# Sums and products of whole numbers up to here are exact in float64.
EXACT_COINS = 53


@lru_cache(maxsize=32)
def _tail_counts(n_bits: int) -> tuple[int, ...]:
    """How many of the 2^n outcomes of n fair coins have at least m heads, m = 0..n: exact."""
    if not 1 <= n_bits <= MAX_BITS:
        raise UserError(f"the tail is tabulated for 1 to {MAX_BITS} bits, not {n_bits}")
    counts = [1]
    for heads in range(n_bits - 1, -1, -1):
        counts.append(counts[-1] + math.comb(n_bits, heads))
    return tuple(reversed(counts))


@lru_cache(maxsize=32)
def _log_tail_table(n_bits: int) -> NDArray[np.float64]:
    """Natural log of P[Binomial(n, 1/2) >= m] for m = 0..n+1, float64 [n + 2]."""
    outcomes = 1 << n_bits
    # Division of Python integers is correctly rounded. Above one half the complement keeps its
    # digits.
    logs = [
        math.log(count / outcomes)
        if 2 * count <= outcomes
        else math.log1p(-((outcomes - count) / outcomes))
        for count in _tail_counts(n_bits)
    ]
    table = np.array([*logs, -math.inf])
    table.flags.writeable = False
    return table


def log_binomial_tail(n_bits: int, matches: ArrayLike) -> NDArray[np.float64]:
    """Natural log of P[Binomial(n_bits, 1/2) >= matches], from exact integers.

    Args:
        n_bits: 1..512.
        matches: whole numbers of any shape; at or below 0 gives 0, above n_bits gives -inf.

    Returns:
        float64 in the shape of ``matches``.

    Raises:
        UserError: n_bits out of range, or matches that are not whole numbers.
    """
    matches = np.asarray(matches)
    if not np.issubdtype(matches.dtype, np.integer):
        raise UserError(f"matches are counted in whole numbers, not {matches.dtype}")
    logs: NDArray[np.float64] = _log_tail_table(n_bits)[np.clip(matches, 0, n_bits + 1)]
    return logs


def p_value(n_bits: int, issued: int, matches: int) -> float:
    """min(1, issued * P[Binomial(n_bits, 1/2) >= matches]) for 0 <= matches <= n_bits.

    One correctly rounded division of exact integers. It cannot underflow to 0.0 at these lengths;
    that would take more than 1,000 bits.
    """
    counts, outcomes = _tail_counts(n_bits), 1 << n_bits
    return min(issued * counts[matches], outcomes) / outcomes


def matches_needed(n_bits: int, issued: int, fpr: float) -> int | None:
    """Fewest matching bits at which one of ``issued`` keys is named, None if none suffices."""
    for matches in range(n_bits + 1):
        if p_value(n_bits, issued, matches) <= fpr:
            return matches
    return None


def weighted_tail(weights: NDArray[np.integer]) -> NDArray[np.float64]:
    """P[sum of w_i over the coins that show heads >= s] for s = 0..sum(w), the coins being fair.

    The exact distribution, one coin after the other (the shift algorithm of Streitberg and Roehmel,
    "Exact distributions for permutation and rank tests", Statistical Software Newsletter 12, 1986).
    It counts outcomes in float64 and only ever adds, so that up to 53 coins every number is exact,
    and beyond them the rounding is bounded; the result is raised by that bound (below 2e-12 of
    itself), so it is never less than the true tail.

    Args:
        weights: [n] whole numbers >= 0, n <= 512.

    Returns:
        float64 [sum(w) + 1], falling from 1 to the chance that every coin with a weight shows
        heads.
    """
    coins = np.sort(weights[weights > 0]).astype(int)  # light ones first: shorter arrays for longer
    total = int(coins.sum())
    outcomes = np.zeros(total + 1)
    outcomes[0] = 1
    reach = 0
    for weight in coins.tolist():
        outcomes[weight : reach + weight + 1] += outcomes[: reach + 1].copy()
        reach += weight
    tail = outcomes[::-1].cumsum()[::-1] / 2.0 ** len(coins)
    if len(coins) > EXACT_COINS:
        # At most n + sum(w) additions, each rounding by half an epsilon at most.
        tail *= 1 + (len(coins) + total + 1) * np.finfo(np.float64).eps
    return np.minimum(tail, 1)
