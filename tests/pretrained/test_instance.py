"""Recipients' decoders: photographs of any size, encoded and decoded again by one command."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scalefp
from data_sets import png, write_folder, write_zip
from scalefp.cli import main
from scalefp.data.images import to_float, to_uint8
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.loading import load_model
from scalefp.pretrained.encoder import continued
from scalefp.pretrained.inputs import ENCODED
from scalefp.pretrained.instance import PretrainedInstance
from scalefp.pretrained.source import digest_of
from scalefp.release.container import load_tensors
from tests.pretrained.own_generator import Coder, Generator, Painter

OWN = "tests.pretrained.own_generator."
SIDE = 16


def pixels_of(path: Path) -> torch.Tensor:
    """A picture as a tensor [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None].float() / 255


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipient's folder: his instance and the encoder, which is not in it."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    coder, painter = Coder(), Painter()
    with torch.no_grad():
        coder.gain.copy_(torch.tensor([0.5, 0.7, 0.9])[:, None, None])
        for parameter in painter.parameters():
            parameter.mul_(2)
    torch.save(coder.state_dict(), "coder.pt")
    inputs = {
        "_target_": ENCODED, "images": "/owners/pictures", "crop": SIDE, "range": [0, 1],
        "encoder": {"_target_": OWN + "Coder", "weights": "/owners/folder/coder.pt"},
        "digest": digest_of(tmp_path / "coder.pt"),
    }  # fmt: skip
    origin = {
        "generator": {"_target_": OWN + "Painter", "weights": "/owners/folder/painter.pt"},
        "inputs": inputs,
        "modulation": {"method": "forward", "range": [0, 1]},
    }
    PretrainedInstance(painter, origin, SIDE).save("a.safetensors")
    return tmp_path


def loaded(path: Path | str = "a.safetensors") -> PretrainedInstance:
    instance = scalefp.load_instance(path)
    assert isinstance(instance, PretrainedInstance)
    return instance


def expected(picture: torch.Tensor) -> torch.Tensor:
    """What comes of a picture [1, 3, H, W] in [0, 1], by the two networks and numpy's padding."""
    coder, painter = Coder(), Painter()
    coder.load_state_dict(torch.load("coder.pt"))
    painter.load_state_dict(loaded().network.state_dict())
    height, width = picture.shape[2:]
    more = [(0, 0), (0, 0), (0, -height % 4), (0, -width % 4)]
    whole = torch.from_numpy(np.pad(picture.numpy(), more, mode="reflect"))
    with torch.no_grad():
        return painter(coder(whole))[:, :, :height, :width]


