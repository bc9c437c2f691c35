"""Inputs encoded from pictures: seeded crops, and a training that is fed by them."""

import json
import re
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import scalefp
from data_sets import png, write_folder, write_zip
from scalefp.cli import main
from scalefp.data.images import to_float
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.pretrained.inputs import Encoded
from scalefp.pretrained.release import PretrainedModel
from scalefp.pretrained.source import digest_of
from tests.pretrained.own_generator import AUTOENCODER, Coder, Painter
from trainings import log_of

SIDE = 16
CODER = "tests.pretrained.own_generator.Coder"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def places(width: int, height: int) -> bytes:
    """A picture whose pixels say where they are: red the column, green the row."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(np.stack([columns, rows, np.zeros_like(rows)], axis=-1)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def coder(tmp_path: Path) -> dict[str, Any]:
    """Options of an encoder that gives pixels as they are."""
    torch.save(Coder().state_dict(), tmp_path / "coder.pt")
    return {"_target_": CODER, "weights": str(tmp_path / "coder.pt"), "factor": 1}


def test_crops_lie_anywhere_in_any_picture_and_are_encoded_in_the_encoders_range(
    coder: dict[str, Any], tmp_path: Path
) -> None:
    data = write_folder(tmp_path / "data", {"wide.png": places(21, 18), "a/exact.png": png(1)})
    inputs = Encoded(str(data), SIDE, coder, range=[0, 1])
    crops = inputs.crops(400, seeded(0))
    exact = (crops[:, 2] != 0).flatten(1).any(1)  # of the picture of noise
    assert 150 < int(exact.sum()) < 250
    assert len(crops[exact].flatten(1).unique(dim=0)) == 1
    corners = {(int(c[0, 0, 0]), int(c[1, 0, 0])) for c in crops[~exact]}
    assert corners == {(column, row) for column in range(6) for row in range(3)}
    for crop in crops[~exact]:
        assert torch.equal(crop[0] - crop[0, 0, 0], torch.arange(SIDE).expand(SIDE, -1))
        assert torch.equal(crop[1] - crop[1, 0, 0], torch.arange(SIDE)[:, None].expand(-1, SIDE))
    torch.testing.assert_close(inputs.draw(400, seeded(0)), crops / 255)
    plain = Encoded(str(data), SIDE, coder)
    torch.testing.assert_close(plain.draw(3, seeded(0)), to_float(crops[:3]))


def test_draws_come_from_their_source_alone(coder: dict[str, Any], tmp_path: Path) -> None:
    files = {"1.png": png(1, 40, 24), "2.png": png(2, 20, 30), "3.png": png(3)}
    inputs = Encoded(str(write_folder(tmp_path / "data", files)), SIDE, coder)
    drawn = inputs.draw(8, seeded(5))
    source = seeded(5)
    assert torch.equal(torch.cat([inputs.draw(1, source) for _ in range(8)]), drawn)
    again = Encoded(str(write_zip(tmp_path / "data.zip", files)), SIDE, coder)
    assert torch.equal(again.draw(8, seeded(5)), drawn)
    assert not torch.equal(again.draw(8, seeded(6)), drawn)


def test_pictures_that_are_no_use_are_left_out_and_named(
    coder: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"small.png": png(1, 40, 15), "broken.png": png(2)[:60], "good.png": png(3)}
    inputs = Encoded(str(write_folder(tmp_path / "data", files)), SIDE, coder)
    crops = inputs.crops(30, seeded(0))
    assert len(crops.flatten(1).unique(dim=0)) == 1
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert any("small.png is 40x15, smaller than 16" in line for line in said)
    assert any("broken.png" in line for line in said)
    del files["good.png"]
    inputs = Encoded(str(write_folder(tmp_path / "none", files)), SIDE, coder)
    with pytest.raises(UserError, match="no picture of at least 16x16"):
        inputs.draw(1, seeded(0))


# A training.

YAML = (
    AUTOENCODER
    + """modulation:
  range: [0, 1]
model:
  resolution: 16
"""
)
SHORT = [
    "model.n_bits=8", "model.decoder_base=192", "model.decoder_max=24", "optimizer.batch=16",
    "run.log_steps=5", "run.tensorboard=false", "schedule.decay_images=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: weights of a decoder and its encoder, pictures, and an experiment."""
    folder = tmp_path_factory.mktemp("mine")
    torch.manual_seed(3)
    painter = Painter()
    with torch.no_grad():
        for parameter in painter.parameters():
            parameter.mul_(2)
    torch.save(painter.state_dict(), folder / "painter.pt")
    torch.save(Coder().state_dict(), folder / "coder.pt")
    write_folder(folder / "pictures", {f"{n}.png": png(n, 40, 24) for n in range(4)})
    experiments = folder / "conf" / "experiment"
    experiments.mkdir(parents=True)
    (experiments / "mine.yaml").write_text(YAML.format(folder=folder, side=16))
    return folder


