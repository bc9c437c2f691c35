"""experiments/pretrained/adopted_generator.py: what it makes of what it measures."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import scalefp
from adopted_generator import at_loss, further, strengthened


def test_what_is_read_at_a_loss_lies_between_the_stages_around_it() -> None:
    rows = [
        {"images": 0, "psnr": 32.0, "mean": 0.99},
        {"images": 100, "psnr": 31.0, "mean": 0.97},
        {"images": 300, "psnr": 27.0, "mean": 0.77},
    ]
    # 29 dB lie half-way between the last two.
    found = at_loss(rows, 3)
    assert found == {"images": 200, "mean": pytest.approx(0.87), "reached": True}
    assert at_loss(rows, 6) == {"images": 300, "mean": 0.77, "reached": False}


def test_nothing_is_said_of_copies_where_none_was_trained_on() -> None:
    features = {"extractor": "MobileNetV2", "images": 600, "spread": 50.0, "distance": {"1": 100.0}}
    (said,) = further({"features": features, "fine_tuning": []})
    assert "100.0 (2.00 times that)" in said


def test_keys_are_stronger_meanwhile_and_then_as_before() -> None:
    """What came after the curve was measured with the weakest keys of the curve, once."""
    network = nn.Sequential(nn.Conv2d(3, 3, 3))
    parent = scalefp.modulate(network, 8, ["0"], deltas=["0"], key_gain=0)
    key, x = scalefp.Key.random(8), torch.rand(1, 3, 8, 8)

    def change() -> torch.Tensor:
        with torch.no_grad():
            return parent.fold(key)(x) - network(x)

    before = change()
    with strengthened(SimpleNamespace(parent=parent), 2.0):
        torch.testing.assert_close(change(), 2 * before, atol=1e-5, rtol=1e-4)
    assert torch.equal(change(), before)
