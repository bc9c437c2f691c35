"""experiments/artificial-fingerprints: adversaries, other tools, robustness, many keys."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments" / "artificial-fingerprints"))

pytest.importorskip("matplotlib")

import adversary
import baselines
import many_keys
import robustness
import secrecy
import secrecy_report
import stego
from adversary import Examples, accuracy_figures, high_pass_filters, ranked, rich_features, wilson
from scalefp.artificial.config import MarkConfig
from scalefp.artificial.encoder import Encoder
from scalefp.artificial.marker import save_marker
from scalefp.decoder import Decoder
from scalefp.errors import UserError
from scalefp.images import to_pil
from scalefp.key import Key

SIZE = 32


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    """Smooth pictures with some noise, uint8 [count, 3, SIZE, SIZE]."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    noise = 4 * torch.randn(count, 3, SIZE, SIZE, generator=draw)
    return (40 + 170 * smooth + noise).clamp(0, 255).to(torch.uint8)


def add_marks(images: torch.Tensor, carriers: torch.Tensor, seed: int) -> torch.Tensor:
    """Random signs of fixed carriers [c, 3, SIZE, SIZE], at 6 grey levels."""
    signs = torch.randint(0, 2, (len(images), len(carriers)), generator=_draw(seed)) * 2.0 - 1
    marks = torch.einsum("bc,cxyz->bxyz", signs, carriers)
    marks = 6 * marks / marks.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return (images + marks).clamp(0, 255).round().to(torch.uint8)


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def carriers() -> torch.Tensor:
    return torch.randn(8, 3, SIZE, SIZE, generator=_draw(7))


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
    folder = tmp_path_factory.mktemp("data")
    for i, image in enumerate(to_pil(pictures(460))):
        image.save(folder / f"{i:04d}.png")
    return folder


# The scores.


def test_the_interval_is_wilsons() -> None:
    # Of 8 in 10: the roots of (p - 0.8)^2 = z^2 p (1 - p) / 10.
    z2 = 1.959964**2
    roots = np.sort(np.roots([1 + z2 / 10, -(1.6 + z2 / 10), 0.64]))
    assert wilson(8, 10) == pytest.approx(roots)
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1
    low, high = wilson(5000, 10_000)
    assert high - low == pytest.approx(2 * 1.959964 * 0.5 / 100, rel=1e-3)


def test_accuracy_counts_both_classes_and_groups_add_scores() -> None:
    clean = np.array([-1.0] * 24 + [2.0] * 8)  # a quarter wrong, but the first group sums below 0
    marked = np.array([3.0] * 32)
    found = accuracy_figures(clean, marked)
    assert found["images"] == 64 and found["accuracy"] == 56 / 64
    assert found["ranked"] == 1.0
    # Groups of 16: -16, then 8 * -1 + 8 * 2 = 8, which is wrong; both marked ones are right.
    assert found["group"] == {"groups": 4, "accuracy": 0.75, "ci95": wilson(3, 4)}
    assert accuracy_figures(clean[:10], marked[:10])["group"] is None


