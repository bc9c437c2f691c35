"""The command line: its arguments, its two Hydra commands, and its behaviour as a process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import scalefp
from conftest import Run, assert_mistake
from scalefp.cli.door import build_parser, main
from scalefp.cli.hydra import hydra_sentence
from scalefp.key import Key
from scalefp.release.model import Model

# Help and arguments.


def subcommands() -> list[list[str]]:
    """Every command and every action, found in the parser itself."""
    found: list[list[str]] = [[]]

    def visit(parser: Any, path: list[str]) -> None:
        for action in parser._actions:
            if isinstance(action.choices, dict):
                for name, child in action.choices.items():
                    found.append([*path, name])
                    visit(child, [*path, name])

    visit(build_parser(), [])
    return found


def test_the_contract_names_these_subcommands() -> None:
    names = {" ".join(path) for path in subcommands()}
    assert {"train", "evaluate", "instantiate", "sample", "decode", "attribute"} < names
    assert {f"registry {action}" for action in ("issue", "list", "show", "revoke")} < names
    assert "data prepare" in names


@pytest.mark.parametrize("command", subcommands(), ids=" ".join)
def test_help_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    usage, _, example = capsys.readouterr().out.partition("example:\n")
    assert usage.startswith(f"usage: {' '.join(['scalefp', *command])}")
    assert example.strip().startswith("scalefp")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"scalefp {scalefp.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["COMMAND", "scalefp --help"]),
        (["decod"], ["decod", "decode"]),
        (["decode"], ["--model", "IMAGE", "scalefp decode --help"]),
        (["decode", "--model", "m", "a.png", "--batch", "3"], ["--batch"]),
        (["registry"], ["ACTION"]),
        (["registry", "list"], ["--registry"]),
        (["registry", "list", "--registry", "r", "x", "y"], ["2 argument(s) too many"]),
        (["instantiate", "--model", "m", "--out", "o"], ["--key", "--holder"]),
        (["instantiate", "--model", "m", "--out", "o", "--holder", "h"], ["--registry"]),
        (["sample", "--instance", "i", "--out", "o", "--num", "0"], ["--num", "above 0"]),
        (["sample", "--instance", "i", "--out", "o", "--num", "x"], ["--num"]),
        (["sample", "--instance", "i", "--out", "o", "--seed", "-1"], ["--seed"]),
        (["sample", "--instance", "i", "--out", "o", "--seed", str(2**63)], ["--seed"]),
        (["attribute", "--model", "m", "--registry", "r", "a", "--fpr", "1"], ["--fpr"]),
        (["attribute", "--model", "m", "--registry", "r", "a", "--fpr", "nan"], ["--fpr"]),
        (["data", "prepare", "s", "--out", "z"], ["--resolution"]),
    ],
    ids=" ".join,
)
def test_wrong_arguments(run: Run, arguments: list[str], words: list[str]) -> None:
    assert_mistake(run(*arguments), *words)


def test_a_key_behind_a_misspelled_option_is_not_repeated(run: Run, release: Path) -> None:
    key = str(Key.random())
    for wrong in ([f"--kye={key}"], ["--kye", key], [key]):
        result = run("instantiate", "--model", release, "--out", "o", "--holder", "h", *wrong)
        assert_mistake(result)
        assert key not in result.err


def test_public_names_are_all_there() -> None:
    for name in scalefp.__all__:
        assert getattr(scalefp, name) is not None
        assert name in dir(scalefp)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = scalefp.nonsense


# Training and evaluation.

TINY = ["model=tiny", "model.resolution=16", "schedule.total_images=16", "optimizer.batch=8"]
FAST = ["run.tensorboard=false", "run.precision=fp32"]


def test_train_writes_a_release_that_loads(run: Run, images: list[Path]) -> None:
    result = run("train", *TINY, *FAST, f"data.source={images[0].parent}", "name=first", "seed=3")
    assert result.code == 0, result.err
    assert scalefp.load("runs/first/release.safetensors").config.resolution == 16
    config = Path("runs/first/.hydra/overrides.yaml").read_text()
    assert "seed=3" in config


def test_train_sweeps(run: Run, images: list[Path]) -> None:
    result = run(
        "train", *TINY, "-m", *FAST, f"data.source={images[0].parent}", "name=s",
        "hydra.job.config.override_dirname.exclude_keys=[model,data.source,run.tensorboard,"
        "run.precision,name,model.resolution,schedule.total_images,optimizer.batch]", "seed=1,2",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert {path.parent.name for path in Path("runs/s").glob("*/release.safetensors")} == {
        "seed=1",
        "seed=2",
    }


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


def test_hydra_errors_without_options_keep_their_first_line() -> None:
    assert hydra_sentence(ValueError("first.\nsecond")) == "first"


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


# The process.


def test_interruption_is_exit_code_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scalefp.Registry, "list", interrupt)
    assert run("registry", "list", "--registry", "keys.db") == (130, "", "")


def test_a_reader_that_leaves_early_is_no_error(registry: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "scalefp.cli", "registry", "list", "--registry", registry],
            stdout=pipe, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, "")


def test_the_installed_entry_decodes_from_any_folder(
    release: Path, model: Model, images: list[Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "scalefp.cli", "decode", "--model", release, images[0]]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["key"] == str(model.decode(images[0]).key)
    command = [sys.executable, "-m", "scalefp.cli", "registry", "list", "--registry", "missing.db"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("scalefp: there is no registry at missing.db")
