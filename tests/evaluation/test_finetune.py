"""Training an instance on: the copy moves as said, the instance stays, and it really is a GAN."""

import numpy as np
import pytest
import torch
from torch import Tensor

from scalefp.config import OptimizerConfig
from scalefp.evaluation import finetune
from scalefp.evaluation.finetune import (
    distill,
    drawing_error,
    fine_tune,
    fresh_discriminator,
    fresh_network,
)
from scalefp.evaluation.tamper import deviation
from scalefp.key import Key
from scalefp.release.instance import Instance
from scalefp.release.model import Model


@pytest.fixture
def instance(model: Model) -> Instance:
    return model.instantiate(Key.from_bits(np.arange(128) % 2))


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Dark pictures; and a discriminator that is let loose early."""
    monkeypatch.setattr(finetune, "WARM_UP_IMAGES", 64)
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 40, (12, 3, 16, 16), dtype=torch.uint8, generator=draw)


def test_stages_come_in_order_and_the_instance_stays(instance: Instance, data: Tensor) -> None:
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
    instance: Instance, data: Tensor
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


def test_the_seed_decides(instance: Instance, data: Tensor) -> None:
    def run(seed: int) -> torch.Tensor:
        ((_, stage),) = fine_tune(instance, data, [64], seed=seed)
        return stage.sample(2)

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_training_on_moves_the_pictures_towards_the_data(instance: Instance, data: Tensor) -> None:
    dark = float(data.float().mean()) / 127.5 - 1
    (_, early), (_, late) = fine_tune(instance, data, [0, 1600], seed=0)
    away = [abs(float(stage.sample(32).mean()) - dark) for stage in (early, late)]
    assert away[1] < 0.5 * away[0]


def test_the_discriminator_has_the_instances_sizes(instance: Instance) -> None:
    discriminator = fresh_discriminator(instance)
    assert discriminator(torch.zeros(4, 3, 16, 16)).shape == (4,)
    widths = {block.conv1.weight.shape[0] for block in discriminator.blocks}
    assert widths <= set(instance.config.channels)


def test_the_error_counts_every_scale() -> None:
    flat = torch.zeros(1, 3, 16, 16)
    checks = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    assert float(drawing_error(flat, flat + 0.5)) == pytest.approx(1.0)  # at 16 and at 8 pixels
    assert float(drawing_error(flat, flat + 0.5 * checks)) == pytest.approx(0.5)  # at 16 alone


def test_a_fresh_network_learns_to_draw_what_the_instance_draws(instance: Instance) -> None:
    fresh = fresh_network(instance, seed=0)
    assert {n: t.shape for n, t in fresh.named_parameters()} == {
        n: t.shape for n, t in instance.named_parameters()
    }
    z = torch.randn(64, instance.config.latent_dim, generator=torch.Generator().manual_seed(9))
    first, last = distill(instance, [0, 4000], seed=0)
    assert (first[0], last[0]) == (0, 4000)
    errors = [float(drawing_error(student(z), instance(z))) for _, student in (first, last)]
    assert errors[1] < 0.5 * errors[0]