FILES = {
    "wide.png": png(1, 37, 18), "deep/er/tall.png": png(2, 16, 44), "line.png": png(3, 1, 5),
    "dot.png": png(4, 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_photographs_of_any_size_are_decoded_again_under_their_names(
    here: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(here / "source", FILES)
    write_folder(here / "originals", FILES)
    arguments = ["sample", "--instance", "a.safetensors", "--images", str(source), "--out", "made"]
    assert main([*arguments, "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written == [f"made/{name}" for name in sorted(FILES)]
    assert sorted(p for p in Path("made").rglob("*") if p.is_file()) == sorted(map(Path, written))
    for name in FILES:
        found = to_uint8(expected(pixels_of(here / "originals" / name)) * 2 - 1).float()
        assert (pixels_of(here / "made" / name) * 255 - found).abs().max() <= 1
    assert main(arguments) == 2  # nothing is overwritten
    assert main([*arguments, "--force"]) == 0


def test_what_cannot_be_decoded_is_left_out_and_named(
    here: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    files = {"good.jpg": png(1), "broken.png": png(2)[:60], "notes.txt": b"text"}
    write_folder(here / "source", files | {"huge.png": png(3, 1250, 1000)})
    arguments = ["sample", "--instance", "a.safetensors", "--images", "source", "--out", "made"]
    assert main([*arguments, "--max-megapixels", "1"]) == 0
    assert capsys.readouterr().out == "1 image in made\n"
    assert [path.name for path in Path("made").iterdir()] == ["good.png"]
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "huge.png is 1250x1000 pixels, over the limit of 1 megapixels" in said
    assert "broken.png" in said and "notes.txt" in said
    (here / "source" / "good.jpg").unlink()
    assert main([*arguments, "--max-megapixels", "1", "--force"]) == 2
    assert "no usable image" in capsys.readouterr().err


def test_a_recipients_file_says_how_it_is_fed_and_nothing_of_its_owners_folders(here: Path) -> None:
    about = load_tensors("a.safetensors", "pretrained instance")[1]
    assert "/owners" not in json.dumps(about)
    assert about["inputs"] == {
        "_target_": ENCODED, "range": [0, 1], "digest": digest_of(here / "coder.pt"),
        "encoder": {"_target_": OWN + "Coder", "weights": "coder.pt"},
    }  # fmt: skip


def test_the_encoder_may_lie_beside_the_instance(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    picture = torch.rand(1, 3, 21, 9)
    made = loaded(here / "a.safetensors").reconstruct(picture * 2 - 1)
    monkeypatch.chdir(here)
    torch.testing.assert_close(made, (expected(picture) * 2 - 1).clamp(-1, 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num", "3", "--images", "source"], "--num and --seed draw latents"),
        (["--seed", "3", "--images", "source"], "--num and --seed draw latents"),
        ([], "fed with pictures: `scalefp sample --images DIR`"),
        (["--images", "absent"], "data absent does not exist"),
        (["--images", "empty"], "empty holds no usable image (it is empty)"),
        (["--images", "source/a.png"], "source/a.png is neither a folder nor a zip"),
        (["--images", "source", "--out", "source/made"], "lies inside --images"),
        (["--images", "clash"], "a.jpg and a.png would both become a.png"),
        (["--images", "source", "--instance", "drawn.safetensors"], "leave --images out"),
        (["--images", "source", "--instance", "other.safetensors"], "are not there: put the file"),
        (["--instance", "unknown.safetensors"], "no_such_package.G cannot be imported"),
        (
            ["--images", "source", "--instance", "flat.safetensors"],
            "a.png: a picture of 32x32 comes back as 8x8",
        ),
    ],
)
def test_mistakes_are_one_sentence_and_nothing_is_written(
    here: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(here / "source", {"a.png": png(1, 24, 24)})
    write_folder(here / "clash", {"a.png": png(1), "a.jpg": png(2)})
    (here / "empty").mkdir(exist_ok=True)
    origin = loaded().origin
    drawn = origin | {
        "generator": {"_target_": OWN + "Generator"}, "inputs": {"_target_": OWN + "Latents"},
    }  # fmt: skip
    PretrainedInstance(Generator(), drawn, SIDE).save("drawn.safetensors")
    inputs = origin["inputs"]
    encoder = inputs["encoder"] | {"weights": "other.pt"}
    other = origin | {"inputs": inputs | {"encoder": encoder}}
    PretrainedInstance(Painter(), other, SIDE).save("other.safetensors")
    encoder = inputs["encoder"] | {"factor": 16}
    flat = origin | {"inputs": inputs | {"encoder": encoder}}
    PretrainedInstance(Painter(), flat, SIDE).save("flat.safetensors")
    unknown = origin | {"generator": {"_target_": "no_such_package.G"}}
    PretrainedInstance(Painter(), unknown, SIDE).save("unknown.safetensors")
    arguments = ["sample", "--instance", "a.safetensors", "--out", "made", *options]
    code = main(arguments)
    said = capsys.readouterr().err
    assert code == 2, said
    assert words in " ".join(said.split()), said
    assert not list(here.glob("made/**/*"))


def test_drawn_latents_take_no_pictures_in_python(here: Path) -> None:
    instance = loaded()
    assert instance.takes_pictures
    assert instance.factor == 4
    with pytest.raises(UserError, match="fed with pictures"):
        instance.sample(2)


def test_an_instance_of_this_project_takes_no_pictures(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_model("emoji").instantiate(Key.random()).save("emoji.safetensors")
    write_folder(here / "source", {"a.png": png(1)})
    arguments = ["--instance", "emoji.safetensors", "--images", "source", "--out", "o"]
    assert main(["sample", *arguments]) == 2
    assert "draws its latents and takes no pictures" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(5, 7), (4, 8), (1, 2), (3, 1)])
def test_pictures_go_on_as_their_reflection(size: tuple[int, int]) -> None:
    picture = torch.rand(2, 3, *size)
    whole = continued(picture, 4)
    more = [(0, 0), (0, 0), *((0, -side % 4) for side in size)]
    np.testing.assert_array_equal(whole, np.pad(picture.numpy(), more, mode="reflect"))


def test_decoding_again_keeps_the_range(here: Path) -> None:
    picture = to_float(torch.randint(0, 256, (1, 3, 8, 12), dtype=torch.uint8))
    assert loaded().reconstruct(picture).abs().max() <= 1
