"""Training an instance on: the copy moves as said, the instance stays, and it really is a GAN."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scalefp.config import OptimizerConfig
from scalefp.data.dataset import ImageSet
from scalefp.evaluation import finetune
from scalefp.evaluation.finetune import fine_tune, fresh_discriminator
from scalefp.evaluation.tamper import deviation
from scalefp.key import Key
from scalefp.release.instance import Instance
from scalefp.release.model import Model


@pytest.fixture
def instance(model: Model) -> Instance:
    return model.instantiate(Key.from_bits(np.arange(128) % 2))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """Dark pictures; and a discriminator that is let loose early."""
    monkeypatch.setattr(finetune, "WARM_UP_IMAGES", 64)
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 40, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return ImageSet(tmp_path, 16, progress=False)


def test_stages_come_in_order_and_the_instance_stays(instance: Instance, data: ImageSet) -> None:
    before = {n: t.clone() for n, t in instance.named_parameters()}
    state = torch.get_rng_state()
    stages = list(fine_tune(instance, data, [0, 32, 64], seed=0))
    assert [images for images, _ in stages] == [0, 32, 64]
    for name, tensor in instance.named_parameters():
        assert torch.equal(tensor, before[name])
    weights = [dict(stage.named_parameters()) for _, stage in stages]
    assert all(torch.equal(weights[0][n], before[n]) for n in before)  # nothing trained yet
    assert all(not torch.equal(weights[1][n], weights[2][n]) for n in before if "weight" in n)
    assert not any(t.requires_grad for _, stage in stages for t in stage.parameters())
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's randomness was used


def test_a_step_moves_each_tensor_in_proportion_to_its_deviation(
    instance: Instance, data: ImageSet
) -> None:
    ((_, moved),) = fine_tune(instance, data, [32], seed=0)
    rate = OptimizerConfig().learning_rate
    for (name, new), old in zip(moved.named_parameters(), instance.parameters(), strict=True):
        steps = (new - old).abs()
        width = rate * float(deviation(old))
        # Adam's first step is the rate times the sign of the gradient, where there is one.
        assert steps.max() <= 1.001 * width + 1e-8, name
        if name.endswith("weight"):
            assert (steps > 0.9 * width).float().mean() > 0.9, name


def test_the_seed_decides(instance: Instance, data: ImageSet) -> None:
    def run(seed: int) -> torch.Tensor:
        ((_, stage),) = fine_tune(instance, data, [64], seed=seed)
        return stage.sample(2)

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_training_on_moves_the_pictures_towards_the_data(
    instance: Instance, data: ImageSet
) -> None:
    dark = data.pixels.mean() / 127.5 - 1
    (_, early), (_, late) = fine_tune(instance, data, [0, 1600], seed=0)
    away = [abs(float(stage.sample(32).mean()) - dark) for stage in (early, late)]
    assert away[1] < 0.5 * away[0]


def test_the_discriminator_has_the_instances_sizes(instance: Instance) -> None:
    discriminator = fresh_discriminator(instance)
    assert discriminator(torch.zeros(4, 3, 16, 16)).shape == (4,)
    widths = {block.conv1.weight.shape[0] for block in discriminator.blocks}
    assert widths <= set(instance.config.channels)
