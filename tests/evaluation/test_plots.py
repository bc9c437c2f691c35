"""Plots and contact sheets: what is drawn is what was measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from parity import ParityModel, small_config
from scalefp.evaluation import plots
from scalefp.evaluation.plots import by_perturbation, drawable
from scalefp.evaluation.removal import Attempt
from scalefp.evaluation.robustness import Point, points
from scalefp.evaluation.samples import EvaluateConfig, Samples
from scalefp.evaluation.sheets import CELL, LABEL, TITLE, perturbation_sheet, sheet, tampering_sheet
from scalefp.experiment import has_matplotlib, save_figure
from scalefp.perturb import PERTURBATIONS
from scalefp.release.model import Model

needs_matplotlib = pytest.mark.skipif(not has_matplotlib(), reason="matplotlib is not installed")


def point(perturbation: str, strength: float, mean: float) -> dict[str, Any]:
    shares = {"1": mean, "1000000": mean / 2}
    pool = {"sources": 4, "accuracy": mean, "hard": shares, "soft": shares}
    return {
        "perturbation": perturbation,
        "strength": strength,
        "mean": mean,
        "p5": mean - 0.05,
        "ci95": [mean - 0.01, mean + 0.01],
        "attributed": {"1": pool, "4": pool},
    }


def attempt(name: str, strength: float, mean: float, **quality: float) -> dict[str, Any]:
    return {"tampering": name, "strength": strength, "mean": mean, "psnr": 30.0, **quality}


@pytest.fixture
def results() -> dict[str, Any]:
    reading = [point("clean", 0.0, 0.99)]
    reading += [point("jpeg", quality, 0.9) for quality in (90.0, 50.0)]
    reading += [point("rotation", degrees, 0.8) for degrees in (5.0, 10.0)]
    reading += [point("brightness", change, 0.7) for change in (-0.5, 0.5)]
    rows = [attempt("noise", 0.1, 0.98, loss=0.05), attempt("noise", 0.2, 0.9, loss=0.3)]
    rows += [attempt("fine-tuning", 0.0, 0.99, loss=0.0)]
    rows += [attempt("fp16", 1.0, 0.99, loss=0.0)]
    return {
        "reading": reading,
        "tampering": {"untouched": attempt("untouched", 0.0, 0.99, loss=0.0), "rows": rows},
        "config": {"fpr": 1e-6},
    }


def test_points_are_grouped_with_the_clean_one_at_the_identity(results: dict[str, Any]) -> None:
    groups = by_perturbation(results["reading"])
    assert list(groups) == ["jpeg", "rotation", "brightness"]
    for name, rows in groups.items():
        strengths = [row["strength"] for row in rows]
        assert strengths == sorted(strengths) and len(rows) == 3
        (clean,) = [row for row in rows if row["strength"] == PERTURBATIONS[name].identity]
        assert clean["mean"] == 0.99


@needs_matplotlib
def test_every_plot_is_drawn_and_repeats(results: dict[str, Any], tmp_path: Path) -> None:
    drawn = drawable(results)
    assert list(drawn) == [
        "robustness.png", "attribution.png", "tampering.png", "tampering-strengths.png"
    ]  # fmt: skip
    for name, draw in drawn.items():
        save_figure(draw(), tmp_path / name)
        pixels = np.asarray(Image.open(tmp_path / name).convert("L"))
        assert pixels.shape[0] > 200 and len(np.unique(pixels)) > 20
    first = (tmp_path / "tampering.png").read_bytes()
    save_figure(drawn["tampering.png"](), tmp_path / "tampering.png")
    assert (tmp_path / "tampering.png").read_bytes() == first
    assert len(list(tmp_path.iterdir())) == 4


@needs_matplotlib
def test_published_curves_are_drawn_beside_ours(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_figure(plots.plot_robustness(results["reading"]), tmp_path / "with.png")
    monkeypatch.setattr(plots, "curves", lambda name: [])
    save_figure(plots.plot_robustness(results["reading"]), tmp_path / "without.png")
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()


@needs_matplotlib
def test_without_losses_tampering_is_drawn_against_psnr(
    results: dict[str, Any], tmp_path: Path
) -> None:
    for row in results["tampering"]["rows"]:
        del row["loss"]
    for name in ("tampering.png", "tampering-strengths.png"):
        save_figure(drawable(results)[name](), tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000


def test_nothing_measured_nothing_to_draw(results: dict[str, Any]) -> None:
    results["reading"], rows = results["reading"][:1], results["tampering"]["rows"]
    results["tampering"]["rows"] = rows[:1]
    assert list(drawable(results)) == ["tampering.png"]  # one strength makes no curve
    results["tampering"]["rows"] = []
    assert drawable(results) == {}


# Contact sheets.


def test_a_sheet_holds_every_picture_in_its_place() -> None:
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    page = sheet({"first": [("1", red)], "second": [("1", red), ("2", blue)]})
    height = CELL + LABEL + 4
    assert page.size == (TITLE + 2 * (CELL + 4), 2 * height)
    middle = CELL // 2
    assert page.getpixel((TITLE + middle, middle)) == (255, 0, 0)
    assert page.getpixel((TITLE + CELL + 4 + middle, height + middle)) == (0, 0, 255)
    assert page.getpixel((TITLE + CELL + 4 + middle, middle)) == (255, 255, 255)


def test_sheets_show_what_was_measured(tmp_path: Path, model: Model) -> None:
    config: EvaluateConfig = small_config(tmp_path)
    found = points(config)
    page = perturbation_sheet(Samples(ParityModel(), config), found, config)  # type: ignore[arg-type]
    columns = max(len(PERTURBATIONS[name].test_strengths) for name in ("jpeg", "flip"))
    assert page.size == (TITLE + columns * (CELL + 4), 3 * (CELL + LABEL + 4))
    clean = page.crop((TITLE, 0, TITLE + CELL, CELL))
    row = 2 * (CELL + LABEL + 4)
    assert found[-1] == Point("flip", 1.0, True)
    flipped = page.crop((TITLE, row, TITLE + CELL, row + CELL))
    mirrored = np.asarray(flipped)[:, ::-1].astype(int)
    assert np.abs(mirrored - np.asarray(clean)).max() <= 1  # up to the resampling's rounding
    tries = [Attempt("noise", 0.0), Attempt("noise", 0.5)]
    page = tampering_sheet(Samples(model, config), tries, config)
    top, left = CELL + LABEL + 4, TITLE + CELL + 4
    untouched = page.crop((TITLE, 0, TITLE + CELL, CELL))
    assert untouched == page.crop((TITLE, top, TITLE + CELL, top + CELL))
    assert untouched != page.crop((left, top, left + CELL, top + CELL))