def command(folder: Path, name: str, *more: str) -> list[str]:
    run = f"hydra.run.dir={folder}/runs/{name}"
    conf = ["--config-dir", str(folder / "conf")]
    return ["train", *conf, "experiment=mine", f"name={name}", run, *SHORT, *more]


@pytest.mark.filterwarnings("ignore::scalefp.release.readable.UnreadableRelease")
def test_a_decoder_is_trained_on_pictures_and_goes_on_after_a_stop(folder: Path) -> None:
    assert main(command(folder, "whole", "schedule.total_images=160")) == 0
    assert main(command(folder, "part", "schedule.total_images=80")) == 0
    assert main(command(folder, "part", "schedule.total_images=160")) == 0
    runs = folder / "runs"
    assert log_of(runs / "whole")[-1] == log_of(runs / "part")[-1]
    one, other = (load_file(runs / n / "release.safetensors") for n in ("whole", "part"))
    assert all(torch.equal(one[name], other[name]) for name in one)

    model = scalefp.load(runs / "whole" / "release.safetensors")
    assert isinstance(model, PretrainedModel)
    assert model.origin["inputs"]["digest"] == digest_of(folder / "coder.pt")
    instance = model.instantiate(Key.random(8))
    inputs = Encoded(
        str(folder / "pictures"), SIDE,
        {"_target_": CODER, "weights": str(folder / "coder.pt")}, range=[0, 1],
    )  # fmt: skip
    torch.testing.assert_close(
        instance.sample(3, seed=4), instance(inputs.draw(3, seeded(4))).clamp(-1, 1)
    )
    # A recipient's file decodes photographs again, and what comes of them is read.
    model.instantiate(Key.random(8)).save(folder / "a.safetensors")
    again = ["--instance", f"{folder}/a.safetensors", "--images", f"{folder}/pictures"]
    assert main(["sample", *again, "--out", f"{folder}/again"]) == 0
    release = str(runs / "whole" / "release.safetensors")
    with redirect_stdout(StringIO()) as shown:
        assert main(["decode", "--model", release, f"{folder}/again"]) == 0
    assert len(shown.getvalue().splitlines()) == 4

    measured = ["evaluate", f"checkpoint={release}", f"out={folder}/results", "measure=quick"]
    assert main([*measured, "measure.keys=2", "measure.images_per_key=4"]) == 0
    results = json.loads((folder / "results" / "results.json").read_text())
    assert "fed with pictures" in " ".join(results["left_out"])
    assert {row["estimator"] for row in results["lifting"]["rows"]} == {"mean"}

    kept = (folder / "coder.pt").read_bytes()
    try:
        torch.save({"gain": torch.zeros(3, 1, 1)}, folder / "coder.pt")
        with pytest.raises(UserError, match="the encoder that is meant are other ones"):
            scalefp.load(release).instantiate(Key.random(8)).sample(1)  # type: ignore[union-attr]
    finally:
        (folder / "coder.pt").write_bytes(kept)


def test_a_dry_run_reads_the_pictures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command(folder, "dry"), "--dry-run"]) == 0
    assert "parameters: parent" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inputs.crop": 32}, "inputs.crop=32 gives pictures of another size than model.reso"),
        ({"inputs.crop": "none"}, "inputs.crop must be a side in pixels"),
        ({"inputs.crop": 32, "model.resolution": 32}, "no picture of at least 32x32"),
        ({"inputs.images": "absent"}, "data absent does not exist"),
        ({"inputs.range": "[0,255]"}, r"inputs.range must be one of \[-1, 1\], \[0, 1\]"),
        ({"+inputs.method": "encode"}, "inputs.method: Coder has no encode"),
        ({"+inputs.encoder.factor": 2}, "pictures of 32x32 of what inputs.encoder makes of 16x16"),
        ({"+inputs.encoder.factor": 3}, "pictures of 20x20"),
        ({"+inputs.encoder.factor": 32}, "Coder does not encode pictures of 16x16"),
        ({"inputs.encoder._target_": "no.such.Coder"}, "inputs.encoder._target_=no.such.Coder"),
        ({"inputs.encoder.weights": "absent.pt"}, "absent.pt"),
        ({"~inputs.encoder.weights": None}, "inputs.encoder.weights must name"),
        ({"+inputs.digest": "00"}, "put the file with SHA-256 00 at"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_written(
    folder: Path, options: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = [name if value is None else f"{name}={value}" for name, value in options.items()]
    assert main(command(folder, "never", *changes)) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert re.search(words, " ".join(said.split())), said
    assert not (folder / "runs" / "never").exists()
