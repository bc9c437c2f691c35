"""experiments/artificial-fingerprints/transfer_reason.py: what generators can draw."""

from pathlib import Path

import pytest
import torch

import transfer_reason
from experiment_scripts import SIZE, write_pictures
from scalefp.data.dataset import ImageSet


def test_what_is_explained_is_a_share_of_the_energy() -> None:
    pattern = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert transfer_reason.explained(pattern.expand(4, 3, 8, 8), pattern) == 1
    nothing = transfer_reason.explained(torch.zeros(4, 3, 8, 8), pattern)
    assert nothing == pytest.approx(0, abs=1e-6)
    assert transfer_reason.explained(pattern[None] / 2, pattern) == pytest.approx(0.75)


def test_waves_of_two_pixels_are_fine_and_of_eight_are_not() -> None:
    x = torch.arange(16)
    for length, share in ((2, 1), (8, 0)):
        wave = torch.cos(2 * torch.pi * x / length).expand(3, 16, 16)
        assert transfer_reason.fine_share(wave) == pytest.approx(share, abs=1e-6)


def test_transposed_convolutions_draw_fine_patterns_and_our_layers_without_maps_do_not(
    tmp_path: Path,
) -> None:
    """A pattern of single pixels, whatever the latent."""
    data = ImageSet(write_pictures(tmp_path, 4), SIZE, progress=False)
    pattern = 0.25 * torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).sign()
    shares = {}
    for name in ("ours", "dcgan"):
        fitted = transfer_reason.generator_to_fit(name, data, 0, 10**6)
        drawn = transfer_reason.fit(fitted, pattern, 40, 0)
        assert drawn.shape == (64, 3, SIZE, SIZE)
        shares[name] = transfer_reason.explained(drawn, pattern)
    assert shares["ours"] < 0.1 and shares["dcgan"] > 0.3, shares
