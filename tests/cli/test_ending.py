"""How commands end: exit codes, one sentence for everything, interruption, output that is lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import scalefp
from cli.commands import parsers
from conftest import HOLDERS, Run, assert_mistake
from scalefp.cli.output import without_keys
from scalefp.errors import UserError
from scalefp.key import Key

# What was not foreseen.


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("a sentence"), 2, ["scalefp: a sentence\n"]),
        (FileNotFoundError(2, "No such file", "x\n.png"), 2, ["scalefp: x\\n.png: No such file\n"]),
        (OSError(28, "No space left on device"), 2, ["scalefp: No space left on device\n"]),
        (OSError(), 2, ["scalefp: OSError\n"]),
        (MemoryError(), 3, ["the memory is not enough"]),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 3, ["memory is not enough"]),
        (RecursionError("maximum depth"), 3, ["not foreseen (RecursionError: maximum depth)"]),
        (KeyError("gone"), 3, ["not foreseen (KeyError: 'gone')", "SCALEFP_DEBUG=1"]),
        (AssertionError(), 3, ["not foreseen (AssertionError)"]),
        (ValueError("two\nlines\x1b[31m"), 3, ["ValueError: two lines\\x1b[31m"]),
        (KeyboardInterrupt(), 130, []),
        (BrokenPipeError(), 141, []),
    ],
    ids=repr,
)
def test_whatever_is_raised_ends_in_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: list[str]
) -> None:
    def fail(self: object) -> None:
        raise error

    monkeypatch.setattr(scalefp.Registry, "list", fail)
    monkeypatch.delenv("SCALEFP_DEBUG", raising=False)
    result = run("registry", "list", "--registry", "keys.db")
    assert (result.code, result.out) == (code, "")
    assert result.err.count("\n") == (1 if words else 0)
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


def test_the_traceback_is_there_for_who_asks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    key = str(Key.random())

    def fail(self: object) -> None:
        raise KeyError(key)

    monkeypatch.setattr(scalefp.Registry, "list", fail)
    monkeypatch.setenv("SCALEFP_DEBUG", "1")
    result = run("registry", "list", "--registry", "keys.db")
    assert result.code == 3
    assert result.err.startswith("Traceback") and "in fail\n" in result.err
    assert key not in result.err


# Processes.


def scalefp_process(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scalefp", *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen(command, **options)


@pytest.mark.parametrize("swallowed", [False, True], ids=["raised", "turned into another error"])
@pytest.mark.parametrize("module", ["argparse", "sqlalchemy"])
def test_ctrl_c_while_modules_are_imported(tmp_path: Path, module: str, swallowed: bool) -> None:
    fake = "import os, signal\n"
    fake += "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    [None for _ in range(10**6)]\n"
    fake += f"except BaseException as error:\n    raise {'ImportError()' if swallowed else ''}\n"
    (tmp_path / f"{module}.py").write_text(fake)
    process = scalefp_process(
        "registry", "list", "--registry", "keys.db",
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert (*process.communicate(), process.returncode) == ("", "", 130)


def test_ctrl_c_in_a_finalizer_is_not_lost() -> None:
    script = """
import signal, scalefp
from scalefp.cli import main

class Final:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def list_keys(self):
    final = Final()
    del final
    print("the interruption was lost")

scalefp.Registry.list = list_keys
main(["registry", "list", "--registry", "keys.db"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_is_left_to_the_caller_afterwards(run: Run) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert run("registry", "list", "--registry", "missing.db").code == 2
    assert signal.getsignal(signal.SIGINT) is before


def in_shell(redirection: str, *arguments: object) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "scalefp", *map(str, arguments)]
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *command], capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_closed_output_is_refused_before_anything_is_done(registry: Path, release: Path) -> None:
    arguments = ["registry", "issue", "new", "--registry", registry, "--model", release]
    code, out, err = in_shell(">&-", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("scalefp: standard output is closed") and err.count("\n") == 1
    assert len(scalefp.Registry(registry)) == len(HOLDERS)


def test_closed_errors_do_not_end_in_the_result(registry: Path) -> None:
    listing = ["registry", "list", "--registry"]
    assert in_shell("2>&-", *listing, "missing.db") == (2, "", "")
    code, out, _ = in_shell("<&- 2>&-", *listing, registry, "--names")
    assert (code, out.split()) == (0, list(HOLDERS))


FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
LOST = "could not be written to standard output (No space left on device)"


@FULL
@pytest.mark.parametrize("command", [["--help"], ["registry", "list", "--registry", "REGISTRY"]])
def test_a_full_disk_behind_the_output_is_said(registry: Path, command: list[str]) -> None:
    command = [str(registry) if word == "REGISTRY" else word for word in command]
    assert in_shell("> /dev/full", *command) == (2, "", f"scalefp: the result {LOST}\n")


def full_disk() -> Any:
    return os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")


def broken_pipe() -> Any:
    read_end, write_end = os.pipe()
    os.close(read_end)
    return os.fdopen(write_end, "w")


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        pytest.param(full_disk, 2, f"but the result {LOST}", marks=FULL),
        (broken_pipe, 141, "though nobody read the result"),
    ],
    ids=["full", "pipe"],
)
def test_a_key_whose_output_was_lost_is_said_to_be_issued(
    run: Run, registry: Path, release: Path, monkeypatch: pytest.MonkeyPatch,
    output: Callable[[], Any], code: int, words: str,
) -> None:  # fmt: skip
    with output() as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        result = run("registry", "issue", "new", "--registry", registry, "--model", release)
    assert result.code == code
    done = "a key was issued to new and is in the registry"
    assert result.err == f"scalefp: {done}, {words}\n"
    assert scalefp.Registry(registry).find("new")


