"""What lies in experiments/ is what its scripts make of the results that lie beside it."""

import shutil
from importlib import import_module
from pathlib import Path
from statistics import fmean

import pytest

pytest.importorskip("matplotlib")

import adopted_generator
import before_after
import ideas
import transfer_report
from scalefp.bench.report import markdown as bench
from scalefp.evaluation.report import markdown as evaluation
from scalefp.experiment import Experiment, load_results, student
from scalefp.studies.report import DATA, PAGE, TABLE, write_report

ROOT = Path(__file__).parents[2] / "experiments"
ARTIFICIAL = ROOT / "artificial-fingerprints"
REPORTS = {
    "ablation": ARTIFICIAL / "ablation",
    "adopted_generator": ROOT / "pretrained",
    "baselines": ARTIFICIAL / "baselines",
    "bind": ROOT / "binding",
    "bits": ROOT / "inversion",
    "bound_dcgan": ROOT / "binding" / "dcgan",
    "checking": ROOT / "lifting",
    "calibrate": ROOT / "false-attribution",
    "collude": ROOT / "collusion",
    "detect": ROOT / "detection",
    "equal_losses": ROOT / "performance",
    "fidelity": ROOT / "fidelity",
    "flatten": ROOT / "flattening",
    "generator_tampering": ARTIFICIAL / "tampering",
    "gpu_step": ROOT / "performance",
    "generator_secrecy": ROOT / "secrecy",
    "invert": ROOT / "inversion",
    "key_geometry": ROOT / "key-geometry",
    "lift": ROOT / "lifting",
    "lift_taef2": ROOT / "lifting",
    "load": ROOT / "service",
    "many_keys": ARTIFICIAL / "keys",
    "recipient_cost": ROOT / "recipient-cost",
    "registry_bench": ROOT / "registry",
    "remove": ROOT / "removal",
    "remove_taef2": ROOT / "removal",
    "robustness": ARTIFICIAL / "robustness",
    "scan_bench": ROOT / "scanning",
    "secrecy": ARTIFICIAL / "secrecy",
    "strength": ARTIFICIAL / "strength",
    "tradeoff": ROOT / "fidelity",
    "transfer_reason": ARTIFICIAL / "transfer-reason",
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
    for folder in (ARTIFICIAL / "transfer-coarse", ARTIFICIAL / "transfer-ours"):
        page = transfer_report.EXPERIMENT.page(load_results(folder / "results.json"))
        assert page == (folder / "table.md").read_text(encoding="utf-8")


def test_the_control_is_reported_as_the_generator_of_others_is() -> None:
    folder = ROOT / "pretrained" / "plain"
    page = adopted_generator.EXPERIMENT.page(load_results(folder / "results.json"))
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


def test_what_was_tried_against_lifting_is_made_of_other_pages_results() -> None:
    tried = ideas.trials(ROOT)
    page = ROOT / "lifting" / ideas.PAGE
    assert ideas.markdown(tried) == page.read_text(encoding="utf-8")
    # What the page by lifting/ says: only a decoder's bits can be laid on other pictures.
    laid = [one for one in tried if one.panel == ideas.LAID]
    assert {one.idea for one in laid} == set(ideas.MARKERS)
    assert {one.idea for one in laid if one.counted} == {ideas.PLAIN, ideas.MAPS}


def test_evaluations_and_benchmarks_are_reported_as_they_lie_here() -> None:
    for make, page in (
        (evaluation, ROOT / "emoji" / "results.md"),
        (evaluation, ROOT / "faces" / "results.md"),
        (evaluation, ROOT / "cifar" / "results.md"),
        (bench, ROOT / "performance" / "table.md"),
    ):
        assert make(load_results(page.parent / "results.json")) == page.read_text(encoding="utf-8")


# Studies whose jobs are of several versions of the code, as their READMEs say: jobs of each.
MIXED = {"ablation": [3, 13, 20], "capacity": [1, 5], "capacity/maps": [2, 3]}


@pytest.mark.parametrize("study", ["ablation", "capacity", "capacity/maps", "scalability"])
def test_a_studys_page_and_table_are_made_of_the_jobs_beside_them(
    study: str, tmp_path: Path
) -> None:
    report = load_results(ROOT / study / DATA)
    write_report(tmp_path, report)
    for name in (PAGE, TABLE, DATA):
        assert (tmp_path / name).read_bytes() == (ROOT / study / name).read_bytes(), name
    assert report["jobs"] == {"finished": len(report["finished"]), "failed": 0, "unfinished": 0}
    assert not report["repeated"] and not report["running"]
    # Another mixture than the one that the folder's README explains would be noticed.
    one_version = [len(report["finished"])]
    assert sorted(report["versions"].values()) == MIXED.get(study, one_version)
    for row in report["rows"]:
        own = [job for job in report["finished"] if job["setting"] == row["setting"]]
        assert row["seeds"] == sorted(job["seed"] for job in own)
        for metric, figure in row["figures"].items():
            values = [job["figures"][metric] for job in own if metric in job["figures"]]
            assert (figure["mean"], figure["ci95"]) == (fmean(values), student(values))
