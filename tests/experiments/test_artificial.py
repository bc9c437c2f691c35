"""experiments/artificial-fingerprints: other tools, robustness, many keys."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("matplotlib")

import baselines
import many_keys
import robustness
import stego
from experiment_scripts import SIZE, call, pictures, refused, write_pictures
from scalefp.artificial.config import MarkConfig
from scalefp.artificial.encoder import Encoder
from scalefp.artificial.marker import save_marker
from scalefp.data.images import to_pil
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.networks.decoder import Decoder


@pytest.fixture(scope="module")
def marker_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained marker: its marks are there and cannot be read."""
    torch.manual_seed(0)
    config = MarkConfig(
        resolution=SIZE, n_bits=128, encoder_width=4, decoder_base=64, decoder_max=8
    )
    path = tmp_path_factory.mktemp("marker") / "random.safetensors"
    save_marker(path, config, Encoder(config), Decoder(config), training={"images": 0})
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data"), 460)


# Whole scripts, on an untrained marker.


def test_keys_of_an_unreadable_marker_are_nobodys(
    marker_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--marker", marker_file, "--data", data, "--images", 30, "--per-key", 1]
    call(many_keys, monkeypatch, *words, "--perturbation", "jpeg", 50, "--out", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())["random"]
    assert [row["keys"] for row in results["rows"]] == [1, 10, 100]
    for row in results["rows"]:
        assert row["wrongly_named"] == 0
        assert row["detection"]["closed"]["accuracy"] == 0.5  # all clean images, no marked one
        assert row["attribution"]["closed"]["accuracy"] == 0.0
    assert "jpeg 50" in (tmp_path / "table.md").read_text()


def test_robustness_of_an_unreadable_marker(
    marker_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--marker", marker_file, "--data", data, "--keys", 4, "--images-per-key", 4]
    words += ["--perturbations", "jpeg", "crop", "--unrelated-images", 40, "--psnr", 38]
    words += ["--samples", data, "--key", "ab" * 16, "--most-samples", 32, "--out", tmp_path]
    words += ["--parts", tmp_path / "parts"]
    call(robustness, monkeypatch, *words)
    results = json.loads((tmp_path / "results.json").read_text())["random"]
    points = {(row["perturbation"], row["strength"]) for row in results["reading"]}
    wanted = {(t.perturbation, float(t.strength)) for t in robustness.TARGETS}
    assert {place for place in wanted if place[0] in ("clean", "jpeg", "crop")} <= points
    assert results["quality"]["psnr"]["mean"] == pytest.approx(38, abs=0.3)
    assert set(results["unrelated"]["attributed"].values()) == {0}
    assert [row["images"] for row in results["generated"][data.name]][:1] == [32]
    page = (tmp_path / "table.md").read_text()
    assert "marked images: noise of standard deviation 0.11 | 0.74 | >= 0.97 | not measured" in page
    assert "marked images: JPEG 50 | 0.76 | >= 0.97 | 0." in page and "**no**" in page


def test_samples_need_a_key(
    marker_file: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--marker", marker_file, "--data", data, "--samples", data, "--out", tmp_path]
    refused(robustness, monkeypatch, *words)
    assert capsys.readouterr().err == "robustness.py: samples are read for a key: give --key\n"
    assert list(tmp_path.iterdir()) == []


# Tools.


def test_missing_bits_are_guessed() -> None:
    bits = np.array([1, 0, 1, 1] * 2, np.uint8)
    found = [bits.astype(float), stego.nothing(8), stego.unpack(b"\xb0", 8)]
    figures = baselines.accuracy([*found, 1.0 - bits], bits)
    # All right, nothing, 1011 0000 against 1011 1011, all wrong.
    assert figures["accuracy"] == pytest.approx((1 + 0.5 + 5 / 8 + 0) / 4)
    assert figures["missing"] == 0.25
    short = stego.unpack(b"", 8)
    assert np.isnan(short).all()
    assert baselines.accuracy([bits.astype(float)], bits)["p_value"] == pytest.approx(2**-8)


def cover() -> Image.Image:
    (image,) = to_pil(torch.nn.functional.interpolate(pictures(1).float(), 64).to(torch.uint8))
    noise = np.random.default_rng(0).integers(-20, 20, (64, 64, 3))
    return Image.fromarray((np.asarray(image).astype(int) + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("name", ["steghide", "outguess"])
def test_programs_read_what_they_wrote_and_nothing_else(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: apt-get install {name}")
    tool = stego.TOOLS[name](64, 128)
    bits = np.unpackbits(np.frombuffer(Key.from_hex("c0ffee11" * 4).bytes, np.uint8))
    file = tool.embed(cover(), bits)
    assert file is not None
    assert (tool.read(file) == bits).mean() > 0.98  # outguess now and then miswrites a bit
    other = baselines.accuracy([tool.read(stego.as_file(cover(), lossy=True))], bits)
    assert other["accuracy"] < 0.75
    # Nothing fits into a picture of one colour.
    assert tool.embed(Image.new("RGB", (8, 8)), bits) is None


@pytest.mark.parametrize("method", ["dwtDct", "dwtDctSvd"])
def test_marks_in_the_frequencies(method: str) -> None:
    pytest.importorskip("imwatermark", reason="pip install invisible-watermark==0.2.0")
    tool = stego.TOOLS[method](64, 128)
    assert tool.n_bits == 64
    bits = np.random.default_rng(1).integers(0, 2, 64, dtype=np.uint8)
    file = tool.embed(cover(), bits)
    assert file is not None and (tool.read(file) == bits).mean() > 0.7


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="apt-get install steghide"):
        stego.TOOLS["steghide"](64, 128)


def test_baselines_take_our_marker_through_a_generator(
    marker_file: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--marker", marker_file, "--data", data, "--resolution", SIZE, "--tools"]
    words += ["--images", 66, "--training-images", 64, "--samples", 8, "--out", tmp_path]
    call(baselines, monkeypatch, *words, "--parts", tmp_path / "parts")
    (figures,) = json.loads((tmp_path / "results.json").read_text()).values()
    stages = figures["rows"][baselines.OURS]["stages"]
    assert list(stages) == list(baselines.STAGES)
    assert stages["file"] == stages["again"]  # PNG files
    assert all(stage["images"] == 8 for stage in stages.values())
    refused(baselines, monkeypatch, *words[:4], "--tools", "--out", tmp_path)
    assert "give --resolution 32" in capsys.readouterr().err
