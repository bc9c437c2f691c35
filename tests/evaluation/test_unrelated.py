"""False attribution: the search finds what is there, and unrelated pictures are nobody's."""

import math
from pathlib import Path

import numpy as np
import pytest

from parity import N_BITS, ParityModel, make_folder, small_config
from scalefp.attribution.evidence import count_matches, log_p_soft, soft_weights
from scalefp.errors import UserError
from scalefp.evaluation.samples import EvaluateConfig, Samples, stream
from scalefp.evaluation.unrelated import (
    best_keys,
    draw_images,
    expected_best_match,
    issued_keys,
    load_twin,
    measure_unrelated,
    search_figures,
    sources,
)
from scalefp.key import Key
from scalefp.release.model import Model


@pytest.fixture
def small(tmp_path) -> EvaluateConfig:
    return small_config(tmp_path)


# The search.


@pytest.mark.parametrize("n_bits", [8, 13, 64, 128, 200, 512])
def test_best_keys_are_those_of_a_whole_search(n_bits: int) -> None:
    rng = np.random.default_rng(n_bits)
    packed = issued_keys(n_bits, 5000, rng)
    logits = rng.normal(size=(300, n_bits))
    logits[0] = 0.5 - np.unpackbits(packed[5], count=n_bits)  # nothing in common with one key
    ones = np.ones(logits.shape, np.int64)
    best = best_keys(logits, ones, packed)
    for row in (0, 1, 299):
        matches = count_matches((logits[row] > 0).astype(np.uint8), packed)
        assert matches[best[row]] == matches.max() and best[row] == matches.argmax()
    weights = soft_weights(logits)
    best = best_keys(logits, weights, packed)
    bits = np.unpackbits(packed, axis=1, count=n_bits)
    for row in (0, 2, 299):
        scores = (weights[row] * (bits == (logits[row] > 0))).sum(axis=1)
        assert best[row] == scores.argmax()


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


def test_the_search_would_find_an_issued_key() -> None:
    rng = np.random.default_rng(0)
    packed = issued_keys(N_BITS, 2000, rng)
    guilty = np.unpackbits(packed[1234])[None] - 0.5
    figures = search_figures("x", guilty, packed, 1e-6)
    assert figures["attributed"] == {"hard": 1, "soft": 1}
    assert figures["best_match_max"] == N_BITS
    assert figures["least_p"]["hard"] == pytest.approx(2000 * 2.0**-64)
    innocent = rng.normal(size=(50, N_BITS))
    figures = search_figures("x", innocent, packed, 1e-6)
    assert figures["attributed"] == {"hard": 0, "soft": 0}
    bits = np.unpackbits(packed, axis=1)
    least = min(log_p_soft(row[None], bits).min() for row in innocent)
    assert math.log(figures["least_p"]["soft"]) == pytest.approx(min(0, least + math.log(2000)))


# Where the images come from.


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


def test_a_twin_is_an_instance_or_a_release(
    model: Model, release: Path, tmp_path: Path, small: EvaluateConfig
) -> None:
    instance = model.instantiate(Key.random())
    instance.save(tmp_path / "twin.safetensors")
    loaded = load_twin(str(tmp_path / "twin.safetensors"), small)
    assert np.array_equal(loaded.sample(2), instance.sample(2))
    small.twin = str(release)
    assert np.array_equal(
        load_twin(small.twin, small).sample(2), load_twin(small.twin, small).sample(2)
    )
    names = list(sources(small))
    assert names == ["other", "twin without keys", "data", "data, mirrored and cropped"]
    assert len(list(sources(small)["twin without keys"](3))) == 3
    with pytest.raises(UserError, match="no/such"):
        load_twin("no/such", small)


# The measurement.


def test_unrelated_images_are_nobodys(small: EvaluateConfig) -> None:
    (Path(small.unrelated[0]) / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    model = ParityModel(searches=True)
    figures = measure_unrelated(model, Samples(model, small), small)  # type: ignore[arg-type]
    by_source = {source["source"]: source["images"] for source in figures["sources"]}
    # Half of 60 from the source given, if it has so many, then the data, then its copies.
    assert by_source == {"other": 30, "data": 30}
    assert figures["images"] == 60 and figures["attributed"] == {"hard": 0, "soft": 0}
    assert [source["images"] for source in figures["thorough"]] == [7, 7]
    assert figures["other_keys"]["images"] == 15
    assert figures["other_keys"]["attributed"] == {"hard": 0, "soft": 0}
    for source in figures["sources"]:
        assert source["distinct_readings"] == source["images"]  # parities of noise
        assert abs(source["best_match_mean"] - figures["best_match_expected"]) < 2


def test_the_datas_copies_fill_the_number(small: EvaluateConfig) -> None:
    small.unrelated, small.unrelated_images = [], 70
    model = ParityModel()
    figures = measure_unrelated(model, Samples(model, small), small)  # type: ignore[arg-type]
    sizes = [(source["source"], source["images"]) for source in figures["sources"]]
    assert sizes == [("data", 40), ("data, mirrored and cropped", 30)]
    assert figures["thorough"] == []
    copies = list(sources(small)["data, mirrored and cropped"](40))
    originals = {image.tobytes() for image in draw_images(small.data, 40, stream(small, "x"))}
    assert not originals & {image.tobytes() for image in copies}


def test_an_issued_instance_among_the_unrelated_would_be_named(
    small: EvaluateConfig, tmp_path: Path
) -> None:
    from scalefp.data.images import save_png, to_pil

    model = ParityModel()
    packed = issued_keys(N_BITS, small.searched, stream(small, "issued"))
    guilty = model.instantiate(Key(packed[77].tobytes(), N_BITS))
    (tmp_path / "found").mkdir()
    for i, image in enumerate(to_pil(guilty.sample(3, seed=5))):
        save_png(tmp_path / "found" / f"{i}.png", image)
    small.unrelated = [str(tmp_path / "found")]
    figures = measure_unrelated(model, Samples(model, small), small)  # type: ignore[arg-type]
    assert figures["attributed"] == {"hard": 3, "soft": 3}
    assert figures["sources"][0]["source"] == "found"
