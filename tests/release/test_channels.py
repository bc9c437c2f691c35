"""The order of an instance's channels: its own, reproducible, and without effect on pictures."""

import itertools
from pathlib import Path

import pytest
import torch

import scalefp
from scalefp.config import ModelConfig
from scalefp.evaluation.tamper import tamper
from scalefp.key import Key
from scalefp.metrics import psnr
from scalefp.networks.generator import Generator
from scalefp.release.channels import draw_turns, order_secret, turn_channels_
from scalefp.release.instance import Instance, instantiate, load_instance
from scalefp.release.model import Model, read_release, save_release

KEY = Key.from_hex("5ca1ab1e0ddba11f00d5c0ffee15900d")


@pytest.fixture(scope="module")
def emoji() -> Model:
    """A release whose pictures mean something."""
    model = scalefp.load("emoji")
    assert isinstance(model, Model)
    return model


# What an order does to an instance.


def test_channels_turn_in_what_writes_and_in_what_reads_them() -> None:
    generator = Generator(ModelConfig(resolution=64, channel_base=1024, key_maps=True))
    plain = instantiate(generator, KEY).state_dict()
    turns = [5, 63, 1, 0]  # of 128, 64, 32 and 16 channels
    turned = dict(plain)
    turn_channels_(turned, turns)
    for i, turn in enumerate(turns, start=1):
        for name, axis in (("before_weight", 0), ("before_bias", 0), ("conv_weight", 1)):
            tensor = plain[f"block{i}_{name}"]
            width = generator.blocks[i].conv.weight.shape[1]
            for channel in (0, width - 1):
                was = tensor.select(axis, channel)
                now = turned[f"block{i}_{name}"].select(axis, (channel + turn) % width)
                assert torch.equal(was, now), (i, name)
    maps = plain["block2_conv_offset"], turned["block2_conv_offset"]
    assert torch.equal(maps[0][:, 0], maps[1][:, 63])
    moved = {name for name in plain if not torch.equal(plain[name], turned[name])}
    assert all(name.startswith(("block1", "block2", "block3")) for name in moved)


def test_the_pictures_stay_what_they_are(emoji: Model) -> None:
    plain, instance = instantiate(emoji.generator, KEY), emoji.instantiate(KEY)
    assert not torch.allclose(plain.block2_conv_weight, instance.block2_conv_weight, atol=0.1)
    expected = plain.sample(16)
    assert (instance.sample(16) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_orders_cost_nothing_in_half_precision(emoji: Model, tmp_path: Path) -> None:
    plain = instantiate(emoji.generator, KEY)
    turned = plain.state_dict()
    turn_channels_(turned, [5, 63, 1, 7])
    for name, one in (("plain", plain), ("own", Instance(plain.config, turned))):
        one.save(tmp_path / name, half=True)
    sizes = [(tmp_path / name).stat().st_size for name in ("plain", "own")]
    assert sizes[0] == sizes[1]
    images = [load_instance(tmp_path / name).sample(8) for name in ("plain", "own")]
    assert (images[0] - images[1]).abs().max() <= 1e-5 * images[0].abs().max()


# Whose order it is.


def test_the_file_of_a_key_is_always_the_same(model: Model, release: Path, tmp_path: Path) -> None:
    for name, made in (("a", model), ("b", model), ("c", scalefp.load(release))):
        made.instantiate(KEY).save(tmp_path / name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b == c


def test_an_order_follows_from_key_and_release(model: Model, other_release: Path) -> None:
    other = scalefp.load(other_release)
    secrets = [order_secret(one.generator) for one in (model, other)]
    keys = Key.from_hex("00" * 16), Key.from_hex("00" * 15 + "01")
    turns = [draw_turns(secret, key, [1000] * 4) for secret in secrets for key in keys]
    assert all(a != b for a, b in itertools.combinations(turns, 2))
    assert turns[0] == draw_turns(secrets[0], keys[0], [1000] * 4)


def test_turns_are_even_over_all_places() -> None:
    keys = [Key.from_hex(f"{number:08x}") for number in range(4000)]
    turns = torch.tensor([draw_turns(b"secret", key, [16, 4]) for key in keys])
    for column, width in zip(turns.T, (16, 4), strict=True):
        counts = torch.bincount(column, minlength=width)
        assert len(counts) == width
        assert (counts - 4000 / width).abs().max() < 5 * (4000 / width) ** 0.5


def test_a_training_and_the_release_that_it_wrote_agree(model: Model, tmp_path: Path) -> None:
    torch.manual_seed(3)
    generator = Generator(model.config)  # in float32; the file is in half precision
    save_release(tmp_path / "r", model.config, generator, model.decoder, training={})
    secret = order_secret(generator)
    assert order_secret(read_release(tmp_path / "r").generator) == secret
    with torch.no_grad():
        generator.blocks[1].conv.weight.add_(1)  # instances hold it too
        assert order_secret(generator) == secret
        generator.blocks[1].conv.key_change.weight[0, 0] += 1
        assert order_secret(generator) != secret


# What it is for.


def test_the_mean_of_two_instances_draws_nothing(emoji: Model) -> None:
    keys = KEY, Key.from_bits(1 - KEY.bits)
    plain = [instantiate(emoji.generator, key) for key in keys]
    own = [emoji.instantiate(key) for key in keys]
    honest = plain[0].sample(8)

    def quality(network: Instance) -> float:
        return float(psnr(network.sample(8), honest).mean())

    def of_mean(copies: list[Instance]) -> float:
        one, other = (copy.state_dict() for copy in copies)
        return quality(Instance(plain[0].config, {n: (one[n] + other[n]) / 2 for n in one}))

    assert of_mean(plain) > 25  # without an order
    assert of_mean(own) < 15
    assert quality(tamper(own, "average", 0.5, torch.Generator())) > 25  # for who undoes it
