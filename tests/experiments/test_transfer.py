"""experiments/artificial-fingerprints: the generators learn and resume, a job is done once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import transfer
import transfer_figures
import transfer_report
from generators.dcgan import Dcgan
from generators.ours import Ours, OursWithMaps
from generators.ours_dcgan import OursAgainstDcgan
from scalefp.artificial.config import MarkConfig
from scalefp.artificial.encoder import Encoder
from scalefp.artificial.marker import Marker, save_marker
from scalefp.attribution.reading import Reading
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_float
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.networks.decoder import Decoder

BATCH = 16
LEARNERS = {
    "ours": (Ours, 40), "ours_dcgan": (OursAgainstDcgan, 120), "dcgan": (Dcgan, 80),
    "ddpm": (None, 40),
}  # steps  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """130 pictures of 32x32: one picture of four coloured corners, a little noisy."""
    folder = tmp_path_factory.mktemp("toy")
    draw = np.random.default_rng(0)
    corners = draw.integers(0, 256, (2, 2, 3)).repeat(16, axis=0).repeat(16, axis=1)
    for i in range(130):
        noisy = (corners + draw.normal(0, 8, corners.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{i:03d}.png")
    return ImageSet(folder, 32, progress=False)


@pytest.fixture(params=LEARNERS)
def make(request: pytest.FixtureRequest, data: ImageSet, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a learner with small batches, and says how many steps it needs to learn the toy."""
    kind, steps = LEARNERS[request.param]
    if kind is None:
        pytest.importorskip("diffusers", reason="diffusers is not installed")
        from generators.ddpm import Ddpm as kind  # noqa: N813
    monkeypatch.setattr(kind, "batch", BATCH)
    return lambda total=steps: (kind(data, total * kind.batch, 0), total)


def steps(learner: Any, first: int, last: int) -> None:
    for number in range(first, last):
        terms = learner.step(number * learner.batch)
        assert all(np.isfinite(value) for value in terms.values())


def test_a_generator_learns_what_it_is_shown(make: Any, data: ImageSet) -> None:
    learner, total = make()
    mean = to_float(data.batch(range(130))).mean(dim=0)

    def error() -> float:
        samples = learner.sample(16, seed=1)
        assert samples.shape == (16, 3, 32, 32)
        assert samples.dtype == torch.float32
        return float((samples.mean(dim=0) - mean).square().mean())

    before = error()
    steps(learner, 0, total)
    assert error() < 0.7 * before


def test_maps_come_into_use_where_no_key_has_a_learned_embedding(data: ImageSet) -> None:
    for kind, used in ((Ours, False), (OursWithMaps, True)):
        learner = kind(data, 96, seed=0)
        steps(learner, 0, 3)
        embedding = learner.average.embedding(torch.zeros(1, 128), torch.zeros(()))
        assert bool((embedding != 0).any()) == used


def test_a_stopped_training_goes_on_as_if_it_had_not_been(make: Any) -> None:
    straight, _ = make(4)
    steps(straight, 0, 4)
    stopped, _ = make(4)
    steps(stopped, 0, 2)
    resumed, _ = make(4)
    resumed.load_state_dict(stopped.state_dict())
    steps(resumed, 2, 4)
    torch.testing.assert_close(
        resumed.sample(4, seed=0), straight.sample(4, seed=0), atol=0, rtol=0
    )


# One job.


