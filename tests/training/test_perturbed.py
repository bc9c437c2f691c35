"""How well images are read: over all key bits, as evidence that a user would count on."""

import math

import pytest
import torch

from scalefp.attribution.tails import log_binomial_tail
from scalefp.training.perturbed import reading_figures


def test_evidence_is_the_surprise_of_the_matches_of_each_image():
    bits = torch.randint(0, 2, (3, 16), generator=torch.Generator().manual_seed(0))
    logits = bits.float() * 2 - 1
    assert reading_figures(logits, bits)["evidence"].item() == pytest.approx(16)  # 2^-16 by chance
    logits[1, :4] *= -1
    logits[2, :8] *= -1
    figures = reading_figures(logits, bits)
    assert figures["bit_accuracy"].item() == pytest.approx((16 + 12 + 8) / 48)
    expected = [-log_binomial_tail(16, m) / math.log(2) for m in (16, 12, 8)]
    assert figures["evidence"].item() == pytest.approx(sum(expected) / 3, rel=1e-6)


def test_more_bits_read_less_well_may_carry_more():
    """16 bits at .9 do not beat 128 at .89, as the accuracy alone would have it."""
    draw = torch.Generator().manual_seed(0)

    def evidence(n_bits: int, accuracy: float) -> float:
        bits = torch.randint(0, 2, (200, n_bits), generator=draw)
        wrong = torch.rand(200, n_bits, generator=draw) > accuracy
        logits = (bits.float() * 2 - 1) * (1 - 2 * wrong.float())
        return reading_figures(logits, bits)["evidence"].item()

    assert evidence(128, 0.89) > 5 * evidence(16, 0.9)
    assert evidence(128, 0.5) < 2  # nothing was read
