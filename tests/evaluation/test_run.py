"""The whole evaluation: one call, everything in the report, taken up where it was interrupted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Run
from parity import BlockMeans, ParityModel, make_folder, small_config
from scalefp.errors import UserError
from scalefp.evaluation import finetune
from scalefp.evaluation import run as evaluate_module
from scalefp.evaluation.report import markdown
from scalefp.evaluation.run import EvaluateConfig, evaluate, write_results
from scalefp.evaluation.samples import LiftingConfig
from scalefp.evaluation.targets import READING_TARGETS
from scalefp.experiment import has_matplotlib
from scalefp.release.model import Model


@pytest.fixture
def small(tmp_path: Path) -> EvaluateConfig:
    return small_config(tmp_path)


@pytest.fixture
def extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "choose_extractor", lambda which, path: BlockMeans())


def without_environment(results: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in results.items() if name != "environment"}


# All of it.


def test_a_release_is_measured_in_every_respect(
    model: Model, tmp_path: Path, extractor: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "WARM_UP_IMAGES", 32)
    config = EvaluateConfig(
        keys=3,
        images_per_key=2,
        curve_keys=1,
        perturbations=["noise"],
        pools=[1],
        issued=[1, 1000],
        data=make_folder(tmp_path / "data", 30, seed=0),
        unrelated_images=32,
        searched=100,
        feature_images=20,
        grid=2,
        tamper_keys=2,
        tamper_images=4,
        finetune_images=[32],
        lifting=LiftingConfig(
            victims=1, estimators=["mean"], images=[2], strengths=[1.0], pictures=2, queries=2,
            redrawing_steps=2,
        ),
    )  # fmt: skip
    out = tmp_path / "out"
    results = evaluate(model, config, out)
    write_results(results, out)
    assert json.loads((out / "results.json").read_text()) == results
    page = (out / "results.md").read_text()
    assert page == markdown(results)
    assert str(tmp_path) not in json.dumps(results) + page  # published: no folders of this machine

    measured = {row["what"]: row["reached"] != "not measured" for row in results["targets"]}
    assert sum(measured.values()) == 4 + 3  # clean, three noises; cost, weight noise, unrelated
    assert results["tampering"]["at_loss"].keys() == {"noise", "prune", "flatten", "average"}
    changed = {row["tampering"] for row in results["tampering"]["rows"]}
    assert {"noise", "fp16", "integer", "average", "fine-tuning"} < changed
    assert {"mean", "redrawn"} == {row["estimator"] for row in results["lifting"]["rows"]}
    assert results["lifting"]["checks"] is None  # since its copies carry no bound bits:
    assert "Left out: lift checks, since " in page and "`scalefp release bind`" in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert len(tables) > 60 and all(line.count("|") >= 3 for line in tables)
    for name in results["pictures"]:
        assert f"]({name})" in page
        assert Image.open(out / name).size[0] > 200
    assert {"strengths.png", "tampered.png"} <= set(results["pictures"])
    assert ("robustness.png" in results["pictures"]) == has_matplotlib()
    json.dumps(results, allow_nan=False)


def test_the_report_of_a_model_that_survives_png_only(
    small: EvaluateConfig, extractor: None
) -> None:
    small.images_per_key = 9  # fewer images than 100 are not judged
    results = evaluate(ParityModel(), small)  # type: ignore[arg-type]
    verdicts = {row["what"]: row["met"] for row in results["targets"]}
    assert verdicts["bit accuracy: clean"] is True
    assert verdicts["bit accuracy: JPEG 90"] is False
    assert verdicts["bit accuracy: rotated by 10 degrees"] is None
    # None was attributed, but 60 images are too few to say so.
    unrelated = results["targets"][-1]
    assert unrelated["met"] is None and unrelated["few"]
    assert results["tampering"] == {"untouched": None, "rows": [], "at_loss": {}}
    assert results["hiding"]["same_latent_two_keys"]["psnr"] > 40
    assert results["features"]["extractor"] == "block means"
    assert len(results["targets"]) == len(READING_TARGETS) + 3
    page = markdown(results)
    assert page.count("not judged: too few images") == 1
    assert "not FID" in page and "| jpeg | 50 |" in page
    assert "Changing an instance's weights" not in page


def test_what_is_missing_is_said(small: EvaluateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "choose_extractor", lambda which, path: None)
    monkeypatch.setattr(evaluate_module, "has_matplotlib", lambda: False)
    small.features, small.perturbations = "auto", []
    results = evaluate(ParityModel(), small)  # type: ignore[arg-type]
    assert results["features"] is None and results["pictures"] == []
    page = markdown(results)
    for words in ("pip install --no-deps", "lpips_backbone", "scalefp[plot]"):
        assert any(words in sentence for sentence in results["left_out"])
        assert words in page


def test_the_seed_decides_the_figures(small: EvaluateConfig) -> None:
    def run(seed: int) -> dict[str, Any]:
        small.seed = seed
        return without_environment(evaluate(ParityModel(flip=0.1), small))  # type: ignore[arg-type]

    first = run(0)
    assert run(0) == first
    assert run(1)["reading"] != first["reading"]


# Going on after an interruption.


class Impatient(ParityModel):
    """Is interrupted after so many images."""

    def __init__(self, patience: int) -> None:
        super().__init__(flip=0.1)
        self.patience = patience

    def decode(self, images: Any, **options: Any) -> Any:
        self.patience -= len(images)
        if self.patience < 0:
            raise KeyboardInterrupt
        return super().decode(images, **options)


def test_an_interrupted_evaluation_goes_on(
    small: EvaluateConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = evaluate(ParityModel(flip=0.1), small, tmp_path / "whole")  # type: ignore[arg-type]
    patience = 200
    with pytest.raises(KeyboardInterrupt):
        evaluate(Impatient(patience), small, tmp_path / "out")  # type: ignore[arg-type]
    finished = len(list((tmp_path / "out" / "parts").iterdir()))
    assert finished > 2
    rest = ParityModel(flip=0.1)
    capsys.readouterr()
    results = evaluate(rest, small, tmp_path / "out")  # type: ignore[arg-type]
    assert without_environment(results) == without_environment(whole)
    assert results["environment"]["parts_taken_over"] == finished
    assert f"{finished} finished parts taken over" in capsys.readouterr().err
    assert 0 < sum(rest.decoded.values()) < 400

    # All there: nothing is read any more. Another batch size changes nothing.
    small.batch_size = 11
    again = ParityModel(flip=0.1)
    repeated = evaluate(again, small, tmp_path / "out")  # type: ignore[arg-type]
    assert sum(again.decoded.values()) == 0
    assert repeated["reading"] == whole["reading"] and repeated["unrelated"] == whole["unrelated"]


def changed(name: str, value: Any) -> Callable[[EvaluateConfig, ParityModel], None]:
    return lambda config, model: setattr(config, name, value)


def another_image(config: EvaluateConfig, model: ParityModel) -> None:
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(Path(config.data) / "new.png")


def another_release(config: EvaluateConfig, model: ParityModel) -> None:
    model.digest = "cd" * 32


@pytest.mark.parametrize(
    "change", [changed("seed", 1), changed("keys", 11), another_image, another_release]
)
def test_parts_of_anything_else_are_measured_again(
    small: EvaluateConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[EvaluateConfig, ParityModel], None],
) -> None:
    small.perturbations = ["flip"]
    evaluate(ParityModel(), small, tmp_path / "out")  # type: ignore[arg-type]
    model = ParityModel()
    change(small, model)
    capsys.readouterr()
    results = evaluate(model, small, tmp_path / "out")  # type: ignore[arg-type]
    assert results["environment"]["parts_taken_over"] == 0
    assert "parts of another release or configuration" in capsys.readouterr().err
    fresh = evaluate(model, small)  # type: ignore[arg-type]
    assert results["reading"] == fresh["reading"]


# Mistakes.


def test_results_that_cannot_be_written(small: EvaluateConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    results = evaluate(ParityModel(), small)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="cannot write"):
        write_results(results, tmp_path / "file" / "out")
    with pytest.raises(UserError, match="cannot use"):
        evaluate(ParityModel(), small, tmp_path / "file" / "out")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("keys", 1, "keys must be at least 2"),
        ("pools", [6], "images_per_key"),
        ("perturbations", ["jpg"], "unknown perturbation 'jpg'"),
        ("tamperings", ["melt"], "unknown tampering 'melt'"),
        ("features", "vgg", "unknown features 'vgg'; known are auto"),
        ("feature_weights", "no/such.pth", "no/such.pth"),
        ("lpips_backbone", "no/such.pth", "no/such.pth"),
        ("data", "no/such.zip", "no/such.zip"),
        ("unrelated", ["no/such/folder"], "no/such/folder"),
        ("twin", "no/such.safetensors", "no/such.safetensors"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(
    small: EvaluateConfig, name: str, value: Any, message: str
) -> None:
    if name == "feature_weights":
        small.features = "mobilenet"
    setattr(small, name, value)
    with pytest.raises(UserError, match=message):
        evaluate(None, small)  # type: ignore[arg-type]


def test_a_folder_without_images_is_refused(small: EvaluateConfig, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    small.unrelated = [str(tmp_path / "empty")]
    with pytest.raises(UserError, match="holds no image"):
        evaluate(None, small)  # type: ignore[arg-type]


# The quick setting, through the command line.


def test_the_quick_setting_measures_something_of_everything(
    run: Run, release: Path, tmp_path: Path
) -> None:
    data = make_folder(tmp_path / "data", 40, seed=0)
    arguments = [f"checkpoint={release}", "measure=quick", f"measure.data={data}"]
    first = run("evaluate", *arguments, "measure.features=none", "--json")
    assert first.code == 0, first.err
    assert first.json["config"]["keys"] == 2 and first.json["unrelated"]["images"] == 32
    assert not any(row["met"] for row in first.json["targets"])  # four images prove nothing
    assert {row["tampering"] for row in first.json["tampering"]["rows"]} == {"noise", "average"}
    second = run("evaluate", *arguments, "measure.features=none", "--json")
    assert without_environment(second.json) == without_environment(first.json)
    assert "finished parts taken over" in second.err