@pytest.fixture
def config(tmp_path: Path, data: ImageSet, request: pytest.FixtureRequest) -> Any:
    """A job of seconds: a random marker of 16 bits, two steps of training."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, pixels in zip(data.names, data.pixels, strict=True):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / name)
    torch.manual_seed(0)
    sizes = MarkConfig(
        resolution=32, n_bits=16, encoder_width=8, decoder_resolution=32, decoder_base=64,
        decoder_max=8,
    )  # fmt: skip
    path = tmp_path / "marker.safetensors"
    save_marker(path, sizes, Encoder(sizes), Decoder(sizes), training={})
    return transfer.TransferConfig(
        data="toy",
        generator="dcgan",
        sources={"toy": str(folder)},
        markers={"toy": str(path)},
        images={"dcgan": 128},
        samples=64,
        features="none",
        folder=str(tmp_path),
    )


def test_a_job_is_done_once(config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = tmp_path / "toy-dcgan-marked=True-seed=0"
    result = transfer.run(config, run_dir)
    assert {path.name for path in run_dir.iterdir()} == {
        "generator.safetensors", "result.json", "samples.png", "samples.zip",
    }  # fmt: skip
    assert len(ImageSet(run_dir / "samples.zip", 32, progress=False)) == 64
    assert result["marked_data"]["psnr"] == pytest.approx(38, abs=1.5)
    assert str(tmp_path) not in json.dumps(result)  # results are published

    def again(*arguments: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(transfer, "make_learner", again)
    assert transfer.run(config, run_dir) == result
    config.images["dcgan"] = 192
    with pytest.raises(UserError, match="images=128, not 192"):
        transfer.run(config, run_dir)


def test_a_job_that_was_stopped_ends_like_one_that_was_not(
    config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = transfer.run(config, tmp_path / "whole")
    monkeypatch.setattr(transfer, "CHECKPOINT_MINUTES", 0)
    monkeypatch.setattr(Dcgan, "sample", lambda *_, **__: 1 / 0)
    original = Dcgan.step

    def interrupted(learner: Dcgan, seen: int) -> dict[str, float]:
        if seen == 64:
            raise KeyboardInterrupt
        return original(learner, seen)

    monkeypatch.setattr(Dcgan, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        transfer.run(config, tmp_path / "stopped")
    monkeypatch.undo()
    taken = []
    monkeypatch.setattr(Dcgan, "step", lambda *a: taken.append(a[1]) or original(*a))
    stopped = transfer.run(config, tmp_path / "stopped")
    assert taken == [64, 96]  # batches of 32
    for part in ("generated", "marked_data", "unmarked_data"):
        assert stopped[part] == whole[part]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"generator": "gan"}, "generator must be one of ours, ours_maps, ours_dcgan, dcgan"),
        ({"data": "cifar"}, r"give sources.cifar=PATH"),
        ({"samples": 63}, "samples must be at least 64"),
        ({"samples": 66}, "lower samples="),
    ],
)
def test_mistakes_are_named(config: Any, tmp_path: Path, change: Any, words: str) -> None:
    for name, value in change.items():
        setattr(config, name, value)
    with pytest.raises(UserError, match=words):
        transfer.run(config, tmp_path / "job")


# Figures.


class Scripted(Marker):
    """Reads given logits, whatever the images."""

    def __init__(self, logits: np.ndarray) -> None:
        self.logits = logits

    def decode(self, images: Any, **options: Any) -> Reading:
        return Reading(self.logits)


def test_readings_of_one_source_add_up() -> None:
    draw = np.random.default_rng(0)
    key = Key.from_bits(draw.integers(0, 2, 128, dtype=np.uint8))
    signs = 2.0 * key.bits - 1
    images = torch.zeros(256, 3, 32, 32, dtype=torch.uint8)

    # Normal logits of mean 0.3 and deviation 1: Phi(0.3) = 0.618, of 64 images Phi(2.4) = 0.992.
    weak = Scripted(0.3 * signs + draw.normal(size=(256, 128)))
    figures = transfer_figures.reading_figures(weak, images, key)
    assert figures["accuracy"] == pytest.approx(0.618, abs=0.01)
    pools = figures["pools"]
    assert pools["1"]["accuracy"] == figures["accuracy"]
    assert pools["64"]["accuracy"] == pytest.approx(0.992, abs=0.01)
    assert pools["64"]["sources"] == 4
    assert pools["64"]["log10_p_binomial"] < -30
    assert pools["64"]["found"] == 1
    assert pools["1"]["found"] < 0.1

    # Nothing of the key: half of the bits, and p-values of no weight.
    figures = transfer_figures.reading_figures(Scripted(draw.normal(size=(256, 128))), images, key)
    assert figures["accuracy"] == pytest.approx(0.5, abs=0.01)
    assert all(pool["found"] == 0 for pool in figures["pools"].values())
    assert all(pool["log10_p_soft"] > -3 for pool in figures["pools"].values())


def test_the_report_shows_every_job_but_no_private_picture(config: Any, tmp_path: Path) -> None:
    for marked in (True, False):
        config.marked = marked
        transfer.run(config, tmp_path / f"toy-dcgan-marked={marked}-seed=0")
    results = transfer_report.collect(tmp_path)
    assert [result["settings"]["marked"] for result in results] == [True, False]
    for result, distance in zip(results, (105.0, 100.0), strict=True):
        result["generated"]["distance"] = distance
    assert transfer_report.cost(*results) == pytest.approx(0.05)
    text = transfer_report.markdown({"jobs": results})
    assert text.count("dcgan, 128 images, seed 0") == 2
    assert "+5.0%" in text
    (figure,) = transfer_report.plots({"jobs": results}).values()
    assert figure.axes[0].get_title() == "toy"
    assert transfer_report.sheet(results, tmp_path, private=["toy"]) is None
    sheet = transfer_report.sheet(results, tmp_path, private=[])
    assert sheet is not None
    assert sheet.height > 2 * 4 * 34
