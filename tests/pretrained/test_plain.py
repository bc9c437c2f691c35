"""A generator of this project without keys is fingerprinted as anybody's."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import scalefp
from scalefp.cli import main
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.pretrained.plain import Generator
from scalefp.pretrained.source import load_into
from scalefp.release.instance import Instance
from scalefp.release.model import Model

YAML = """# @package _global_
generator:
  _target_: scalefp.pretrained.plain.Generator
  weights: {folder}/plain.safetensors
  resolution: 16
  latent_dim: {latent_dim}
  channels: {channels}
  maps: {maps}
inputs:
  _target_: scalefp.pretrained.inputs.Normal
  shape: [{latent_dim}]
modulation:
  layers: [block2_before]
  deltas: [block2_before]
  keys_each: 4
model:
  resolution: 16
"""


@pytest.fixture(scope="module")
def plain(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instance with constant maps that are not zero, in a folder with the YAML that names it."""
    folder = tmp_path_factory.mktemp("plain")
    made = model.instantiate(Key.from_bits(np.arange(128) % 2))
    draw = torch.Generator().manual_seed(0)
    tensors = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=draw)
        for name, tensor in made.named_parameters()
    }
    Instance(made.config, tensors).save(folder / "plain.safetensors")
    experiments = folder / "conf" / "experiment"
    experiments.mkdir(parents=True)
    sizes = {n: list(getattr(made.config, n)) for n in ("channels", "maps")}
    text = YAML.format(folder=folder, latent_dim=made.config.latent_dim, **sizes)
    (experiments / "ours.yaml").write_text(text)
    return folder / "plain.safetensors"


def layered(plain: Path) -> tuple[Instance, Generator]:
    """An instance, and the same network with layers."""
    instance = scalefp.load_instance(plain)
    assert isinstance(instance, Instance)
    sizes = instance.config
    network = Generator(sizes.resolution, sizes.latent_dim, sizes.channels, sizes.maps)
    load_into(network, load_file(plain), plain)
    return instance, network.eval().requires_grad_(False)


def test_it_is_the_instance_with_layers(plain: Path) -> None:
    instance, network = layered(plain)
    z = torch.randn(5, instance.config.latent_dim, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(z), instance(z).clamp(-1, 1), atol=1e-6, rtol=0)
    assert {n: t.shape for n, t in network.state_dict().items()} == {
        n: t.shape for n, t in instance.state_dict().items()
    }
    # Inside another network and copied, it keeps the names.
    outer = torch.nn.ModuleDict({"inner": copy.deepcopy(network)})
    assert set(outer.state_dict()) == {f"inner.{name}" for name in instance.state_dict()}
    outer.load_state_dict({n: torch.zeros_like(t) for n, t in outer.state_dict().items()})
    assert not any(tensor.any() for tensor in outer.parameters())
    assert network.sample(2).shape == (2, 3, 16, 16)


def test_several_keys_for_each_input_are_those_one_by_one(plain: Path) -> None:
    instance, network = layered(plain)
    parent = scalefp.modulate(network, 8, ["block2_before"], deltas=["block2_before"])
    z = torch.randn(2, instance.config.latent_dim, generator=torch.Generator().manual_seed(1))
    bits = torch.randint(0, 2, (6, 8), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        together, alone = parent(z, bits), parent(z.repeat_interleave(3, dim=0), bits)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_sizes_that_no_instance_has() -> None:
    with pytest.raises(UserError, match="do not lead from 4 to the resolution 16"):
        Generator(16, 8, [4], [])


def test_it_is_fingerprinted_by_one_command_and_stays_an_instance(
    plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = plain.parent
    release = folder / "run" / "release.safetensors"
    assert (
        main(
            [
                "train", "--config-dir", str(folder / "conf"), "experiment=ours",
                f"hydra.run.dir={folder}/run", "model.n_bits=8", "model.decoder_base=192",
                "model.decoder_max=24", "schedule.reading_psnr=14", "schedule.hide_psnr=16",
                "schedule.ramp_images=640", "schedule.decay_images=640", "optimizer.batch=32",
                "loss.consistency=10", "optimizer.ema_images=200", "schedule.total_images=1920",
                "run.tensorboard=false",
            ]
        )
        == 0
    )  # fmt: skip
    copied = folder / "a.safetensors"
    named = ["--model", str(release), "--key", "c3"]
    assert main(["instantiate", *named, "--out", str(copied)]) == 0
    original, state = load_file(plain), load_file(copied)
    assert {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in original.items()}
    changed = {name for name in state if not torch.allclose(state[name], original[name], atol=1e-6)}
    assert changed == {"block2_before_weight", "block2_before_bias"}

    # What takes an instance of a release takes it, and makes the same pictures.
    own = scalefp.load_instance(plain)
    own.load_state_dict(state)
    sampled = scalefp.load_instance(copied).sample(48, seed=3)
    torch.testing.assert_close(own.sample(48, seed=3), sampled, atol=1e-6, rtol=0)
    images = folder / "images"
    sample = ["sample", "--instance", str(copied), "--out", str(images), "--num", "48"]
    assert main([*sample, "--seed", "3"]) == 0
    capsys.readouterr()
    assert main(["decode", "--model", str(release), str(images), "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    wanted = Key.from_hex("c3", 8).bits
    right = [(Key.from_hex(one["key"], 8).bits == wanted).mean() for one in read]
    assert np.mean(right) > 0.8
