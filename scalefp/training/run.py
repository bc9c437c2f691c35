"""A training as a program: its run folder, and how signals stop it."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from scalefp.errors import UserError
from scalefp.files import held

# Options of a model that decide how much memory its training takes.
WIDTHS = (
    "resolution", "channel_base", "channel_max", "embedding_width", "latent_dim", "encoder_width",
    "decoder_base", "decoder_max",
)  # fmt: skip
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
def locked(run_dir: Path, *, here: bool = True) -> Iterator[None]:
    """Keep other trainings out of a run folder; the lock is gone with the process, however it ends.

    Args:
        here: False in a process whose files another one writes.

    Raises:
        FolderTakenError: another training is at work in it.
    """
    if not here:
        yield
        return
    taken = f"another training is at work in {run_dir}: wait for its end, or choose another name="
    with held(run_dir / ".lock", taken):
        yield


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error is one of those that say so: Python's, CUDA's, and torch's on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


class TooLittleMemoryError(UserError):
    """What a training takes is more than there is."""


@contextmanager
def named_memory_errors(config: Any) -> Iterator[None]:
    """Within this, too little memory is a :class:`TooLittleMemoryError` that names what takes it.

    Args:
        config: options of the training.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not memory_ran_out(error):
            raise
        sizes = {f"model.{name}": getattr(config.model, name, None) for name in WIDTHS}
        takes = {"optimizer.batch": config.optimizer.batch, **sizes}
        named = ", ".join(f"{name}={value}" for name, value in takes.items() if value is not None)
        raise TooLittleMemoryError(
            f"there is too little memory for {named}: lower some of them, or raise run.accumulate"
        ) from error


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
