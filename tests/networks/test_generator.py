"""The generator: sizes, what each key bit may and may not do, independence of samples."""

import pytest
import torch

from scalefp.config import ModelConfig
from scalefp.networks.generator import (
    Generator,
    KeyEmbedding,
    block_resolutions,
    channels_at,
    map_channels,
)
from scalefp.networks.layers import ModulatedConv2d


def tiny(resolution=16, **options):
    sizes = dict(n_bits=16, latent_dim=6, channel_base=4 * resolution, channel_max=8)
    return ModelConfig(**{"resolution": resolution, "embedding_width": 12, **sizes, **options})


def build(config, seed=0):
    torch.manual_seed(seed)
    return Generator(config)


def inputs(config, batch=4, seed=1):
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(batch, config.latent_dim, generator=draw)
    return z, torch.randint(0, 2, (batch, config.n_bits), generator=draw)


@pytest.mark.parametrize("key_maps", [True, False])
@pytest.mark.parametrize("resolution", [16, 32, 64, 128, 256])
def test_images_have_the_resolution_of_the_config(resolution, key_maps):
    config = tiny(resolution, key_maps=key_maps)
    images = build(config)(*inputs(config, batch=2))
    assert images.shape == (2, 3, resolution, resolution)
    assert images.dtype == torch.float32
    assert images.isfinite().all()
    assert images.std() > 0


@pytest.mark.parametrize("mapping_layers", [0, 8])
@pytest.mark.parametrize("n_bits", [8, 37, 128, 512])
def test_keys_of_every_length_show_in_the_image(n_bits, mapping_layers):
    config = tiny(n_bits=n_bits, mapping_layers=mapping_layers)
    generator, (z, bits) = build(config), inputs(config)
    assert not torch.equal(generator(z, bits), generator(z, 1 - bits))


def test_channels_shrink_with_resolution_and_stay_below_the_maximum():
    config = ModelConfig(resolution=64, channel_base=256, channel_max=32)
    assert block_resolutions(config) == [4, 8, 16, 32, 64]
    assert [channels_at(config, r) for r in block_resolutions(config)] == [32, 32, 16, 8, 4]


@pytest.mark.parametrize("mapping_layers", [0, 2])
def test_only_active_bits_have_influence(mapping_layers):
    config = tiny(n_bits=12, mapping_layers=mapping_layers)
    generator, (z, bits) = build(config), inputs(config, batch=1)
    n_active = 5
    active = (torch.arange(12) < n_active).float()
    before = generator(z, bits, active)
    for i in range(config.n_bits):
        flipped = bits.clone()
        flipped[:, i] = 1 - flipped[:, i]
        same = torch.equal(generator(z, flipped, active), before)
        assert same == (i >= n_active), f"bit {i}"
        assert not torch.equal(generator(z, flipped), generator(z, bits)), f"bit {i}"


def test_inactive_bits_count_as_absent_not_as_zero():
    config = tiny(n_bits=12)
    generator, (z, _) = build(config), inputs(config)
    zeros = torch.zeros(4, 12, dtype=torch.long)
    assert not torch.equal(generator(z, zeros, (torch.arange(12) < 5).float()), generator(z, zeros))
    assert torch.equal(generator(z, zeros, torch.ones(12)), generator(z, zeros))


def test_bits_of_any_integer_or_float_type_mean_the_same():
    config = tiny()
    generator, (z, bits) = build(config), inputs(config)
    for dtype in (torch.uint8, torch.bool, torch.float32):
        assert torch.equal(generator(z, bits.to(dtype)), generator(z, bits))


@pytest.mark.parametrize("key_maps", [True, False])
@pytest.mark.parametrize("mapping_layers", [0, 8])
def test_every_parameter_gets_a_gradient(mapping_layers, key_maps):
    config = tiny(32, mapping_layers=mapping_layers, key_maps=key_maps)
    generator, (z, bits) = build(config), inputs(config)
    images = generator(z, bits)
    (images * torch.randn_like(images)).sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("key_from", "key_to"), [(4, 8), (16, 256), (8, 16), (16, 16)])
def test_a_key_modulates_the_layers_of_the_sizes_that_it_may_and_no_others(key_from, key_to):
    config = tiny(32, key_from=key_from, key_to=key_to)
    generator, (z, bits) = build(config), inputs(config)
    sizes: dict[str, int] = {}  # of the inputs of the layers
    for name, layer in generator.named_modules():
        if isinstance(layer, ModulatedConv2d):
            layer.register_forward_hook(
                lambda _, given, __, name=name: sizes.__setitem__(name, given[0].shape[-1])
            )
    generator(z, bits).square().sum().backward()
    assert sorted(sizes.values()) == [4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32]
    for name, size in sizes.items():
        layer, taken = generator.get_submodule(name), key_from <= size <= key_to
        assert bool(layer.key_change.weight.any()) == taken, name
        assert (layer.key_change.weight.grad is not None) == taken, name
        has_maps = taken and size >= 16 and layer.demodulate
        assert (layer.maps is not None) == has_maps, name
    assert not torch.equal(generator(z, bits), generator(z, 1 - bits))


