"""What a training writes down as it goes: ``log.jsonl``, TensorBoard, and what must not go on."""

import json
import math
from pathlib import Path
from typing import Any

from scalefp.errors import UserError
from scalefp.files import atomic_path


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
