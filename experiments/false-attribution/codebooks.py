"""Keys that follow a rule, as somebody might issue them who does not draw them."""

import numpy as np
from numpy.typing import NDArray

from tallies import Bits, Logits

Signs = NDArray[np.int64]
NUMBERED = 10_000  # keys that are numbers


def hadamard(doublings: int) -> Signs:
    """Sylvester's matrix of +-1 [2^k, 2^k], of which any two rows differ in half of the columns."""
    signs = np.ones((1, 1), np.int64)
    for _ in range(doublings):
        signs = np.block([[signs, signs], [signs, -signs]])
    return signs


def structured_keys(logits: Logits, rng: np.random.Generator) -> dict[str, Bits]:
    """Codebooks [K, n], some after what the decoder read [b, n]; random keys to compare with."""
    n_bits = logits.shape[1]
    directions = logits / np.linalg.norm(logits, axis=1, keepdims=True)  # each image counts alike
    principal = np.linalg.eigh(directions.T @ directions)[1][:, -1]
    numbers = np.arange(NUMBERED, dtype=np.int64)[:, None] >> np.arange(n_bits)[::-1].clip(max=62)
    alternating = np.arange(n_bits) % 2
    code = hadamard((n_bits - 1).bit_length())[:, :n_bits]
    books = {
        "random": rng.integers(0, 2, (len(code), n_bits)),
        "all zeros": np.zeros((1, n_bits)),
        "all ones": np.ones((1, n_bits)),
        "alternating": np.stack([alternating, 1 - alternating]),
        "one byte repeated": np.resize(np.arange(256)[:, None] >> np.arange(8) & 1, (256, 8))[
            :, np.arange(n_bits) % 8
        ],
        f"numbered 0 to {NUMBERED - 1:,}": numbers & 1,
        "Hadamard code (far apart)": code > 0,
        "signs of the decoder's mean logits": logits.mean(axis=0)[None] > 0,
        "signs of their main direction": np.stack([principal > 0, principal <= 0]),
    }
    return {name: np.asarray(bits, np.uint8) for name, bits in books.items()}
