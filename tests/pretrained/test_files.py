"""Instances of adopted generators as files: in half precision, and for other runtimes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import scalefp
from scalefp.data.images import to_uint8
from scalefp.errors import UserError
from scalefp.pretrained.inputs import ENCODED
from scalefp.pretrained.instance import PretrainedInstance
from scalefp.pretrained.source import read_weights
from tests.pretrained import own_generator
from tests.pretrained.own_generator import Coder, Generator, Loop, Painter

OWN = "tests.pretrained.own_generator."


def of_latents(kind: type[nn.Module] = Generator) -> PretrainedInstance:
    torch.manual_seed(1)
    origin = {
        "generator": {"_target_": OWN + kind.__name__, "weights": "/owners/mine.pt"},
        "inputs": {"_target_": OWN + "Latents"},
        "modulation": {"method": "forward", "range": [0, 1]},
    }
    network = kind().eval().requires_grad_(False)
    return PretrainedInstance(network, origin, own_generator.SIDE)


def of_pictures(folder: Path) -> PretrainedInstance:
    torch.manual_seed(1)
    torch.save(Coder().state_dict(), folder / "coder.pt")
    coder = {"_target_": OWN + "Coder", "weights": str(folder / "coder.pt")}
    origin = {
        "generator": {"_target_": OWN + "Painter"},
        "inputs": {"_target_": ENCODED, "images": "absent", "crop": 16, "encoder": coder},
        "modulation": {"method": "forward", "range": [0, 1]},
    }
    return PretrainedInstance(Painter().eval().requires_grad_(False), origin, 16)


def test_a_file_in_half_precision_is_smaller_and_computed_with_in_the_originals_types(
    tmp_path: Path,
) -> None:
    instance = of_latents()
    for name, half in (("whole", False), ("half", True)):
        instance.save(tmp_path / name, half=half)
    sizes = {name: (tmp_path / name).stat().st_size for name in ("whole", "half")}
    assert sizes["half"] < 0.62 * sizes["whole"]
    state, own = load_file(tmp_path / "half"), instance.network.state_dict()
    assert state.keys() == own.keys()
    counts = [name for name, value in own.items() if not value.is_floating_point()]
    assert counts == ["body.3.num_batches_tracked"]
    for name, value in state.items():
        assert value.dtype == (torch.int64 if name in counts else torch.float16)
    network = Generator().eval()
    network.load_state_dict(state)  # as a recipient loads it, who knows nothing of scalefp
    found = scalefp.load_instance(tmp_path / "half")
    assert isinstance(found, PretrainedInstance)
    for name, value in found.network.state_dict().items():
        assert value.dtype == own[name].dtype
        torch.testing.assert_close(value, own[name], atol=1e-3, rtol=1e-3)
        assert torch.equal(value, network.state_dict()[name])
    torch.testing.assert_close(found.sample(3), instance.sample(3), atol=5e-3, rtol=0)


def run_file(path: Path, inputs: Tensor) -> Tensor:
    """The images of an exported network."""
    if path.suffix == ".pt2":
        made: Tensor = torch.export.load(path).module()(inputs)
        return made
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    return torch.from_numpy(session.run(None, {name: inputs.numpy()})[0])


def about_of(path: Path) -> Any:
    """What an exported file says of itself."""
    if path.suffix == ".pt2":
        extra = {"scalefp.json": ""}
        torch.export.load(path, extra_files=extra)
        return json.loads(extra["scalefp.json"])
    onnx = pytest.importorskip("onnx")
    return json.loads({one.key: one.value for one in onnx.load(path).metadata_props}["scalefp"])


@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_other_runtimes_make_the_images_of_latents(format: str, tmp_path: Path) -> None:
    instance, path = of_latents(), tmp_path / f"a.{format}"
    instance.export(path, format=format)
    for count in (1, 5):
        z = own_generator.Latents().draw(count, torch.Generator().manual_seed(count))
        torch.testing.assert_close(run_file(path, z), instance(z), atol=1e-5, rtol=0)
    about = about_of(path)
    assert about["input"]["shape"] == ["batch", own_generator.LATENT]
    assert about["output"]["shape"] == ["batch", 3, 16, 16]
    assert "/owners" not in json.dumps(about)


@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_other_runtimes_decode_latents_of_any_size(format: str, tmp_path: Path) -> None:
    """Without the pictures that it was trained on; as 8-bit images here."""
    instance, path = of_pictures(tmp_path), tmp_path / f"a.{format}"
    instance.export(path, format=format, uint8=True)
    for shape in ((1, 3, 1, 1), (3, 3, 4, 4), (2, 3, 2, 7)):
        latents = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        made, expected = run_file(path, latents), to_uint8(instance(latents))
        assert made.dtype == torch.uint8
        assert made.shape == expected.shape
        assert (made.int() - expected.int()).abs().max() <= 1
    about = about_of(path)
    assert about["input"]["shape"] == ["batch", 3, "height", "width"]
    assert about["output"]["shape"] == ["batch", 3, "4 height", "4 width"]
    assert str(tmp_path) not in json.dumps(about)


def test_a_network_that_cannot_be_followed_is_said_in_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="torch cannot write Loop as pt2") as said:
        of_latents(Loop).export(tmp_path / "a.pt2", format="pt2")
    assert "\n" not in str(said.value)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^there is no weights file .*nothing\.safetensors$"):
        read_weights(tmp_path / "nothing.safetensors", None)
