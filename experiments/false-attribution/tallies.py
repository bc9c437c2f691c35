"""P-values of many pairs of readings and keys, counted.

Shapes: b readings, n key bits, K keys.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from scalefp.attribution.evidence import Form, soft_weights
from scalefp.attribution.tails import weighted_tail

LEVELS = 10.0 ** -(np.arange(1, 33) / 4)  # of p, falling, to 1e-8
READING_BLOCK = 64  # readings of one matrix product

Logits = NDArray[np.float64]
Bits = NDArray[np.uint8]


class Tally(NamedTuple):
    """What readings said about keys."""

    reached: NDArray[np.int64]  # [K, levels]: readings for which the key's p-value is so small
    least_p: float  # of all pairs
    named: int  # readings that name one of these keys if they are all that were issued

    def share(self, readings: int) -> NDArray[np.float64]:
        """Share of the pairs with a p-value of at most each level."""
        return np.asarray(self.reached.mean(axis=0) / readings)

    def excess(self, readings: int) -> float:
        """By how many standard errors the share exceeds a level, at the worst level.

        The keys are what was drawn independently, and images may read alike: the error is that of a
        mean over keys.
        """
        shares = self.reached / readings
        error = shares.std(axis=0, ddof=1) / np.sqrt(len(shares))
        seen = error > 0
        return float(((shares.mean(axis=0) - LEVELS)[seen] / error[seen]).max())


def tally(logits: Logits, bits: Bits, form: Form, fpr: float, title: str) -> Tally:
    """P-values of all pairs of readings [b, n] and keys [K, n], each key for itself."""
    weights = soft_weights(logits) if form == "soft" else np.ones(logits.shape, np.int64)
    queries = np.where(logits > 0, weights, -weights).astype(np.float32)
    signs = torch.from_numpy(bits.astype(np.float32) * 2 - 1)
    keys = np.arange(len(bits))
    counts = np.zeros((len(bits), len(LEVELS) + 1), np.int64)  # pairs by the last level reached
    least_p, named = 1.0, 0
    blocks = range(0, len(logits), READING_BLOCK)
    for start in tqdm(blocks, f"{form}: {title}", unit="block", delay=2, leave=False):
        # Scores are twice a sum of whole weights less their total, all exact in float32.
        doubled = (torch.from_numpy(queries[start : start + READING_BLOCK]) @ signs.T).numpy()
        for row, products in zip(weights[start : start + READING_BLOCK], doubled, strict=True):
            scores = (products.astype(np.int64) + row.sum()) // 2
            tail = weighted_tail(row)
            levels = (tail[:, None] <= LEVELS).sum(axis=1)  # levels fall
            counts[keys, levels[scores]] += 1
            p = float(tail[scores.max()])
            least_p = min(least_p, p)
            named += p * len(bits) <= fpr
    reached = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    return Tally(reached, least_p, named)


def would_name(logits: Logits, bits: Bits, form: Form, fpr: float) -> NDArray[np.bool_]:
    """Whether each reading [b, n] names each of the keys [K, n] if these are all that were issued.

    That is the test alone, [b, K]. Attribution asks for more: it names nobody where two of the keys
    that agree are nearer to one another than keys that are drawn.
    """
    weights = soft_weights(logits) if form == "soft" else np.ones(logits.shape, np.int64)
    queries = np.where(logits > 0, weights, -weights)
    doubled = queries @ (bits.astype(np.int64) * 2 - 1).T
    scores = (doubled + weights.sum(axis=1, keepdims=True)) // 2
    pairs = zip(weights, scores, strict=True)
    return np.stack([weighted_tail(row)[reached] * len(bits) <= fpr for row, reached in pairs])


def figures(tallied: Tally, readings: int) -> dict[str, Any]:
    """A tally for the results file."""
    return {
        "share": tallied.share(readings).tolist(),
        "least_p": tallied.least_p,
        "named": tallied.named,
    }
