"""Figures of keys that a training saw, beside those of keys that it never saw."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scalefp.key import Key
from scalefp.studies import unseen
from scalefp.training.batch import training_keys

N_BITS = 16


class Memory:
    """A release that reads the keys of its training; of all others it reads no bit rightly.

    An image shows its key, a row of pixels for each bit.
    """

    config = SimpleNamespace(n_bits=N_BITS)
    searches = False

    def __init__(self, known: Tensor) -> None:
        self.known = {tuple(key) for key in known.tolist()}

    def instantiate(self, key: Key) -> Any:
        rows = torch.from_numpy(key.bits.astype(np.float32))[:, None].expand(-1, N_BITS) * 1.6 - 0.8

        def sample(count: int, *, seed: int, batch_size: int) -> Tensor:
            noise = torch.randn(count, 3, 1, 1, generator=torch.Generator().manual_seed(seed))
            return rows + 0.01 * noise

        return SimpleNamespace(sample=sample)

    def decode(self, images: list[Any], **_: Any) -> Any:
        shown = np.stack([np.asarray(image).mean(axis=(1, 2)) > 127 for image in images])
        right = np.array([tuple(key) in self.known for key in shown.astype(int).tolist()])
        return SimpleNamespace(logits=20.0 * np.where(shown == right[:, None], 1, -1))


@pytest.mark.parametrize("count", [10, 100])
def test_the_keys_of_a_training_are_those_that_it_drew(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    memory = Memory(training_keys(count, N_BITS, 3, torch.device("cpu")))
    monkeypatch.setattr(unseen, "load_generating", lambda path: memory)
    figures = unseen.measure_unseen(Path("release"), 3, count)
    assert figures["trained_bit_accuracy"] == 1
    assert figures["unseen_bit_accuracy"] < 0.1  # one of 2^16 keys might be known by chance
    assert figures["unseen_evidence"] < 0.1 and figures["unseen_attributed"] == 0
    assert "trained_bit_accuracy" not in unseen.measure_unseen(Path("release"), 3)


def test_evidence_is_a_bit_for_each_that_is_surely_read(monkeypatch: pytest.MonkeyPatch) -> None:
    every = torch.tensor([[n >> bit & 1 for bit in range(N_BITS)] for n in range(2**N_BITS)])
    monkeypatch.setattr(unseen, "load_generating", lambda path: Memory(every))
    figures = unseen.measure_unseen(Path("release"), 0)
    assert figures["unseen_bit_accuracy"] == 1
    assert figures["unseen_evidence"] == pytest.approx(N_BITS)
    assert figures["unseen_attributed"] == 0  # 39.9 bits are needed
