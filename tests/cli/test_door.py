"""The command line: its arguments, and its behaviour as a process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import scalefp
from cli.commands import subcommands
from conftest import Run, assert_mistake
from scalefp.cli import main
from scalefp.key import Key
from scalefp.release.model import Model

# Help and arguments.


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
        (["registry", "list", "--registry", "r", "x", "y"], ["2 arguments too many"]),
        (["instantiate", "--model", "m", "--out", "o"], ["--key", "--holder"]),
        (["instantiate", "--model", "m", "--out", "o", "--holder", "h"], ["--registry"]),
        (["sample", "--instance", "i", "--out", "o", "--num", "0"], ["--num", "from 1 to"]),
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


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from scalefp.cli.door import build_parser; build_parser(); "
        "print([name for name in ('numpy', 'torch', 'PIL', 'hydra', 'sqlalchemy') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
