"""Bound bits of a release: which an instance has, what they change of it, and their file."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.release.binding import Binding, BindingSizes, keyed_weight
from scalefp.release.container import METADATA
from scalefp.release.folding import Folding
from scalefp.release.instance import tensor_shapes
from scalefp.release.model import Model, read_release, save_release

SIZES = BindingSizes("block1_conv", 24)
KEY = Key.from_bits(np.arange(128) % 3 == 0)


def made(model: Model, sizes: BindingSizes = SIZES) -> Binding:
    """A binding with random directions, which half precision holds."""
    draw = torch.Generator().manual_seed(0)
    binding = Binding(sizes, keyed_weight(sizes.layer, tensor_shapes(model.folding.sizes)))
    drawn = 0.02 * torch.randn(binding.directions.shape, generator=draw)
    binding.directions.data = drawn.half().float()
    return binding


@pytest.fixture(scope="module")
def path(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bound") / "bound.safetensors"
    save_release(
        path, model.config, model.generator, model.decoder, training={}, binding=made(model)
    )
    return path


def test_bits_follow_from_key_and_secret_and_look_like_coins(model: Model) -> None:
    binding, chance = made(model), np.random.default_rng(0)
    keys = [Key.from_bits(chance.integers(0, 2, 128)) for _ in range(400)]
    drawn = np.stack([binding.bits(b"secret", key) for key in keys])
    assert drawn.shape == (400, 24) and drawn.dtype == np.uint8
    assert np.array_equal(drawn, [binding.bits(b"secret", key) for key in keys])
    other = np.stack([binding.bits(b"another", key) for key in keys])
    # Sums of fair coins: 5 standard deviations.
    for coins in (drawn, drawn ^ other, drawn[1:] ^ drawn[:-1]):
        assert abs(coins.mean() - 0.5) < 5 * 0.5 / coins.size**0.5
        assert (abs(coins.mean(axis=0) - 0.5) < 5 * 0.5 / len(coins) ** 0.5).all()


def test_each_bit_adds_its_product_with_its_sign(model: Model) -> None:
    binding, weight = made(model), torch.zeros(8, 8, 3, 3)
    bits = binding.bits(b"secret", KEY)
    outputs, others = binding.factors(b"secret", KEY)
    assert outputs.abs().eq(1).all()
    mixing = torch.linalg.lstsq(binding.directions.T, others.T).solution
    assert torch.allclose(mixing.abs(), torch.ones(35, 24), atol=1e-3)  # of all directions
    expected = sum(
        (1.0 if bit else -1.0) * torch.outer(outputs[i], others[i]) for i, bit in enumerate(bits)
    )
    assert torch.allclose(binding.change(b"secret", KEY, weight).flatten(1), expected, atol=1e-6)


def test_no_copy_tells_of_another_what_is_changed(model: Model) -> None:
    """Whoever compares copies finds their own changes, and chance of hers."""
    binding, chance = made(model), np.random.default_rng(1)
    keys = [Key.from_bits(chance.integers(0, 2, 128)) for _ in range(41)]
    weight = torch.zeros(8, 8, 3, 3)
    first, *others = (binding.change(b"secret", key, weight).flatten() for key in keys)
    assert torch.equal(first, binding.change(b"secret", keys[0], weight).flatten())
    assert not torch.equal(first, binding.change(b"another", keys[0], weight).flatten())
    span = torch.linalg.qr(torch.stack(others).T)[0]
    found = float((first @ span).square().sum() / first.square().sum())
    # Of 8 outputs x 35 directions, 40 copies show a seventh; with directions that all share, the
    # 24 bits would be known whole.
    assert found == pytest.approx(40 / (8 * 35), abs=0.1)


def test_an_instance_has_them_in_one_layer_and_channels_in_the_same_order(model: Model) -> None:
    binding, without = made(model), Folding(model.generator)
    bound = Folding(model.generator, binding)
    tensors, plain = bound(KEY).state_dict(), without(KEY).state_dict()
    changed = [name for name in tensors if not torch.equal(tensors[name], plain[name])]
    assert changed == ["block1_conv_weight"]
    # What is added goes with the channels, which an instance has in an order of its own.
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    unturned = bound.tensors(KEY)
    weight = unturned["block1_conv_weight"]
    weight += binding.change(bound.secret, KEY, weight)
    instance = bound(KEY)
    pictures = instance(z)
    for name, tensor in unturned.items():
        instance._parameters[name] = torch.nn.Parameter(tensor, requires_grad=False)
    assert torch.allclose(instance(z), pictures, atol=1e-5)
    assert not torch.allclose(without(KEY)(z), pictures, atol=1e-3)


def test_a_release_keeps_them_and_one_without_has_none(model: Model, path: Path) -> None:
    read = read_release(path)
    assert model.binding is None and read.binding is not None
    assert read.binding.sizes == SIZES
    for name, value in made(model).state_dict().items():
        assert torch.equal(read.binding.state_dict()[name], value)
    expected = Folding(model.generator, made(model))(KEY).state_dict()
    for name, tensor in read.instantiate(KEY).state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_layers_that_do_not_exist_are_named(model: Model) -> None:
    shapes = tensor_shapes(model.folding.sizes)
    for name in ("block9_conv", "block1_to_rgb", "input", ""):
        with pytest.raises(UserError, match="has no convolution .* it has block0_conv, block1_"):
            keyed_weight(name, shapes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_bits": 3}, "between 20 and 256"),
        ({"n_bits": "many"}, "n_bits is 'many'"),
        ({"layer": "block7_conv"}, "no convolution 'block7_conv'"),
    ],
)
def test_damaged_headers_are_refused(
    path: Path, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()[METADATA])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    about["header"]["binding"] = dataclasses.asdict(SIZES) | change
    save_file(tensors, tmp_path / "damaged.safetensors", {METADATA: json.dumps(about)})
    with pytest.raises(UserError, match=words):
        read_release(tmp_path / "damaged.safetensors")


def test_directions_of_another_layer_are_refused(path: Path, tmp_path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["binding.directions"] = tensors["binding.directions"][:-1].contiguous()
    save_file(tensors, tmp_path / "damaged.safetensors", about)
    with pytest.raises(UserError, match="binding.directions"):
        read_release(tmp_path / "damaged.safetensors")
