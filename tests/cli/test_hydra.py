"""The commands with Hydra: options composed, one job or a sweep of jobs, errors in a sentence."""

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hydra.errors import ConfigCompositionException

import scalefp
from conftest import Run, assert_mistake
from scalefp.cli import jobs
from scalefp.cli.mistakes import sentence
from scalefp.cli.overrides import quoted
from scalefp.config import conf_dir
from scalefp.files import held
from scalefp.release.readable import shortfall
from scalefp.training.generator import GeneratorTraining
from scalefp.training.run import locked

# Training and evaluation.

TINY = ["model=tiny", "model.resolution=16", "schedule.total_images=16", "optimizer.batch=8"]
FAST = ["run.tensorboard=false", "run.precision=fp32"]


def test_train_writes_a_release_that_loads(run: Run, images: list[Path]) -> None:
    result = run("train", *TINY, *FAST, f"data.source={images[0].parent}", "name=first", "seed=3")
    assert result.code == 0, result.err
    model = scalefp.load("runs/first/release.safetensors")
    assert model.config.resolution == 16
    # What it says at its end is what its release says whenever it is used.
    reached = model.training["reached"]
    assert f"{reached['bit_accuracy']:.1%} of all bits" in result.err
    assert str(shortfall(reached, model.config.n_bits)) in result.err
    config = Path("runs/first/.hydra/overrides.yaml").read_text()
    assert "seed=3" in config


IMPOSSIBLE = {
    "optimizer.learning_rate": ("-1", "nan", "inf"),
    "optimizer.beta1": ("1", "-0.1"),
    "optimizer.ema_images": ("nan",),
    "schedule.total_images": (str(10**30),),
    "run.threads": (str(10**6),),
    "seed": (str(2**65),),
    "data.source": ("", "/dev/zero", "no-such-folder"),
    "perturb": ("{sepia: 0.5}", "{jpeg: nan}"),
}
OF_GENERATORS = {
    "schedule.hide_psnr": ("nan", "0"),
    "model.channel_max": (str(10**9),),
    "model.mapping_layers": (str(10**5),),
}


@pytest.mark.parametrize(
    ("command", "impossible"),
    [(["train"], IMPOSSIBLE | OF_GENERATORS), (["artificial", "train"], IMPOSSIBLE)],
    ids=["generator", "marker"],
)
def test_options_that_cannot_work_leave_nothing_behind(
    run: Run, command: list[str], impossible: dict[str, tuple[str, ...]]
) -> None:
    for name, values in impossible.items():
        for value in values:
            result = run(*command, f"+{name}={value}" if name == "perturb" else f"{name}={value}")
            assert_mistake(result)
            assert name.rpartition(".")[2] in result.err or name in ("data.source", "perturb")
            assert list(Path().iterdir()) == [], (name, value)


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
    assert listed[0].startswith("1 job of this sweep failed") and len(listed) == 2
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


def test_what_may_not_run_in_a_folder_leaves_no_word_in_it(run: Run, images: list[Path]) -> None:
    """Neither in a finished training's nor in one at work, nor is the word that is there lost."""
    command = ["train", *TINY, *FAST, "name=s", f"data.source={images[0].parent}", "seed=1"]
    assert run(*command).code == 0
    note = Path("runs/s/error.txt")
    assert run(*command, "seed=2").code == 2 and not note.exists()
    with locked(Path("runs/s")):
        result = run(*command)
        assert result.code == 2 and "at work" in result.err and not note.exists()
        note.write_text("of the other one")
        assert run(*command).code == 2 and note.read_text() == "of the other one"
    assert run(*command).code == 0 and not note.exists()


