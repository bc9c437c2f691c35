"""Studies and sweeps, really run and gathered: every job counts, failed and unfinished ones too."""

import csv
import json
import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import Run, assert_mistake
from scalefp.config import conf_dir
from scalefp.experiment import code_version, content_digest
from scalefp.files import held
from scalefp.studies.gather import LOCK

STUDY = """# @package _global_
defaults:
  - override /model: tiny
name: lengths
model: {resolution: 16}
schedule: {total_images: 16}
optimizer: {batch: 8}
run: {tensorboard: false, precision: fp32}
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      model.n_bits: 8,16
      seed: 0
  callbacks:
    study:
      _target_: scalefp.cli.study.Study
      question: How many bits?
      metrics: [unseen_bit_accuracy, unseen_evidence, psnr]
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a study of one's own."""
    file = tmp_path / "own" / "study" / "lengths.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(STUDY)
    return file.parent.parent


def write_job(folder: Path, override: str, results: str) -> None:
    """A finished job with the given ``results.json``."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(f"{{{override.replace('=', ': ')}, seed: 0}}")
    (folder / ".hydra" / "overrides.yaml").write_text(f"[{override}]")
    (folder / "results.json").write_text(results)


def test_a_figure_that_is_no_number_is_null_and_hides_no_other(run: Run) -> None:
    for number, psnr in enumerate(("NaN", "30.0", "-Infinity", "Infinity")):
        figures = f'{{"figures": {{"psnr": {psnr}, "bit_accuracy": 0.5}}}}'
        write_job(Path(f"sweep/{number}"), f"x={max(number, 2)}", figures)

    def strict(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    result = run("report", "sweep", "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out, parse_constant=strict)
    assert report == json.loads(Path("sweep/report.json").read_text(), parse_constant=strict)
    first, second = (row["figures"] for row in report["rows"])
    assert first["psnr"] == {"mean": None, "ci95": None, "jobs": 3}
    assert first["bit_accuracy"] == {"mean": 0.5, "ci95": [0.5, 0.5], "jobs": 3}
    assert second["psnr"] == {"mean": None, "ci95": None, "jobs": 1}
    assert run("report", "sweep").out.count("not finite") == 2
    head, *lines = csv.reader(run("report", "sweep", "--csv").out.splitlines())
    assert [line[head.index("psnr_mean")] for line in lines] == ["", ""]


def test_a_study_runs_is_gathered_and_goes_on(run: Run, own: Path, images: list[Path]) -> None:
    command = ["train", "-m", "-cd", own, "+study=lengths", f"data.source={images[0].parent}"]
    # A job that fails hides in no table and stops no other.
    result = run(*command, "model.n_bits=4,8")
    assert result.code == 2, result.err
    assert "1 job of this sweep failed" in result.err
    assert result.err.count("Reached: ") == 1  # and no more of each job
    assert "Next: " not in result.err and "Go on by the same command" not in result.err
    assert {path.name for path in Path("runs/lengths").glob("model*")} == {
        "model.n_bits=4,seed=0", "model.n_bits=8,seed=0",
    }  # fmt: skip
    report = json.loads(Path("runs/lengths/report.json").read_text())
    assert report["jobs"] == {"finished": 1, "failed": 1, "unfinished": 0}
    assert report["failed"][0]["job"] == "model.n_bits=4,seed=0"
    page = Path("runs/lengths/report.md").read_text()
    assert "Failed: model.n_bits=4,seed=0: model.n_bits must lie between 8 and 512" in page

    # The whole study runs what is missing, and measures what is asked for since.
    done = Path("runs/lengths/model.n_bits=8,seed=0/results.json")
    left = json.loads(done.read_text())
    assert left["figures"].pop("unseen_evidence") >= 0
    left["environment"]["seconds"] = 1000.5
    done.write_text(json.dumps(left))
    made = Path("runs/lengths/model.n_bits=8,seed=0/state.pt").stat().st_mtime_ns
    Path("runs/lengths/model.n_bits=4,seed=0/.hydra/config.yaml").unlink()
    result = run(*command)
    assert result.code == 0, result.err
    assert Path("runs/lengths/model.n_bits=8,seed=0/state.pt").stat().st_mtime_ns == made

    assert json.loads(done.read_text())["environment"]["seconds"] > 1000.5  # both processes

    printed = run("report", "runs/lengths", "--json")
    assert printed.code == 0, printed.err
    report = printed.json
    assert report["question"] == "How many bits?" and report["metrics"] == [
        "unseen_bit_accuracy",
        "unseen_evidence",
        "psnr",
    ]
    assert [row["setting"] for row in report["rows"]] == [
        {"model.n_bits": 8}, {"model.n_bits": 16},
    ]  # fmt: skip
    assert list(report["versions"]) == [code_version()] and not report["running"]
    for row in report["rows"]:
        folder = Path(f"runs/lengths/model.n_bits={row['setting']['model.n_bits']},seed=0")
        left = json.loads((folder / "results.json").read_text())
        last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
        unseen = {k: v for k, v in left["figures"].items() if k.startswith("unseen_")}
        assert left["figures"] == last | unseen and left["options"]["seed"] == 0
        assert left["release"] == content_digest(folder / "release.safetensors")
        # Of two steps nothing is readable yet.
        assert len(unseen) == 5 and 0.3 < unseen["unseen_bit_accuracy"] < 0.7
        assert unseen["unseen_attributed"] == 0
        assert row["figures"]["psnr"] == {"mean": last["psnr"], "ci95": None, "jobs": 1}
    (head, *lines) = csv.reader(run("report", "runs/lengths", "--csv").out.splitlines())
    assert head[:3] == ["model.n_bits", "seeds", "unseen_bit_accuracy_mean"]
    assert [line[0] for line in lines] == ["8", "16"]
    assert "0.991 with 128 bits on CelebA 128x128 (2022)" in run("report", "runs/lengths").out
    assert Path("runs/lengths/report.png").read_bytes().startswith(b"\x89PNG")

    # Jobs of another version of the code are in the table, and it says so.
    older = Path("runs/lengths/model.n_bits=8,seed=0/results.json")
    older.write_text(older.read_text().replace(code_version(), "0.1+other"))
    assert "different versions of the code" in run("report", "runs/lengths").out


def test_other_options_than_a_finished_jobs_are_not_taken_for_it(
    run: Run, own: Path, images: list[Path]
) -> None:
    command = ["train", "-cd", own, "+study=lengths", f"data.source={images[0].parent}"]
    command += ["model.n_bits=8", "name=one"]
    assert run(*command).code == 0
    (folder,) = Path("runs/one").glob("model*")
    assert folder.name == "model.n_bits=8,seed=0"
    result = run(*command, "optimizer.batch=4")
    assert result.code == 2 and "optimizer.batch=8, not 4" in result.err
    # A longer training of the same options goes on, and leaves what it reached then.
    assert run(*command, "schedule.total_images=24").code == 0
    assert json.loads((folder / "results.json").read_text())["figures"]["images"] == 24


def test_two_sweeps_into_one_folder_at_once_are_refused(
    run: Run, own: Path, images: list[Path]
) -> None:
    folder = Path("runs/lengths")
    folder.mkdir(parents=True)
    command = ["train", "-m", "-cd", own, "+study=lengths", f"data.source={images[0].parent}"]
    with held(folder / LOCK, ""):
        assert_mistake(run(*command), "another sweep is at work in", "runs/lengths")
        assert os.listdir(folder) == [LOCK]


def job(folder: Path, results: dict[str, Any] | None, *overrides: str) -> None:
    """A job's folder as Hydra and the job leave it."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    options = {"seed": 0} | {k: yaml.safe_load(v) for k, v in (t.split("=") for t in overrides)}
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(options))
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results))


