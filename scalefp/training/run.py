"""A training as a program: its run folder, how signals stop it, and its Hydra entry point."""

import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

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


def run_training(train: Callable[[Any, Path], dict[str, float]], options: DictConfig) -> float:
    """Train as Hydra's options say, in its folder, and print the path of the release.

    Returns:
        The bit accuracy, for sweepers.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    try:
        figures = train(OmegaConf.to_object(options), run_dir)
    except UserError as error:
        print(f"scalefp: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    if int(os.environ.get("RANK", "0")) == 0:
        print(run_dir / "release.safetensors")
    return figures.get("bit_accuracy", math.nan)
