"""A training as a program: its folder, and how signals stop it."""

import os
import signal

import pytest

from scalefp.errors import UserError
from scalefp.training.run import STOP_SIGNALS, caught_signals, make_run_folder, stop


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
