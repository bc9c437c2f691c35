"""experiments/artificial-fingerprints: generators of several keys, and changes of their weights."""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

import generator_tampering
import many_keys
import transfer
from experiment_scripts import SIZE, call, write_pictures
from generators.dcgan import Dcgan, Generator
from generators.kept import load_dcgan
from jobs import find_jobs
from scalefp.artificial.config import MarkConfig
from scalefp.artificial.encoder import Encoder
from scalefp.artificial.marker import Marker, save_marker
from scalefp.attribution.reading import Reading
from scalefp.data.dataset import ImageSet
from scalefp.errors import UserError
from scalefp.evaluation.tamper import tamper
from scalefp.loading import load_marker
from scalefp.networks.decoder import Decoder

N_BITS = 128
KINDS, WORLDS = ("detection", "attribution"), ("closed", "open")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data"), 460)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Path, Path]:
    """A folder of three marked jobs and a clean one, each of two steps, and their marker."""
    folder = tmp_path_factory.mktemp("jobs")
    torch.manual_seed(0)
    sizes = MarkConfig(
        resolution=SIZE, n_bits=N_BITS, encoder_width=4, decoder_base=64, decoder_max=8
    )
    path = folder / "marker.safetensors"
    save_marker(path, sizes, Encoder(sizes), Decoder(sizes), training={"images": 0})
    for seed, marked in ((0, True), (2, True), (10, True), (0, False)):
        config = transfer.TransferConfig(
            data="toy", generator="dcgan", marked=marked, seed=seed, sources={"toy": str(data)},
            markers={"toy": str(path)}, images={"dcgan": 64}, samples=64, features="none",
            folder=str(folder),
        )  # fmt: skip
        transfer.run(config, folder / f"toy-dcgan-marked={marked}-seed={seed}")
    return folder, path


def test_a_job_keeps_the_generator_that_made_its_samples(jobs: tuple[Path, Path]) -> None:
    folder, marker = jobs
    found = find_jobs(folder, load_marker(marker), generator="dcgan", marked=True)
    assert [job.settings["seed"] for job in found] == [0, 2, 10]  # not as strings are ordered
    assert len({str(job.key) for job in found}) == 3
    network, settings = load_dcgan(found[1].folder)
    assert settings["seed"] == 2 and settings["marker"] == load_marker(marker).digest
    again = transfer.to_uint8(network.sample(64, seed=2)).numpy()
    assert np.array_equal(again, ImageSet(found[1].samples, SIZE, progress=False).pixels)


def test_a_job_without_its_generator_is_named(jobs: tuple[Path, Path], tmp_path: Path) -> None:
    folder, marker = jobs
    with pytest.raises(UserError, match=r"holds no generator.safetensors: remove its result.json"):
        load_dcgan(tmp_path)
    with pytest.raises(UserError, match="no finished job of a ddpm on clean data"):
        find_jobs(folder, load_marker(marker), generator="ddpm", marked=False)


# Changes of weights.


@pytest.fixture
def network() -> Generator:
    torch.manual_seed(0)
    return Generator(SIZE).requires_grad_(False).eval()


def test_gains_of_normalization_are_not_pruned(network: Generator) -> None:
    pruned = tamper([network], "prune", 0.5, torch.Generator().manual_seed(0))
    before = dict(network.named_parameters())
    for name, tensor in pruned.named_parameters():
        if tensor.ndim == 4:
            assert float((tensor == 0).float().mean()) == pytest.approx(0.5, abs=1e-3)
        else:
            assert torch.equal(tensor, before[name])
    assert all(torch.equal(a, b) for a, b in zip(pruned.buffers(), network.buffers(), strict=True))


def test_renewed_statistics_follow_the_weights(
    network: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator_tampering, "STATISTICS_IMAGES", 64)
    scaled = copy.deepcopy(network)
    scaled[0].weight.mul_(7)  # batch normalization behind it takes this back
    want = generator_tampering.renew_statistics(copy.deepcopy(network), seed=0)
    have = generator_tampering.renew_statistics(scaled, seed=0)
    torch.testing.assert_close(have.sample(8, seed=1), want.sample(8, seed=1), atol=1e-3, rtol=0)
    # In training, images are normalised by their own batch: with these images, to the same.
    z = torch.randn(64, 64, 1, 1, generator=torch.Generator().manual_seed(0))
    evaluated = want(z)
    torch.testing.assert_close(evaluated, want.train()(z), atol=1e-2, rtol=0)


