"""A training as a program: its folder, and how signals stop it."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from scalefp.config import TrainConfig
from scalefp.errors import UserError
from scalefp.training.run import (
    STOP_SIGNALS,
    caught_signals,
    locked,
    make_run_folder,
    named_memory_errors,
    stop,
)


def test_a_run_folder_is_made_once_and_found_again(tmp_path):
    run_dir = make_run_folder(str(tmp_path / "runs" / "a"))
    (run_dir / "grids" / "kept.png").touch()
    assert make_run_folder(run_dir) == run_dir
    assert (run_dir / "grids" / "kept.png").exists()


def test_a_run_folder_that_cannot_be_is_a_user_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Cannot write to run folder .*file"):
        make_run_folder(tmp_path / "file")


def test_signals_are_noted_in_their_order_and_the_handlers_come_back():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with pytest.raises(RuntimeError), caught_signals() as signals:
        for number in STOP_SIGNALS:
            os.kill(os.getpid(), number)
        assert signals == list(STOP_SIGNALS)
        raise RuntimeError  # whatever ends the training
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


@pytest.mark.parametrize(
    ("signals", "code"),
    [([signal.SIGINT, signal.SIGTERM], 130), ([signal.SIGTERM], 143), ([], 143)],
)
def test_a_stopped_training_says_where_it_stands_and_exits_by_its_first_signal(
    capsys, signals, code
):
    for quiet in (False, True):
        with pytest.raises(SystemExit) as stopped:
            stop(signals, 640, quiet=quiet)
        assert stopped.value.code == code
        assert ("640 images" in capsys.readouterr().err) is not quiet


HOLD = """
import sys, time
from pathlib import Path
from scalefp.training.run import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_second_training_in_a_folder_is_refused_until_the_first_is_gone(tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="another training is at work in"), locked(tmp_path):
            pass
        with locked(tmp_path, here=False):  # a process that writes nothing needs no lock
            pass
    finally:
        first.kill()
        first.wait()
    with locked(tmp_path):  # killed, and nothing to clear away
        pass


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_is_said_with_what_takes_it(error):
    with (
        pytest.raises(UserError, match=r"too little memory.*optimizer\.batch=32.*channel_max=128"),
        named_memory_errors(TrainConfig()),
    ):
        raise error


def test_torch_says_so_when_memory_runs_out():
    """The words that are looked for are torch's."""
    with pytest.raises(UserError, match="too little memory"), named_memory_errors(TrainConfig()):
        torch.empty(2**55)


def test_other_errors_are_left_alone():
    with pytest.raises(RuntimeError, match="shapes"), named_memory_errors(TrainConfig()):
        raise RuntimeError("shapes differ")