def test_ranking_counts_ties_half() -> None:
    assert ranked(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == 0.875
    assert ranked(np.zeros(3), np.zeros(5)) == 0.5


# The adversary.


def test_high_pass_filters_take_no_notice_of_flat_and_slanted_pictures() -> None:
    filters = high_pass_filters().double()
    assert torch.allclose(filters.sum(dim=(1, 2)), torch.zeros(7).double(), atol=1e-6)
    x = torch.arange(5.0).double().expand(5, 5)
    for slope in (x, x.T):  # all but those of first order
        slopes = (filters[2:] * slope).sum(dim=(1, 2))
        assert torch.allclose(slopes, torch.zeros(5).double(), atol=1e-6)
    assert torch.equal(filters.flatten(1).abs().amax(dim=1), torch.ones(7).double())


def test_the_rich_model_counts_pairs_of_neighbours() -> None:
    found = rich_features(pictures(3)).unflatten(1, (-1, 25))
    assert found.shape == (3, 2 * 2 * 21, 25)
    assert torch.allclose(found.square().sum(dim=2), torch.ones(3, 84))
    flat = rich_features(torch.full((1, 3, SIZE, SIZE), 99, dtype=torch.uint8))
    assert torch.equal(flat.unflatten(1, (-1, 25))[0, :, 12], torch.ones(84))  # 0 beside 0


@pytest.mark.parametrize("name", ["rich model", "carriers"])
def test_an_obvious_mark_is_found_and_no_mark_is_not(name: str, carriers: torch.Tensor) -> None:
    own, test = pictures(240, seed=1), pictures(400, seed=2)
    clean, other = test[:200], test[200:]
    examples = Examples(own, add_marks(own, carriers, seed=3), paired=True)
    detect = adversary.train(name, examples, images=0, carriers=8, seed=0)
    marked = add_marks(other, carriers, seed=4)
    assert accuracy_figures(detect(clean), detect(marked))["accuracy"] > 0.95
    low, high = accuracy_figures(detect(clean), detect(other))["ci95"]
    assert low < 0.5 < high


def test_without_pairs_the_mark_of_one_key_is_found(carriers: torch.Tensor) -> None:
    signs = torch.randint(0, 2, (8,), generator=_draw(5)) * 2.0 - 1
    key = torch.einsum("c,cxyz->xyz", signs, carriers)[None]
    own, published, test = (pictures(200, seed=seed) for seed in (1, 2, 3))
    fixed = (published + 2 * key / key.std()).clamp(0, 255).round().to(torch.uint8)
    examples = Examples(own, fixed, paired=False)
    detect = adversary.train("carriers", examples, images=0, carriers=8, seed=0)
    marked = (test[100:] + 2 * key / key.std()).clamp(0, 255).round().to(torch.uint8)
    assert accuracy_figures(detect(test[:100]), detect(marked))["accuracy"] > 0.95
    same = Examples(own, published, paired=False)
    detect = adversary.train("carriers", same, images=0, carriers=8, seed=0)
    assert accuracy_figures(detect(test[:100]), detect(test[100:]))["accuracy"] < 0.65


@pytest.mark.parametrize("name", ["network", "high-pass network"])
def test_networks_learn_the_obvious(name: str) -> None:
    clean = pictures(64, seed=1)
    noise = 30 * torch.randn(clean.shape, generator=_draw(2))
    noisy = (clean + noise).clamp(0, 255).to(torch.uint8)
    detect = adversary.train(
        name, Examples(clean, noisy, paired=True), images=64 * 24, carriers=0, seed=0
    )
    test = pictures(40, seed=3)
    again = (test + 30 * torch.randn(test.shape, generator=_draw(4))).clamp(0, 255)
    assert accuracy_figures(detect(test), detect(again.to(torch.uint8)))["accuracy"] > 0.9


def test_examples_are_split_by_class() -> None:
    examples = Examples(pictures(10), pictures(20), paired=False)
    training, held_out = examples.split(0.2)
    assert [len(x) for x in (training.clean, training.marked)] == [8, 16]
    assert torch.equal(held_out.marked, examples.marked[16:])


# Whole scripts, on an untrained marker.


def call(module, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [f"artificial/{module.__name__}.py", *map(str, words)])
    module.main()


def test_secrecy_measures_all_threats_and_goes_on(
    marker_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--marker", marker_file, "--shadow", marker_file, "--data", data, "--images", 460]
    words += ["--psnr", 30, 44, "--detectors", "carriers", "--key", "ab" * 16]
    words += ["--clean-samples", data, "--marked-samples", data, "--control-samples", data]
    words += ["--parts", tmp_path / "parts", "--out", tmp_path / "out"]
    call(secrecy, monkeypatch, *words)
    results = json.loads((tmp_path / "out" / "results.json").read_text())["random"]
    assert results["images"] == {"adversary": 184, "published": 138, "test": 128}
    cases = [(row["psnr"], row["threat"]) for row in results["rows"]]
    assert cases == [
        *((psnr, threat) for psnr in (30.0, 44.0) for threat in secrecy.THREATS),
        (None, secrecy.LABELLED),
        (None, secrecy.CONTROL),
    ]
    # The same pictures on both sides: nothing to tell apart.
    assert all(abs(row["accuracy"] - 0.5) < 0.1 for row in results["rows"][-2:])
    strong, weak = (r for r in results["rows"] if r["threat"] == "informed")
    assert strong["accuracy"] > 0.9 and strong["accuracy"] >= weak["accuracy"]
    assert [round(reading["psnr"]) for reading in results["readings"]] == [30, 44]
    assert str(tmp_path) not in results["command"]
    page = (tmp_path / "out" / "table.md").read_text()
    assert "| informed, 30 dB | <= 0.55 |" in page and (tmp_path / "out" / "random.png").is_file()

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(secrecy, "train", refuse)
    call(secrecy, monkeypatch, *words)  # all parts are there


def test_the_adversary_takes_what_did_best_on_his_own_examples() -> None:
    rows = [
        {"psnr": 38.0, "threat": "shadow", "validation": 0.9, "accuracy": 0.5},
        {"psnr": 38.0, "threat": "shadow", "validation": 0.8, "accuracy": 0.7},
        {"psnr": 40.0, "threat": "shadow", "validation": 0.6, "accuracy": 0.6},
    ]
    assert secrecy_report.chosen(rows) == [rows[0], rows[2]]


def test_keys_of_an_unreadable_marker_are_nobodys(
    marker_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--marker", marker_file, "--data", data, "--images", 30, "--per-key", 1]
    words += ["--samples", f"{'12' * 16}={data}", "--clean-samples", data, "--out", tmp_path]
    call(many_keys, monkeypatch, *words, "--perturbation", "jpeg", 50)
    results = json.loads((tmp_path / "results.json").read_text())["random"]
    assert [row["keys"] for row in results["rows"]] == [1, 10, 100]
    for row in [*results["rows"], results["generators"]]:
        assert row["wrongly_named"] == 0
        assert row["detection"]["closed"]["accuracy"] == 0.5  # all clean images, no marked one
        assert row["attribution"]["closed"]["accuracy"] == 0.0
    assert "jpeg 50" in (tmp_path / "table.md").read_text()


def test_worlds_of_attribution() -> None:
    found = many_keys.figures(
        own=["a", "b", "", "a"], truth=["a", "b", "b", "b"], clean=["", "", "", "a"],
        stranger=["", "b", "", ""],
    )  # fmt: skip
    assert found["attribution"]["closed"]["accuracy"] == 0.5
    assert found["detection"]["closed"]["accuracy"] == 6 / 8
    assert found["attribution"]["open"]["accuracy"] == (2 + 2 + 1) / 8
    assert found["wrongly_named"] == 3


def test_robustness_of_an_unreadable_marker(
    marker_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--marker", marker_file, "--data", data, "--keys", 4, "--images-per-key", 4]
    words += ["--perturbations", "jpeg", "crop", "--unrelated-images", 40, "--psnr", 38]
    words += ["--samples", data, "--key", "ab" * 16, "--most-samples", 32, "--out", tmp_path]
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
    marker_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--marker", marker_file, "--data", data, "--samples", data, "--out", tmp_path]
    with pytest.raises(UserError, match="--key"):
        call(robustness, monkeypatch, *words)


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
    marker_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--marker", marker_file, "--data", data, "--resolution", SIZE, "--tools"]
    words += ["--images", 66, "--training-images", 64, "--samples", 8, "--out", tmp_path]
    call(baselines, monkeypatch, *words, "--parts", tmp_path / "parts")
    (figures,) = json.loads((tmp_path / "results.json").read_text()).values()
    stages = figures["rows"][baselines.OURS]["stages"]
    assert list(stages) == list(baselines.STAGES)
    assert stages["file"] == stages["again"]  # PNG files
    assert all(stage["images"] == 8 for stage in stages.values())
    with pytest.raises(UserError, match="--resolution 32"):
        call(baselines, monkeypatch, *words[:4], "--tools", "--out", tmp_path)