def test_samples_of_a_batch_do_not_see_each_other():
    config = tiny(32)
    generator, (z, bits) = build(config), inputs(config)
    before = generator(z, bits)
    other_z, other_bits = inputs(config, seed=2)
    z[1], bits[1] = other_z[1], other_bits[1]
    after = generator(z, bits)
    others = [0, 2, 3]
    torch.testing.assert_close(after[others], before[others], rtol=0, atol=1e-6)
    assert not torch.allclose(after[1], before[1], atol=1e-3)


def test_latents_count_by_direction_not_length():
    config = tiny()
    generator, (z, bits) = build(config), inputs(config)
    torch.testing.assert_close(generator(3 * z, bits), generator(z, bits), rtol=0, atol=1e-5)
    assert not torch.allclose(generator(-z, bits), generator(z, bits), atol=1e-3)


def test_the_image_depends_on_the_key_through_the_embedding_alone():
    config = tiny(mapping_layers=8)
    generator, (z, bits) = build(config), inputs(config)
    embedding = generator.embedding(bits)
    assert embedding.shape == (4, config.embedding_width)
    assert torch.equal(generator.synthesize(z, embedding), generator(z, bits))


def test_published_mapping_is_an_mlp_of_8_layers_and_0_is_one_linear_map():
    torch.manual_seed(0)
    deep, linear = (KeyEmbedding(tiny(n_bits=8, mapping_layers=n)) for n in (8, 0))
    assert len(deep.layers) == 8
    assert len(linear.layers) == 1

    def nonlinearity(embedding):  # f(a) + f(-a) = 2 f(0) for every linear map f
        bits = torch.tensor([[1, 0, 0, 1, 1, 0, 1, 0]])
        return (embedding(bits) + embedding(1 - bits) - 2 * embedding(bits, 0)).abs().max().item()

    assert nonlinearity(linear) < 1e-6
    assert nonlinearity(deep) > 1e-3
    assert not linear(torch.zeros(1, 8), 0).any()  # so over all keys it averages to nothing


def test_mapping_lr_multiplier_starts_from_the_same_embedding_and_learns_slower():
    bits = torch.randint(0, 2, (4, 16), generator=torch.Generator().manual_seed(0))
    changes = {}
    for multiplier in (1.0, 0.01):
        torch.manual_seed(0)
        embedding = KeyEmbedding(tiny(mapping_layers=3, mapping_lr_multiplier=multiplier))
        before = embedding(bits)
        if multiplier == 1.0:
            start = before
        torch.testing.assert_close(before, start, rtol=1e-4, atol=1e-5)
        optimizer = torch.optim.Adam(embedding.parameters(), lr=1e-3)
        before.sum().backward()
        optimizer.step()
        changes[multiplier] = (embedding(bits) - before).abs().mean().item()
    assert 0 < changes[0.01] < 0.1 * changes[1.0]


def test_maps_stand_at_the_size_of_their_layer_up_to_what_the_decoder_sees():
    def map_sizes(**options):
        layers = build(tiny(64, **options)).modules()
        modulated = [layer for layer in layers if isinstance(layer, ModulatedConv2d)]
        return [0 if m.maps is None else m.maps.shape[-1] for m in modulated if m.demodulate]

    layer_sizes = [4, 4, 8, 8, 16, 16, 32, 32, 64]  # conv at 4; before and conv at 8, 16, 32, 64
    for decoder_resolution in (16, 32, 64):
        sizes = map_sizes(decoder_resolution=decoder_resolution)
        assert all(size in (0, own) for size, own in zip(sizes, layer_sizes, strict=True))
        assert max(sizes) == decoder_resolution
    assert set(map_sizes(key_maps=False)) == {0}


@pytest.mark.parametrize("options", [{}, {"key_to": 16}, {"key_from": 32}, {"key_maps": False}])
def test_as_many_patterns_can_be_laid_over_one_another_as_channels_have_maps(options):
    config = tiny(resolution=32, channel_base=512, channel_max=24, **options)
    maps = [layer.maps for layer in build(config).modules() if isinstance(layer, ModulatedConv2d)]
    assert map_channels(config) == sum(len(own[0]) for own in maps if own is not None)
