"""Disturbed instances in training: what tampering measures, open to gradients."""

import copy
import dataclasses

import pytest
import torch

from scalefp.config import ModelConfig
from scalefp.evaluation.tamper import deviation
from scalefp.key import Key
from scalefp.networks.generator import Generator
from scalefp.release.instance import instantiate
from scalefp.training.tampered import disturbed, disturbed_images

CONFIG = ModelConfig(
    resolution=16, n_bits=8, latent_dim=4, channel_base=64, channel_max=8, embedding_width=8
)
KEYS = [Key.from_hex("5a"), Key.from_hex("c3")]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=[True, False], ids=["maps", "no maps"])
def generator(request):
    torch.manual_seed(0)
    generator = Generator(dataclasses.replace(CONFIG, key_maps=request.param))
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(("bias", "maps")):  # which begin at zero
                parameter.normal_()
    return generator


@pytest.fixture
def embedding(generator):
    return generator.embedding(torch.stack([torch.from_numpy(key.bits) for key in KEYS]))


def test_noise_is_measured_in_each_tensors_own_deviations():
    tensors = {"a": torch.randn(40_000, generator=seeded()) * 3 + 1, "b": torch.ones(1)}
    noisy = disturbed(tensors, 0.2, seeded(1))
    change = noisy["a"] - tensors["a"]
    assert change.std().item() == pytest.approx(0.2 * deviation(tensors["a"]).item(), rel=0.02)
    assert abs(change.mean().item()) < 0.02
    assert torch.equal(noisy["b"], tensors["b"])  # a single value has none, as in tamper.py
    assert torch.equal(disturbed(tensors, 0.2, seeded(1))["a"], noisy["a"])


def test_without_noise_they_are_the_instances_of_their_keys(generator, embedding):
    z = torch.randn(2, 3, 4, generator=seeded())
    images = disturbed_images(generator, z, embedding, 0.0, seeded())
    for latents, key, own in zip(z, KEYS, images.chunk(2), strict=True):
        torch.testing.assert_close(own, instantiate(generator, key)(latents))


def test_noise_changes_images_more_the_stronger_it_may_be(generator, embedding):
    z = torch.randn(2, 3, 4, generator=seeded())
    with torch.no_grad():
        plain, weak, strong = (
            disturbed_images(generator, z, embedding, strength, seeded(3))
            for strength in (0.0, 0.05, 0.5)
        )
    changes = [(images - plain).square().mean().sqrt().item() for images in (weak, strong)]
    assert 0 < 5 * changes[0] < changes[1]


def test_folding_passes_the_gradients_of_the_parent(generator, embedding):
    """Without noise the folded network and the parent are one function of all weights."""
    z = torch.randn(2, 1, 4, generator=seeded())
    bits = torch.stack([torch.from_numpy(key.bits) for key in KEYS])
    other = copy.deepcopy(generator)
    disturbed_images(generator, z, embedding, 0.0, seeded()).square().mean().backward()
    other(z[:, 0], bits).square().mean().backward()
    expected = dict(other.named_parameters())
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-3, atol=1e-6)
