"""What lies in experiments/ is what its scripts make of the results that lie beside it."""

import shutil
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

import before_after
import transfer_report
from scalefp.bench.report import markdown as bench
from scalefp.evaluation.report import markdown as evaluation
from scalefp.experiment import Experiment, load_results

ROOT = Path(__file__).parents[2] / "experiments"
ARTIFICIAL = ROOT / "artificial-fingerprints"
REPORTS = {
    "ablation": ARTIFICIAL / "ablation",
    "adopted_generator": ROOT / "pretrained",
    "baselines": ARTIFICIAL / "baselines",
    "calibrate": ROOT / "false-attribution",
    "collude": ROOT / "collusion",
    "equal_losses": ROOT / "performance",
    "fidelity": ROOT / "fidelity",
    "flatten": ROOT / "flattening",
    "generator_tampering": ARTIFICIAL / "tampering",
    "key_geometry": ROOT / "key-geometry",
    "lift": ROOT / "lifting",
    "load": ROOT / "service",
    "many_keys": ARTIFICIAL / "keys",
    "read_again": ROOT / "content-bound",
    "recipient_cost": ROOT / "recipient-cost",
    "registry_bench": ROOT / "registry",
    "remove": ROOT / "removal",
    "robustness": ARTIFICIAL / "robustness",
    "secrecy": ARTIFICIAL / "secrecy",
    "strength": ARTIFICIAL / "strength",
    "tradeoff": ROOT / "fidelity",
    "transfer_report": ARTIFICIAL / "transfer",
}


@pytest.mark.parametrize("script", REPORTS)
def test_the_page_is_made_of_the_results(script: str) -> None:
    experiment: Experiment = import_module(script).EXPERIMENT
    assert experiment.folder == REPORTS[script]
    results = load_results(experiment.folder / experiment.results_file)
    page = (experiment.folder / experiment.page_file).read_text(encoding="utf-8")
    assert experiment.page(results) == page


def test_jobs_in_another_folder_have_a_page_too() -> None:
    folder = ARTIFICIAL / "transfer-coarse"
    page = transfer_report.EXPERIMENT.page(load_results(folder / "results.json"))
    assert page == (folder / "table.md").read_text(encoding="utf-8")


def test_the_comparison_of_speed_is_that_of_its_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("before.json", "results.json"):
        shutil.copy(before_after.HERE / name, tmp_path)
    committed = (before_after.HERE / "before-after.md").read_text(encoding="utf-8")
    monkeypatch.setattr(before_after, "HERE", tmp_path)
    before_after.main()
    assert (tmp_path / "before-after.md").read_text(encoding="utf-8") == committed


def test_evaluations_and_benchmarks_are_reported_as_they_lie_here() -> None:
    for make, page in (
        (evaluation, ROOT / "emoji" / "results.md"),
        (evaluation, ROOT / "faces" / "results.md"),
        (bench, ROOT / "performance" / "table.md"),
    ):
        assert make(load_results(page.parent / "results.json")) == page.read_text(encoding="utf-8")
