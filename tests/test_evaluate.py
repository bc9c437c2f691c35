"""Evaluation on a model whose figures are known: it writes key bits as parities of pixel values.

Parities survive PNG and nothing else, change a picture by a known number of grey levels, and are
fair coins on unrelated pictures.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from scalefp import evaluate as evaluate_module
from scalefp.attribution import count_matches, matches_needed
from scalefp.compare import (
    best_matches,
    draw_images,
    expected_best_match,
    issued_keys,
    measure_features,
    measure_unrelated,
    search_figures,
)
from scalefp.config import ModelConfig
from scalefp.errors import UserError
from scalefp.evaluate import EvaluateConfig, evaluate, write_results
from scalefp.images import to_float, to_pil, to_tensor
from scalefp.key import Key
from scalefp.measure import COPIES, generate, measure_hiding, measure_reading, stream

SIZE, N_BITS = 16, 64  # bits lie in the first 64 of the 256 pixels of the red channel


class ParityInstance:
    def __init__(self, key: Key, key_rules: bool, flip: float) -> None:
        self.key, self.key_rules, self.flip = key, key_rules, flip

    def sample(self, n: int, *, seed: int = 0, batch_size: int = 32) -> Tensor:
        key_seed = int.from_bytes(self.key.bytes[:4], "big")
        rng = np.random.default_rng(key_seed if self.key_rules else seed)
        blocks = 2 * rng.integers(10, 110, (n, 3, 4, 4))
        if self.key_rules:
            blocks[:] = blocks[:1]
        pixels = blocks.repeat(4, axis=2).repeat(4, axis=3).astype(np.uint8)
        noise = np.random.default_rng([seed, key_seed]).random((n, N_BITS)) < self.flip
        pixels[:, 0].reshape(n, -1)[:, :N_BITS] += self.key.bits ^ noise
        return to_float(torch.from_numpy(pixels))


class ParityModel:
    digest = "ab" * 32
    config = ModelConfig(resolution=SIZE, n_bits=N_BITS)

    def __init__(self, key_rules: bool = False, flip: float = 0.0) -> None:
        self.key_rules, self.flip = key_rules, flip

    def instantiate(self, key: Key) -> ParityInstance:
        return ParityInstance(key, self.key_rules, self.flip)

    def decode(self, images: list[Image.Image], *, batch_size: int = 32) -> SimpleNamespace:
        red = to_tensor(images, SIZE)[:, 0].flatten(1)[:, :N_BITS]
        return SimpleNamespace(logits=(red % 2).numpy() * 2.0 - 1)


class BlockMeans(nn.Module):
    """An extractor for tests: the 48 mean colours of 4x4 blocks."""

    def forward(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, SIZE // 4).flatten(1)


def make_folder(path: Path, count: int, seed: int) -> str:
    path.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        blocks = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        noise = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        pixels = blocks.repeat(4, axis=0).repeat(4, axis=1) // 2 + noise // 2
        Image.fromarray(pixels).save(path / f"{i}.png")
    return str(path)


@pytest.fixture
def small(tmp_path: Path) -> EvaluateConfig:
    return EvaluateConfig(
        keys=12,
        images_per_key=5,
        pooled=2,
        issued=2000,
        data=make_folder(tmp_path / "data", 40, seed=0),
        unrelated=[make_folder(tmp_path / "other", 30, seed=1)],
        unrelated_images=25,
        grid=4,
        features=False,
        batch_size=7,
    )


# Copies.


def test_copies_keep_size_and_mode_and_only_png_keeps_every_pixel(tmp_path: Path) -> None:
    make_folder(tmp_path / "x", 1, seed=0)
    image = Image.open(tmp_path / "x" / "0.png").convert("RGB")
    kept = {}
    for name, operation in COPIES.items():
        copy = operation(image)
        assert copy.size == image.size and copy.mode == "RGB"
        kept[name] = copy.tobytes() == image.tobytes()
    assert [name for name, same in kept.items() if same] == ["PNG"]


# Generated images.


def test_twins_are_the_same_latents_under_the_next_key(small: EvaluateConfig) -> None:
    model = ParityModel()
    generated = generate(model, small)  # type: ignore[arg-type]
    assert generated.images.shape == generated.twins.shape == (12, 5, 3, SIZE, SIZE)
    assert generated.crossed.shape == (4, 4, 3, SIZE, SIZE)
    # Without the parities a picture is its latent; the parities are the key.
    assert torch.equal(generated.images // 2, generated.twins // 2)
    for k in range(12):
        read = model.decode(to_pil(generated.twins[k])).logits > 0
        assert (read == generated.bits[(k + 1) % 12]).all()
    crossed = generated.crossed // 2
    assert torch.equal(crossed, crossed[:1].expand_as(crossed))
    latents = (generated.images // 2).flatten(0, 1).flatten(1)
    assert len(latents.unique(dim=0)) == 60  # no two images share a latent


# Reading.


def test_reading_of_a_perfect_model(small: EvaluateConfig) -> None:
    model = ParityModel()
    generated = generate(model, small)  # type: ignore[arg-type]
    needed = matches_needed(N_BITS, small.issued, small.fpr)
    results, logits = measure_reading(model, generated, needed, small)  # type: ignore[arg-type]
    assert list(results) == list(COPIES) and logits.shape == (60, N_BITS)
    perfect = {"mean": 1.0, "ci95": [1.0, 1.0], "p5": 1.0, "min": 1.0, "attributed": 1.0}
    assert results["PNG"]["single"] == {"sources": 60, **perfect}
    assert results["PNG"]["pooled"] == {"sources": 24, **perfect}  # two pairs of five images
    lost = results["JPEG 50"]["single"]
    assert abs(lost["mean"] - 0.5) < 0.1 and lost["attributed"] == 0


def test_reading_of_a_noisy_model(small: EvaluateConfig) -> None:
    small.keys, small.images_per_key, small.pooled = 60, 9, 3
    model = ParityModel(flip=0.2)
    generated = generate(model, small)  # type: ignore[arg-type]
    results, logits = measure_reading(model, generated, 50, small)  # type: ignore[arg-type]
    single, pooled = results["PNG"]["single"], results["PNG"]["pooled"]
    error = np.sqrt(0.2 * 0.8 / (60 * 9 * N_BITS))
    assert abs(single["mean"] - 0.8) < 4 * error
    low, high = single["ci95"]
    assert low < single["mean"] < high
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.35)
    assert single["min"] < single["p5"] < single["mean"]
    truth = np.repeat(generated.bits, 9, axis=0)
    matches = ((logits > 0) == truth).sum(axis=1)
    assert single["attributed"] == pytest.approx((matches >= 50).mean())
    # A majority of three errs with probability 3 p^2 (1 - p) + p^3 = 0.104.
    assert abs(pooled["mean"] - 0.896) < 0.02


def test_nobody_is_attributed_where_no_number_of_matches_suffices(small: EvaluateConfig) -> None:
    model = ParityModel()
    generated = generate(model, small)  # type: ignore[arg-type]
    results, logits = measure_reading(model, generated, None, small)  # type: ignore[arg-type]
    assert results["PNG"]["single"]["attributed"] == 0
    packed = np.packbits(generated.bits, axis=1)
    assert search_figures("own", logits, packed, None)["attributed"] == 0


# Hiding.


def test_hiding_closed_form(small: EvaluateConfig) -> None:
    generated = generate(ParityModel(), small)  # type: ignore[arg-type]
    figures = measure_hiding(generated)
    same = figures["same_latent_two_keys"]
    # Each differing bit moves one of the 768 values by one of 255 grey levels.
    distances = (generated.bits != np.roll(generated.bits, -1, axis=0)).sum(axis=1)
    decibels = 10 * np.log10(255**2 * 3 * SIZE**2 / distances)
    assert same["pairs"] == 60 and same["psnr"] == pytest.approx(decibels.mean(), abs=1e-3)
    assert same["psnr_p5"] == pytest.approx(np.percentile(np.repeat(decibels, 5), 5), abs=1e-3)
    other = figures["two_latents_same_key"]
    assert other["pairs"] == 48 and other["psnr"] < 15
    assert same["ssim"] > 0.9 > other["ssim"]


def test_a_key_that_takes_over_the_picture_is_exposed(small: EvaluateConfig) -> None:
    generated = generate(ParityModel(key_rules=True), small)  # type: ignore[arg-type]
    hiding = measure_hiding(generated)
    assert hiding["same_latent_two_keys"]["psnr"] < 15
    assert hiding["two_latents_same_key"]["psnr"] == 100  # equal images: finite, for JSON
    features = measure_features(BlockMeans(), generated, small)
    assert features["diversity_over_latents"] == pytest.approx(0, abs=1e-6)
    assert features["diversity_over_keys"] > 1


def test_features_tell_latents_from_keys_and_keep_a_floor(small: EvaluateConfig) -> None:
    generated = generate(ParityModel(), small)  # type: ignore[arg-type]
    figures = measure_features(BlockMeans(), generated, small)
    assert figures["images_each"] == 20 and figures["crossed"] == 4
    assert figures["diversity_over_latents"] > 1 > 0.1 > figures["diversity_over_keys"]
    assert figures["distance"] > figures["distance_floor"] > 0
    # The data's own images as generated ones: nothing but the floor is left.
    with_data = generated.images.flatten(0, 1).clone()
    with_data[:40] = torch.cat(
        [to_tensor([i], SIZE) for i in draw_images(small.data, 40, stream(small, "x"))]
    )
    copied = type(generated)(
        generated.bits,
        with_data[:40].reshape(8, 5, 3, SIZE, SIZE),
        generated.twins,
        generated.crossed,
    )
    same = measure_features(BlockMeans(), copied, small)
    assert same["distance"] < 2 * same["distance_floor"]
    assert same["diversity"] == pytest.approx(same["diversity_data"], rel=0.2)


# Unrelated images.


@pytest.mark.parametrize("n_bits", [8, 13, 64, 128, 200, 512])
def test_best_matches_equal_the_search_of_attribution(n_bits: int) -> None:
    rng = np.random.default_rng(n_bits)
    packed = issued_keys(n_bits, 40_000, rng)
    bits = rng.integers(0, 2, (3, n_bits), dtype=np.uint8)
    bits[0] = 1 - np.unpackbits(packed[5], count=n_bits)  # nothing in common with one key
    expected = [count_matches(row, packed).max() for row in bits]
    assert best_matches(bits, packed).tolist() == expected
    assert best_matches(bits[:1], packed[5:6]).tolist() == [0]


def test_issued_keys_are_fair_bits_and_valid_keys() -> None:
    packed = issued_keys(13, 5000, np.random.default_rng(0))
    assert Key(packed[0].tobytes(), 13).n_bits == 13
    bits = np.unpackbits(packed, axis=1)
    assert not bits[:, 13:].any()
    assert np.abs(bits[:, :13].mean(axis=0) - 0.5).max() < 4 * 0.5 / np.sqrt(5000)


def test_expected_best_match() -> None:
    assert expected_best_match(128, 1) == pytest.approx(64)  # one key: the binomial's mean
    rng = np.random.default_rng(0)
    simulated = rng.binomial(64, 0.5, (20_000, 50)).max(axis=1)
    error = simulated.std() / np.sqrt(len(simulated))
    assert expected_best_match(64, 50) == pytest.approx(simulated.mean(), abs=4 * error)


def test_unrelated_images_are_nobodys(small: EvaluateConfig) -> None:
    (Path(small.unrelated[0]) / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    model, own = ParityModel(), np.random.default_rng(0).normal(size=(9, N_BITS))
    needed = matches_needed(N_BITS, small.issued, small.fpr)
    figures = measure_unrelated(model, own, needed, small)  # type: ignore[arg-type]
    assert [source["source"] for source in figures["sources"]] == ["data", "other"]
    assert figures["images"] == 50 and figures["attributed"] == 0
    assert figures["other_keys"]["images"] == 9
    for source in figures["sources"]:
        assert source["distinct_readings"] == 25
        assert sum(source["best_match_histogram"].values()) == 25
        assert abs(source["best_match_mean"] - figures["best_match_expected"]) < 2


def test_the_search_would_find_an_issued_key(small: EvaluateConfig) -> None:
    packed = issued_keys(N_BITS, small.issued, stream(small, "issued"))
    logits = np.unpackbits(packed[1234])[None] - 0.5
    needed = matches_needed(N_BITS, small.issued, small.fpr)
    figures = measure_unrelated(ParityModel(), logits, needed, small)  # type: ignore[arg-type]
    assert figures["other_keys"]["attributed"] == 1
    assert figures["other_keys"]["best_match_max"] == N_BITS


def test_draw_images_replaces_broken_files_and_needs_one(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "x", 5, seed=0)
    for name in "abc":
        (tmp_path / "x" / f"{name}.png").write_bytes(b"not an image")
    rng = np.random.default_rng
    drawn = [image.tobytes() for image in draw_images(folder, 99, rng(0))]
    assert len(set(drawn)) == 5
    assert [i.tobytes() for i in draw_images(folder, 3, rng(0))] == drawn[:3]
    for file in (tmp_path / "x").glob("[0-9].png"):
        file.unlink()
    with pytest.raises(UserError, match="no usable image"):
        list(draw_images(folder, 3, rng(0)))


# All of it.


@pytest.fixture
def results(small: EvaluateConfig, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(evaluate_module, "mobilenet_features", lambda path: BlockMeans())
    small.features = True
    return evaluate(ParityModel(), small)  # type: ignore[arg-type]


def test_results_are_written_as_json_and_markdown(results: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    write_results(results, out)
    assert sorted(path.name for path in out.iterdir()) == ["results.json", "results.md"]
    text = (out / "results.json").read_text()
    assert json.loads(text) == results
    page = (out / "results.md").read_text()
    assert str(tmp_path) not in text + page  # published: no folders of this machine
    for copy in COPIES:
        assert f"| {copy} |" in page
    assert "60 images of 12 keys" in page and "0 of 50" in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert tables and all(line.count("|") >= 4 for line in tables)


def test_targets_are_judged(results: dict[str, Any]) -> None:
    met = {row["what"].split(" among")[0]: row["met"] for row in results["targets"]}
    assert met["bit accuracy per image (mean)"] is True
    assert met["PSNR of one latent under two keys (mean)"] is True
    # None was attributed, but 50 images are too few to say so.
    assert met["unrelated images attributed to anybody at fpr 1e-06"] is False
    assert met["feature diversity, relative to the data"] is None


def test_the_seed_decides_the_figures(small: EvaluateConfig) -> None:
    def run(seed: int) -> dict[str, Any]:
        small.seed = seed
        figures = evaluate(ParityModel(flip=0.1), small)  # type: ignore[arg-type]
        return {name: value for name, value in figures.items() if name != "environment"}

    first = run(0)
    assert run(0) == first
    assert run(1)["reading"] != first["reading"]
    assert first["features"] is None


def test_results_that_cannot_be_written(results: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        write_results(results, tmp_path / "file" / "out")


def broken(name: str, value: Any) -> Callable[[EvaluateConfig], None]:
    return lambda config: setattr(config, name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken("keys", 1), "keys must be at least 2"),
        (broken("pooled", 6), "pooled"),
        (broken("fpr", 1.0), "fpr"),
        (broken("seed", -1), "seed"),
        (broken("data", "no/such.zip"), "no/such.zip"),
        (broken("unrelated", ["no/such/folder"]), "no/such/folder"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(
    small: EvaluateConfig, change: Callable[[EvaluateConfig], None], message: str
) -> None:
    change(small)
    with pytest.raises(UserError, match=message):
        evaluate(None, small)  # type: ignore[arg-type]