# Names and keys in what is printed.


FORGED = "a.png: nobody\nevidence.png: bob (p = 8.8e-39, 128 of 128 bits)"
HOSTILE = [FORGED, "\x1b[2Jclear.png", "\u202egnp.live.png", os.fsdecode(b"\xff\xfe.png")]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_no_file_name_forges_a_line(
    run: Run, release: Path, registry: Path, images: list[Path], name: str
) -> None:
    path = images[0].with_name(name)
    path.write_bytes(images[0].read_bytes())
    for command in (["decode"], ["attribute", "--registry", registry]):
        result = run(*command, "--model", release, path)
        assert result.code == (0 if command == ["decode"] else 1), result.err
        (line,) = [line for line in result.out.splitlines() if str(images[0].parent) in line]
        assert line.isprintable() and line.isascii()
        assert run(*command, "--model", release, path, "--json").out.isascii()
    path.write_bytes(b"not an image")
    result = run("decode", "--model", release, path)
    assert_mistake(result)
    assert result.err.rstrip("\n").isprintable()


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_files_of_any_name_are_written_and_read(run: Run, release: Path, name: str) -> None:
    key = Key.random()
    made = run("instantiate", "--model", release, "--key", key, "--out", name)
    assert made.code == 0, made.err
    assert made.out.count("\n") == 1 and made.out.rstrip("\n").isprintable()
    assert os.listdir() == [name]
    sampled = run("sample", "--instance", name, "--out", f"{name}.d", "--num", "1")
    assert sampled.code == 0, sampled.err
    assert os.listdir(f"{name}.d") == ["0000.png"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no key: 00112233445566778899aabbccddeeff!", "no key: 0011\u2026!"),
        ("'00112233445566778899AABBCCDDEEF'", "'0011\u2026'"),  # one digit too few
        ("--kye=0123456789abcdexfghijk", "--kye=0123456789abcdexfghijk"),  # a word
        ("001122334455667g8899aabbccddeeff", "0011\u2026"),  # mistyped
        ("0x00112233445566778899aabbccddeeff", "0x00\u2026"),
        ("runs/0123456789abcde/x", "runs/0123456789abcde/x"),  # 15 digits
        ("a deed of beef", "a deed of beef"),
    ],
)
def test_what_looks_like_a_key_is_cut(text: str, shown: str) -> None:
    assert without_keys(text) == shown


def key_places() -> list[list[str]]:
    """Every command with a key, KEY, as a stray argument, as an option, and as each value."""
    places = []
    for command, parser in parsers().items():
        places += [[*command, "KEY"], [*command, "KEY", "KEY"], [*command, "--kye=KEY"]]
        places += [[*command, "--KEY"], [*command, "--json=KEY"]]
        places += [
            [*command, action.option_strings[-1], "KEY"]
            for action in parser._actions
            if action.option_strings and action.nargs != 0
        ]
    return places


@pytest.mark.parametrize("arguments", key_places(), ids=" ".join)
def test_no_mistake_repeats_a_key(arguments: list[str], run: Run) -> None:
    key = "00112233445566778899aabbccddeeff"
    result = run(*(word.replace("KEY", key) for word in arguments))
    assert result.code == 2
    assert key not in result.out + result.err


def test_where_a_word_of_the_command_line_is_wrong_a_short_key_is_cut_too(run: Run) -> None:
    for arguments in (["DEADBEEF"], ["registry", "DEADBEEF"], ["sample", "--num", "DEADBEEF"]):
        result = run(*arguments)
        assert_mistake(result, "'DEAD\u2026'")
        assert "DEADB" not in result.err