def test_training_on_starts_with_the_discriminator_alone(
    network: Generator, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator_tampering, "WARM_UP_IMAGES", 64)
    calls: list[tuple[str, int]] = []
    for name in ("step_discriminator", "step"):
        original = getattr(Dcgan, name)

        def noted(learner: Dcgan, seen: int, name: str = name, original: Any = original) -> Any:
            calls.append((name, seen))
            return original(learner, seen)

        monkeypatch.setattr(Dcgan, name, noted)
    images = ImageSet(data, SIZE, progress=False)
    stages = dict(generator_tampering.train_on(network, images, [0, 32, 64], seed=1))
    halves = [("step_discriminator", 0), ("step_discriminator", 32)]
    whole = [(name, seen) for seen in (64, 96) for name in ("step", "step_discriminator")]
    assert calls == [*halves, *whole]
    weights = [dict(stages[n].named_parameters())["0.weight"] for n in (0, 32, 64)]
    assert torch.equal(weights[0], network[0].weight)
    assert not torch.equal(weights[1], weights[0]) and not torch.equal(weights[2], weights[1])


def test_tampering_of_all_generators_of_a_marker(
    jobs: tuple[Path, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator_tampering, "WARM_UP_IMAGES", 32)
    monkeypatch.setattr(generator_tampering, "STATISTICS_IMAGES", 64)
    words = ["--jobs", jobs[0], "--marker", jobs[1], "--data", data, "--name", "toy"]
    words += ["--images", 16, "--features", "none", "--tamperings", "fp16", "step"]
    words += ["--finetune-images", 32, "--parts", tmp_path / "parts", "--out", tmp_path / "out"]
    call(generator_tampering, monkeypatch, *words)
    figures = json.loads((tmp_path / "out" / "results.json").read_text())["toy"]
    assert figures["generators"] == 3 and figures["untouched"]["images"] == 48
    rows = {(row["tampering"], row["strength"]): row for row in figures["rows"]}
    assert rows["fp16", 1]["psnr"] == pytest.approx(rows["statistics", 1]["psnr"], abs=0.1)
    assert rows["step", 1.5]["psnr"] != pytest.approx(rows["statistics", 1]["psnr"], abs=0.1)
    assert rows["fine-tuning", 0]["psnr"] == 100 > rows["fine-tuning", 32]["psnr"]
    assert rows["fine-tuning", 0]["keys"] == 2 and rows["step", 0.5]["keys"] == 3
    page = (tmp_path / "out" / "table.md").read_text()
    assert "3 generators of 64 images, 128 bits" in page and "| step | 0.5 |" in page
    assert (tmp_path / "out" / "toy.png").is_file()

    def refuse(*args: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(generator_tampering.Tampered, "figures", refuse)
    call(generator_tampering, monkeypatch, *words)


# Many keys.


def test_groups_are_of_one_generator_and_take_turns(jobs: tuple[Path, Path]) -> None:
    marker = load_marker(jobs[1])
    logits = np.arange(2 * 5)[:, None].repeat(N_BITS, axis=1).reshape(2, 5, N_BITS).astype(float)
    reading = many_keys.added(logits, 2, marker)
    # Generator 0 has images 0..4, generator 1 has 5..9; the fifth of each is left out.
    assert reading.logits[:, 0].tolist() == [0 + 1, 5 + 6, 2 + 3, 7 + 8]
    assert reading.model_digest == marker.digest


def test_generators_are_led_back_to_their_keys_and_others_to_nobody(
    jobs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path = jobs
    signs: dict[bytes, Any] = {}  # of every sample: what is read from it
    for marked in (True, False):
        for job in find_jobs(folder, load_marker(path), generator="dcgan", marked=marked):
            bits = job.key.bits if marked else np.random.default_rng(9).integers(0, 2, N_BITS)
            pixels = ImageSet(job.samples, SIZE, progress=False).pixels
            signs |= {image.tobytes(): 2.0 * bits - 1 for image in pixels}

    def decode(marker: Marker, images: torch.Tensor, **options: Any) -> Reading:
        return Reading(np.stack([signs[x.numpy().tobytes()] for x in images]), marker.digest)

    monkeypatch.setattr(Marker, "decode", decode)
    options = argparse.Namespace(generators=folder, strangers=1, images=60, seed=0, search=False)
    rows = many_keys.measure_generators(load_marker(path), options)
    assert rows is not None
    described = [
        tuple(row[name] for name in ("keys", "generators", "strangers", "together")) for row in rows
    ]
    assert described == [
        (1, 1, 2, 1), (1, 1, 2, 16), (10, 2, 1, 1), (10, 2, 1, 16), (100, 2, 1, 1), (100, 2, 1, 16),
    ]  # fmt: skip
    for row in rows:
        assert row["bit_accuracy"] == 1 and row["wrongly_named"] == 0
        accuracies = [row[kind][w]["accuracy"] for kind in row if kind in KINDS for w in WORLDS]
        assert accuracies == [1.0] * 4
    assert rows[0]["attribution"]["closed"]["images"] == 60
    assert rows[3]["attribution"]["closed"]["images"] == 2 * (60 // 16)
    assert many_keys.generator_cells(rows[3])[:5] == ["10", "2 / 1", "16", "6", "1.0000"]
    options.strangers = 3
    with pytest.raises(UserError, match="3 generators: lower --strangers"):
        many_keys.measure_generators(load_marker(path), options)
