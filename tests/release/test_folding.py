"""The fast path of instantiating: what the readable one gives, for any key and in any thread."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from scalefp.config import ModelConfig
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.networks.generator import Generator
from scalefp.release.folding import Folding
from scalefp.release.instance import Instance, instantiate, tensor_shapes

CONFIG = ModelConfig(
    resolution=32, n_bits=24, latent_dim=6, channel_base=128, channel_max=8, embedding_width=12,
    key_gain=1.0, decoder_resolution=16,
)  # fmt: skip
KEY = Key.from_hex("c0ffee")


def build(**options: object) -> Generator:
    """A generator none of whose parameters is trivial, as after training; maps at 16, not at 32."""
    torch.manual_seed(0)
    generator = Generator(dataclasses.replace(CONFIG, **options))
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if not name.endswith(".weight"):
                parameter += 0.3 * torch.randn_like(parameter)
    return generator


def images(network: torch.nn.Module, key: Key | None = None) -> torch.Tensor:
    z = torch.randn(3, CONFIG.latent_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network(z) if key is None else network(z, torch.from_numpy(key.bits).expand(3, -1))


def assert_same_images(one: torch.Tensor, other: torch.Tensor) -> None:
    assert (one - other).abs().max() <= 1e-5 * other.abs().max()


@pytest.mark.parametrize("mapping_layers", [0, 1, 3])
@pytest.mark.parametrize("key_maps", [True, False])
@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_it_gives_what_the_parent_and_the_readable_way_give(resolution, key_maps, mapping_layers):
    parent = build(resolution=resolution, key_maps=key_maps, mapping_layers=mapping_layers)
    folding = Folding(parent)
    for key in (KEY, Key.from_bits(1 - KEY.bits), KEY):
        instance = folding(key)
        assert_same_images(images(instance), images(parent, key))
        assert_same_images(images(instance), images(instantiate(parent, key)))
    shapes = {name: tuple(tensor.shape) for name, tensor in instance.state_dict().items()}
    assert shapes == tensor_shapes(instance.config)


def test_scales_of_exactly_zero_are_no_exception():
    parent = build()
    layer = parent.blocks[2].conv
    with torch.no_grad():  # scale = 1 + change . embedding
        embedding = parent.embedding(torch.from_numpy(KEY.bits)[None])[0].double()
        change = -embedding / embedding.square().sum() / layer.key_change.weight_gain
        layer.key_change.weight[0] = change.float()
        layer.maps[0, 0] = 2
    assert layer.scales(embedding.float())[0].abs() < 1e-6
    assert_same_images(images(Folding(parent)(KEY)), images(parent, KEY))


def test_instances_share_no_memory_with_one_another_or_the_parent():
    parent = build()
    folding, expected = Folding(parent), images(parent, KEY)
    first, second = folding(KEY), folding(KEY)
    assert torch.equal(images(first), images(second))
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(7)
    assert_same_images(images(second), expected)
    assert_same_images(images(folding(KEY)), expected)
    assert torch.equal(images(parent, KEY), expected)


def test_an_instance_is_frozen_and_complete(tmp_path):
    instance = Folding(build())(KEY)
    assert isinstance(instance, Instance) and not instance.training
    assert not any(parameter.requires_grad for parameter in instance.parameters())
    z = torch.randn(2, CONFIG.latent_dim, requires_grad=True)
    instance(z).sum().backward()
    assert z.grad is not None and z.grad.abs().max() > 0


def test_threads_do_not_mix_their_keys():
    parent = build()
    folding = Folding(parent)
    keys = [Key.random(CONFIG.n_bits) for _ in range(40)]
    with ThreadPoolExecutor(8) as pool:
        instances = list(pool.map(folding, keys))
    for key, instance in zip(keys, instances, strict=True):
        assert_same_images(images(instance), images(parent, key))


@pytest.mark.parametrize("n_bits", [8, 128])
def test_a_key_of_another_length_is_refused(n_bits):
    with pytest.raises(UserError, match=f"{n_bits} bits.*24"):
        Folding(build())(Key.random(n_bits))