def test_a_loss_that_is_not_finite_fails_its_job_alone(
    run: Run, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = GeneratorTraining.step

    def step(self: GeneratorTraining, precision: torch.dtype) -> dict[str, torch.Tensor]:
        terms = real(self, precision)
        return terms | {"bits": torch.tensor(math.nan)} if self.config.seed == 1 else terms

    monkeypatch.setattr(GeneratorTraining, "step", step)
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


def test_a_ray_cluster_of_two_workers_runs_a_sweep_and_says_what_failed(
    run: Run, images: list[Path]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="pip install hydra-ray-launcher")
    command = [
        *(sys.executable, "-m", "scalefp", "train", "-m", "hydra/launcher=ray", *TINY, *FAST),
        *("+hydra.launcher.ray.init.num_cpus=2", f"data.source={images[0].parent}", "name=s"),
        *("model.n_bits=4,8,16", "optimizer.learning_rate=0.001", "run.device=cpu"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "1 job of this sweep failed" in done.stderr
    assert "model.n_bits must lie between 8 and 512, not 4." in done.stderr
    assert sweep_names("runs/s") == {"model.n_bits=8", "model.n_bits=16"}


def test_an_unforeseen_error_leaves_its_traceback_in_the_folder(
    run: Run, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(options: object) -> float:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(jobs, "train_job", broken)
    result = run("train", "-m", *TINY, *FAST, "name=s", "seed=1,2")
    assert result.code == 2 and "2 jobs of this sweep failed" in result.err
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
        (["seed=1,2"], ["seed=1,2", "needs -m"]),
        (["perturb.jpeg=0.3"], ["no perturb.jpeg yet", "+perturb.jpeg="]),
        (["+model.n_bitz=3"], ["no option model.n_bitz", "model.n_bits?"]),
        (["model.n_bits={a:1}"], ["model.n_bits", "Integer"]),
        (["model.n_bits=null"], ["model.n_bits", "Optional"]),
        (["~model.n_bits"], ["~model.n_bits", "deletion"]),
        (["=3"], []),
        (["'a="], ["'a=", "name=value"]),
        (["name=${"], ["name"]),
        (["seed=${seed}"], ["Recursive"]),
        (["hydra=3"], []),
        (["hydra.run.dir=${x}"], ["'x'"]),
        (["hydra.launcher=3", "-m", "seed=1,2"], []),
        (["+hydra.callbacks.a._target_=no.such"], ["no.such"]),
        (["-m", "seed=interval(1,2)"], ["INTERVAL"]),
        (["-m", "hydra/sweeper=nevergrad", "seed=1"], ["pip install 'hydra-nevergrad-sweeper'"]),
        pytest.param(
            ["-m", "hydra/launcher=ray", "seed=1"],
            ["pip install 'hydra-ray-launcher'"],
            marks=pytest.mark.skipif(find_spec("ray") is not None, reason="it may be installed"),
        ),
        (["--config-dir", "nowhere"], ["nowhere", "no folder"]),
        (["--resolve"], ["--cfg job"]),
        (["--cfg", "job", "-p", "nothing"], ["no nothing among"]),
        (["--cfg", "job", "--info"], ["give one"]),
        (["--info", "-m"], ["leave -m out"]),
        (["-sc", "install=fish"], ["install=bash"]),
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


def test_an_experiment_file_chooses_the_launcher(run: Run) -> None:
    experiment = Path("mine/experiment/side_by_side.yaml")
    experiment.parent.mkdir(parents=True)
    experiment.write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/launcher: joblib\n  - _self_\n"
    )
    words = ["train", "-m", "--config-dir", "mine", "experiment=side_by_side", "seed=1,2"]
    result = run(*words, "--cfg", "hydra", "--package", "hydra.launcher")
    assert result.code == 0 and result.out.count("JoblibLauncher\n") == 2  # for each job


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of a user's own experiment files, of which some are broken."""
    folder = tmp_path / "own" / "experiment"
    folder.mkdir(parents=True)
    for name, text in {
        "good": "# @package _global_\nname: good\nseed: 5\n",
        "broken": "a: [1\nb: 2\n",
        "list": "- 1\n- 2\n",
        "unknown": "# @package _global_\ndefaults:\n  - override /model: nosuch\n",
        "deep": "# @package _global_\nmodel:\n  n_bits: many\n",
        "variable": "# @package _global_\nname: ${oc.env:NO_SUCH}\n",
        "study": "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n"
        "      seed: a,b\n",
    }.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder.parent


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", ["broken.yaml", "line 2", "YAML"]),
        ("list", ["experiment/list"]),
        ("unknown", ["model/nosuch", "emoji, pixels256, published, small, tiny"]),
        ("deep", ["many", "Integer"]),
        ("variable", ["NO_SUCH"]),
        ("study", ["seed=a", "Integer"]),
        ("missing", ["experiment/missing", "good"]),
    ],
)
def test_broken_experiment_files_of_ones_own(
    run: Run, own: Path, name: str, words: list[str]
) -> None:
    assert_mistake(run("train", "--config-dir", own, f"experiment={name}"), *words)


def test_an_experiment_file_of_ones_own(run: Run, own: Path) -> None:
    look = ("--cfg", "job", "--package", "seed")
    result = run("train", "--config-dir", own, "experiment=good", *look)
    assert (result.code, result.out) == (0, "5\n")
    result = run("train", "--config-dir", own, "experiment=good", "--info", "searchpath")
    assert result.code == 0 and str(own) in result.out
    assert os.listdir() == []


def test_a_file_that_one_of_the_packages_own_would_hide_is_named(run: Run, own: Path) -> None:
    look = ("train", "--config-dir", own, "experiment=faces", "--cfg", "job", "-p", "model")
    shipped = conf_dir() / "experiment" / "faces.yaml"
    (own / "experiment" / "faces.yaml").write_bytes(shipped.read_bytes())
    assert run(*look).code == 0  # which of two equal files is read makes no difference
    (own / "experiment" / "faces.yaml").write_text("# @package _global_\nseed: 5\n")
    assert_mistake(run(*look), "faces.yaml would never be read", "another name")


def test_cfg_of_a_sweep_shows_every_job(run: Run) -> None:
    result = run("train", "-m", "model=tiny", "seed=1,2", "--cfg", "job", "-p", "seed")
    assert result.code == 0
    assert result.out == "--- # job 1 of 2: seed=1\n1\n--- # job 2 of 2: seed=2\n2\n"


def test_resolve_shows_values(run: Run) -> None:
    command = ("train", "name=here", "--cfg", "hydra", "-p", "hydra.run")
    assert "dir: runs/${name}" in run(*command).out
    assert "dir: runs/here" in run(*command, "--resolve").out


def test_info_shows_where_options_come_from(run: Run) -> None:
    result = run("train", "--info", "defaults-tree", "experiment=tiny")
    assert result.code == 0 and "experiment: tiny" in result.out


# Completion.


@pytest.mark.parametrize(
    ("line", "found", "not_found"),
    [
        ("scalefp tr", ["train", "evaluate"], ["issue"]),
        ("scalefp registry ", ["issue", "list"], ["train"]),
        ("scalefp train experiment=", ["experiment=tiny", "experiment=emoji"], ["experiment=good"]),
        ("scalefp train --config-dir OWN experiment=g", ["experiment=good"], ["experiment=tiny"]),
        ("scalefp train -m model.n_", ["model.n_bits="], []),
        ("scalefp train ", ["experiment=", "seed=", "loss."], ["checkpoint="]),
        ("scalefp artificial train mar", ["marker="], []),
        ("scalefp evaluate measure=", ["measure=quick"], []),
    ],
)
def test_completion_knows_commands_and_options(
    run: Run, own: Path, monkeypatch: pytest.MonkeyPatch,
    line: str, found: list[str], not_found: list[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("COMP_LINE", line.replace("OWN", str(own)))
    result = run("train", "-sc", "query=bash")
    assert result.code == 0
    assert {*found} <= {*result.out.split()}
    assert not {*not_found} & {*result.out.split()}


def test_bash_completes_by_the_installed_script(run: Run, tmp_path: Path) -> None:
    script = run("train", "-sc", "install=bash").out
    tool = tmp_path / "bin" / "scalefp"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m scalefp "$@"\n')
    tool.chmod(0o755)
    line = "scalefp train experiment=fi"
    ask = f'COMP_LINE="{line}" COMP_POINT={len(line)}; _scalefp; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True,
        env={**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("fidelity\n", "")


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
    (page,) = Path("evaluation").glob("random-*/results.md")
    assert f"results in {page.parent.absolute()}" in result.err
    written = json.loads((page.parent / "results.json").read_text())
    assert page.read_text().strip() == result.out.strip()
    assert written["config"]["keys"] == 2
    assert str(release) not in json.dumps(written)  # results are published

    # A run's release is named after its folder; paths of sweeps hold what Hydra would read.
    swept = Path("runs/seed=1,model=tiny/release.safetensors")
    swept.parent.mkdir(parents=True)
    swept.write_bytes(release.read_bytes())
    result = run("evaluate", f"checkpoint={swept}", *arguments[1:], "--json")
    assert result.json["reading"] == written["reading"]
    assert Path("evaluation/seed=1,model=tiny/results.json").exists()
    assert run("evaluate", *arguments, "out=elsewhere").code == 0
    assert Path("elsewhere/results.md").exists()

    # Into a folder of something else it writes nothing, and where one is at work no second one.
    before = [path.read_bytes() for path in swept.parent.iterdir()]
    result = run("evaluate", *arguments, f"out={quoted(str(swept.parent))}")
    assert_mistake(result, "runs/seed=1,model=tiny holds other files", "out=")
    assert [path.read_bytes() for path in swept.parent.iterdir()] == before
    with held(Path("elsewhere/.lock"), ""):
        assert_mistake(run("evaluate", *arguments, "out=elsewhere"), "is at work in", "elsewhere")
    assert not Path("elsewhere/error.txt").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], ["checkpoint="]),
        (["checkpoint=missing"], ["missing"]),
        (["checkpoint=RELEASE", "measure.keys=1"], ["measure.keys must be at least 2, not 1"]),
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
