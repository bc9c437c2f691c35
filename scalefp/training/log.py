"""What a training writes down as it goes: log, pictures, TensorBoard, and what must not go on."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import Tensor

from scalefp.data.images import grid, save_png
from scalefp.errors import UserError
from scalefp.files import atomic_path
from scalefp.training.distributed import World
from scalefp.training.means import Means

REACHED = ("evidence", "bit_accuracy", "psnr")  # figures that order runs as their user would


def check_finite(terms: dict[str, float], images: int) -> None:
    """Raise :class:`UserError` naming the first term that is not finite."""
    for name, value in terms.items():
        if not math.isfinite(value):
            raise UserError(
                f"The loss term {name!r} became {value} after {images} images; the last "
                "checkpoint is kept. Lower optimizer.learning_rate or that term's weight."
            )


def trim_log(log: Path, images: int) -> dict[str, float]:
    """Drop what an interrupted run logged past its checkpoint; the last figures that remain."""
    lines = log.read_text().splitlines() if log.exists() else []
    kept = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # cut off when the process was killed
            break
        if record["images"] > images:
            break
        kept.append(record)
    if len(kept) < len(lines):
        with atomic_path(log) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
    return kept[-1] if kept else {}


def open_tensorboard(run_dir: Path, images: int) -> Any:
    """A TensorBoard writer that drops what an interrupted run wrote past its checkpoint."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import, not always wanted

    return SummaryWriter(str(run_dir), purge_step=images)


class TrainingLog:
    """``log.jsonl`` and ``grids/`` of a run folder, and the same as TensorBoard events.

    A context, which closes the events at its end.

    Attributes:
        figures: the last line of the log.
    """

    def __init__(
        self, run_dir: Path, images: int, *, tensorboard: bool, writes: bool = True
    ) -> None:
        """Go on where a run stands that has seen so many images.

        Args:
            writes: False in a process whose files another one writes; it only adds up.
        """
        self.figures: dict[str, float] = {}
        self._reached = images
        self._writes, self._run_dir, self._events = writes, run_dir, None
        if writes:
            self.figures = trim_log(run_dir / "log.jsonl", images)
            self._events = open_tensorboard(run_dir, images) if tensorboard else None
        self._begin_line()

    def _begin_line(self) -> None:
        self._terms = Means()
        self._images, self._since = 0, time.monotonic()

    def add(self, terms: Mapping[str, Tensor], images: int) -> None:
        """Account for one step on so many images; nothing waits for the device."""
        self._terms.add(terms)
        self._images += images

    def means(self, world: World) -> dict[str, float]:
        """Mean of each term over the steps since the last line that had it, and over processes.

        Raises:
            UserError: one is not finite.
        """
        means = self._terms.read(world)
        check_finite(means, self._reached + self._images)
        return means

    def images_per_second(self) -> float:
        """Speed since the last line."""
        return self._images / max(time.monotonic() - self._since, 1e-9)

    def write(self, figures: dict[str, float]) -> None:
        """Write a line, in which ``images`` says where the training stands; the next begins."""
        self.figures, self._reached = figures, int(figures["images"])
        self._begin_line()
        if self._writes:
            with (self._run_dir / "log.jsonl").open("a") as file:
                file.write(json.dumps(figures) + "\n")
        if self._events is not None:
            for name, value in figures.items():
                self._events.add_scalar(name, value, figures["images"])

    def note_options(self, options: Mapping[str, Any]) -> None:
        """Let TensorBoard compare runs by their options (hparams) and what they reached."""
        if self._events is None:
            return
        from torch.utils.tensorboard.summary import hparams

        plain = {
            name: value if isinstance(value, int | float | str) else str(value)
            for name, value in options.items()
        }
        reached = {name: self.figures[name] for name in REACHED if name in self.figures}
        for summary in hparams(plain, reached):
            self._events.file_writer.add_summary(summary)

    def show(self, name: str, pictures: Tensor, images: int) -> None:
        """Write ``grids/NAME-IMAGES.png``: pictures uint8 [n, 3, R, R], 8 in a row."""
        sheet = grid(pictures, columns=8)
        save_png(self._run_dir / "grids" / f"{name}-{images:09d}.png", sheet)
        if self._events is not None:
            self._events.add_image(name, np.asarray(sheet), images, dataformats="HWC")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._events is not None:
            self._events.close()
