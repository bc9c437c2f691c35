"""The commands with Hydra: options composed, one job or a sweep of jobs, errors in a sentence."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import ConfigCompositionException

import scalefp
from conftest import Run, assert_mistake
from scalefp.cli import jobs
from scalefp.cli.mistakes import sentence
from scalefp.config import TrainConfig
from scalefp.training import generator

# Training and evaluation.

TINY = ["model=tiny", "model.resolution=16", "schedule.total_images=16", "optimizer.batch=8"]
FAST = ["run.tensorboard=false", "run.precision=fp32"]


def test_train_writes_a_release_that_loads(run: Run, images: list[Path]) -> None:
    result = run("train", *TINY, *FAST, f"data.source={images[0].parent}", "name=first", "seed=3")
    assert result.code == 0, result.err
    assert scalefp.load("runs/first/release.safetensors").config.resolution == 16
    config = Path("runs/first/.hydra/overrides.yaml").read_text()
    assert "seed=3" in config


def sweep_names(root: str) -> set[str]:
    return {path.parent.name for path in Path(root).glob("*/release.safetensors")}


LAUNCHERS = ["basic", "joblib"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_job_that_fails_ends_no_sweep(run: Run, images: list[Path], launcher: str) -> None:
    """The others run, what failed is listed, and the same command runs only what is missing."""
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    command = [
        "train", "-m", f"hydra/launcher={launcher}", *TINY, *FAST, "name=s",
        f"data.source={images[0].parent}", "model.n_bits=4,8,16", "optimizer.learning_rate=0.001",
    ]  # fmt: skip
    result = run(*command)
    assert result.code == 2, result.err
    failed = Path("runs/s/model.n_bits=4").absolute()
    sentence = "model.n_bits must lie between 8 and 512, not 4."
    listed = result.err.rpartition("scalefp: ")[2].splitlines()
    assert listed[0].startswith("1 job(s) of this sweep failed") and len(listed) == 2
    assert listed[1].strip() == f"{failed}: {sentence}"
    assert "Traceback" not in result.err
    assert (failed / "error.txt").read_text() == f"{sentence}\n"
    assert sentence in (failed / "train.log").read_text()
    assert Path("runs/s/failures.txt").read_text() == f"{failed}: {sentence}\n"
    made = [Path(f"runs/s/model.n_bits={n}/release.safetensors") for n in (8, 16)]
    assert not list(failed.glob("*.safetensors"))
    if launcher == "basic":  # other processes print past pytest
        assert result.out.splitlines() == [str(path.absolute()) for path in made]
        written = [path.stat().st_mtime_ns for path in made]
        # What names no run may change.
        again = run(*[text.replace("4,8", "8") for text in command], "run.log_steps=7")
        assert again.code == 0, again.err
        assert [path.stat().st_mtime_ns for path in made] == written  # not made again
        assert not Path("runs/s/failures.txt").exists()


def test_a_loss_that_is_not_finite_fails_its_job_alone(
    run: Run, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = generator.step

    def step(config: TrainConfig, *others: Any) -> dict[str, float]:
        terms = real(config, *others)
        return terms | {"bits": math.nan} if config.seed == 1 else terms

    monkeypatch.setattr(generator, "step", step)
    result = run(
        "train", "-m", *TINY, *FAST, f"data.source={images[0].parent}", "name=s", "seed=1,2"
    )
    assert result.code == 2
    assert sweep_names("runs/s") == {"seed=2"}
    assert "became" in Path("runs/s/seed=1/error.txt").read_text()


def test_a_sweep_without_failures_is_exit_code_0_in_other_processes_too(
    run: Run, images: list[Path]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    command = [
        *(sys.executable, "-m", "scalefp", "train", "-m", "hydra/launcher=joblib", *TINY, *FAST),
        *(f"data.source={images[0].parent}", "name=s", "seed=1,2", "run.device=cpu"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    releases = [Path(f"runs/s/seed={seed}/release.safetensors").absolute() for seed in (1, 2)]
    assert sorted(done.stdout.splitlines()) == list(map(str, releases))


def test_an_unforeseen_error_leaves_its_traceback_in_the_folder(
    run: Run, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(options: object) -> float:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(jobs, "train_job", broken)
    result = run("train", "-m", *TINY, *FAST, "name=s", "seed=1,2")
    assert result.code == 2 and "2 job(s) of this sweep failed" in result.err
    note = Path("runs/s/seed=2/error.txt").read_text()
    assert note.startswith("RuntimeError: out of memory\n") and "in broken" in note


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.n_bitz=3"], ["model.n_bitz", "--cfg job"]),
        (["model.n_bits=abc"], ["model.n_bits=abc", "Integer"]),
        (["model.n_bits=3"], ["model.n_bits", "8 and 512"]),
        (["model.resolution=20"], ["model.resolution", "16, 32, 64, 128, 256"]),
        (["experiment=none"], ["experiment/none", "tiny"]),
        (["seed"], ["'seed'", "name=value"]),
        (["seed=1,2"], ["seed=1,2"]),
        (["-m", "seed=a,b"], ["seed=a", "Integer"]),
        (["optimizer.batch=3"], ["optimizer.batch"]),
        (["run.device=tpu"], ["run.device", "tpu"]),
        (["name=${missing}"], ["missing"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_train_mistakes(run: Run, overrides: list[str], words: list[str]) -> None:
    assert_mistake(run("train", *overrides), *words)
    assert "-m" in overrides or os.listdir() == []
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_train_names_missing_data(run: Run) -> None:
    assert_mistake(run("train", *TINY, *FAST, "data.source=missing"), "missing")


def test_train_into_an_unwritable_folder(run: Run) -> None:
    Path("runs").touch()
    assert_mistake(run("train", *TINY, *FAST, "name=first"), "runs")


def test_cfg_prints_the_configuration_and_trains_nothing(run: Run) -> None:
    result = run("train", "--cfg", "job", "model=tiny", "seed=7")
    assert result.code == 0
    assert "seed: 7" in result.out
    assert os.listdir() == []


def test_errors_keep_their_first_line_and_their_cause() -> None:
    assert sentence(ValueError("first.\nsecond")) == "first"
    error = ConfigCompositionException()
    error.__cause__ = ValueError("why\nmore")
    assert sentence(error) == "why"


EVALUATION = [
    "measure=quick", "measure.features=none", "measure.unrelated_images=4",
    "measure.perturbations=[flip]", "measure.tamperings=[]",
]  # fmt: skip


def test_evaluate_writes_and_prints_results(run: Run, release: Path, images: list[Path]) -> None:
    arguments = [f"checkpoint={release}", *EVALUATION, f"measure.data={images[0].parent}"]
    result = run("evaluate", *arguments)
    assert result.code == 0, result.err
    assert result.out.startswith("# Evaluation")
    written = json.loads(Path("evaluation/random/results.json").read_text())
    assert Path("evaluation/random/results.md").read_text().strip() == result.out.strip()
    assert written["config"]["keys"] == 2
    assert str(release) not in json.dumps(written)  # results are published

    # A release is named after its run's folder; paths of sweeps hold what Hydra would read.
    swept = Path("runs/seed=1,model=tiny/release.safetensors")
    swept.parent.mkdir(parents=True)
    swept.write_bytes(release.read_bytes())
    result = run("evaluate", f"checkpoint={swept}", *arguments[1:], "--json")
    assert result.json["reading"] == written["reading"]
    assert Path("evaluation/seed=1,model=tiny/results.json").exists()
    assert run("evaluate", *arguments, "out=elsewhere").code == 0
    assert Path("elsewhere/results.md").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], ["checkpoint="]),
        (["checkpoint=missing"], ["missing"]),
        (["checkpoint=RELEASE", "measure.keys=1"], ["keys", "at least 2"]),
        (["checkpoint=RELEASE", "measure.keyz=1"], ["keyz"]),
        (["checkpoint=RELEASE", "measure.fpr=2"], ["fpr"]),
        (["checkpoint=RELEASE", "show=html"], ["show", "markdown"]),
        (["checkpoint=RELEASE", "threads=0"], ["threads"]),
        (["RELEASE"], ["name=value"]),
    ],
    ids=" ".join,
)
def test_evaluate_mistakes(run: Run, release: Path, overrides: list[str], words: list[str]) -> None:
    overrides = [text.replace("RELEASE", str(release)) for text in overrides]
    assert_mistake(run("evaluate", *overrides), *words)
    assert os.listdir() == []
