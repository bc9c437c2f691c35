"""A training as a program: its run folder, and how signals stop it."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from scalefp.errors import UserError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def make_run_folder(path: str | Path) -> Path:
    """The folder of a run, with ``grids/`` in it for its pictures.

    Raises:
        UserError: it cannot be written to.
    """
    run_dir = Path(path)
    try:
        (run_dir / "grids").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to run folder {run_dir}: {error.strerror}.") from error
    return run_dir


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Within this, a signal to stop is only noted in the list: the current step can be saved."""
    signals: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    handlers = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield signals
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def stop(signals: Sequence[int], images: int, *, quiet: bool = False) -> NoReturn:
    """Leave a training that was saved at so many images, because of a signal.

    Args:
        signals: those noted here; empty if another process of the training got one.
    """
    if not quiet:
        print(
            f"Stopped and saved at {images} images; the same command goes on from there.",
            file=sys.stderr,
        )
    raise SystemExit(128 + (signals[0] if signals else signal.SIGTERM))