def test_a_sweep_that_runs_is_watched_until_it_ends(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its table is printed anew when a job has ended, and not when nothing has."""
    folder = Path("sweep")
    done = {"figures": {"bit_accuracy": 0.75}, "version": "1"}
    job(folder / "a", done, "x=1")
    job(folder / "b", None, "x=2")
    sweep = ExitStack()
    sweep.enter_context(held(folder / LOCK, ""))
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            (folder / "b" / "results.json").write_text(json.dumps(done))
        if len(looks) == 3:
            sweep.close()

    monkeypatch.setattr("scalefp.cli.report.time.sleep", sleep)
    result = run("report", folder, "--watch", "7")
    assert result.code == 0, result.err
    assert looks == [7, 7, 7]
    pages = result.out.split("# sweep\n")[1:]
    assert [page.count("0.75") for page in pages] == [1, 2, 2]
    assert ["Not finished: 1 job; it is at work." in page for page in pages] == [True, False, False]


def test_evaluations_are_gathered_by_what_they_measured(run: Run) -> None:
    for keys, accuracy in ((10, 0.9), (100, 0.8)):
        results = {
            "model": {"digest": f"of {keys}"},
            "reading": [{"mean": accuracy}],
            "hiding": {"same_latent_two_keys": {"psnr": 30.0, "ssim": 0.9}},
            "features": None,
        }
        job(Path(f"evaluation/first/measure.keys={keys}"), results, f"measure.keys={keys}")
    result = run("report", "evaluation", "--json")
    assert result.code == 0, result.err
    assert result.json["metrics"] == ["bit_accuracy", "psnr"]
    means = [row["figures"]["bit_accuracy"]["mean"] for row in result.json["rows"]]
    assert [row["setting"]["measure.keys"] for row in result.json["rows"]] == [10, 100]
    assert means == [0.9, 0.8]
    assert [job["release"] for job in result.json["finished"]] == ["of 10", "of 100"]


def test_report_mistakes(run: Run, tmp_path: Path) -> None:
    Path("empty").mkdir()
    assert_mistake(run("report", "empty"), "empty holds no job of a sweep")
    assert_mistake(run("report", "nowhere"), "there is no folder nowhere")
    assert_mistake(run("train", "-m", "+study=nowhere"), "study/nowhere", "capacity")
    assert_mistake(run("train", "-m", "study=capacity"), "+study=capacity")


@pytest.mark.parametrize("study", sorted(path.stem for path in (conf_dir() / "study").iterdir()))
def test_every_study_is_composed(run: Run, study: str) -> None:
    """Each of its jobs with one seed, by the command that its file names."""
    text = (conf_dir() / "study" / f"{study}.yaml").read_text()
    command = f"scalefp train -m +study={study}"
    assert command in text and f"scalefp report runs/{study}" in text
    result = run(*command.split()[1:], "seed=0", "--cfg", "all")
    assert result.code == 0, result.err
    jobs = re.findall("^--- # job .*: (.*)$", result.out, re.MULTILINE)
    assert len({*jobs}) == len(jobs) > 1  # each has a folder of its own
    assert re.findall("^name: (.*)$", result.out, re.MULTILINE) == [study] * len(jobs)
    for words in ("question: ", "metrics:"):
        assert result.out.count(f"\n      {words}") == len(jobs)
