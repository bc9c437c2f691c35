import numpy as np
import pytest
import torch

from scalefp.detection.classifier import blur_and_jpeg, train_classifier
from tests.experiment_scripts import pictures


def patterned(count: int, seed: int, pattern: int) -> torch.Tensor:
    """Pictures that a faint pattern was laid on, the same one at the same place."""
    noise = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(1000 + pattern))
    return (pictures(count, seed) + 12 * noise).clamp(0, 255).to(torch.uint8)


def test_sources_are_told_apart_by_a_pattern_at_its_place() -> None:
    classes = [patterned(60, seed, seed) for seed in range(3)]
    judge = train_classifier(classes, images=64 * 24, seed=0)
    for pattern in range(3):
        found = judge(patterned(40, 10 + pattern, pattern))
        assert found.shape == (40, 3) and found.sum(axis=1) == pytest.approx(np.ones(40))
        assert (found.argmax(axis=1) == pattern).mean() > 0.9


def test_half_of_the_images_are_blurred_and_half_compressed() -> None:
    images = pictures(400)
    changed = blur_and_jpeg(images, np.random.default_rng(0))
    assert changed.shape == images.shape and changed.dtype == torch.uint8
    # Neither happens to a quarter of them; a deviation of nearly nothing blurs nothing either.
    untouched = float((changed == images).flatten(1).all(dim=1).float().mean())
    assert 0.2 < untouched < 0.35
    assert torch.equal(changed, blur_and_jpeg(images, np.random.default_rng(0)))
