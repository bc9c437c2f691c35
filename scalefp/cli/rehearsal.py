"""``--dry-run``: what a training would take on this machine, without its data and its hours."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from hydra.types import RunMode

from scalefp.cli.launch import Application, opened, own_folder, task_options
from scalefp.cli.mistakes import explained
from scalefp.cli.output import OK, write
from scalefp.cli.overrides import literal
from scalefp.errors import UserError
from scalefp.training.distributed import World
from scalefp.training.loop import Training
from scalefp.training.rehearsal import STEPS, Rehearsal, rehearse

LONG = 72  # hours from which days are said


def lines(found: Rehearsal, config: Any) -> Iterator[str]:
    """A rehearsal for a reader."""
    sizes = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in found.parameters.items())
    yield f"parameters: {sizes}"
    batch, total = config.optimizer.batch, config.schedule.total_images
    what = f"{STEPS} steps of {batch} images"
    yield f"memory: {found.memory / 2**30:.1f} GiB at most in {what} ({found.device})"
    yield f"speed: {found.images_per_second:.3g} images/s in {found.precision}"
    days = f", {found.hours / 24:.0f} days" if found.hours > LONG else ""
    yield f"all {total:,} images: {found.hours:.3g} hours{days}, regularizers and saving left out"


def show_rehearsal(
    app: Application,
    kind: Callable[[Any, World], Training],
    overrides: Sequence[str],
    config_dir: str | None,
) -> int:
    """Build the training of some options, do its first steps on made pictures and say what it took.

    Args:
        kind: makes a training before its first image.

    Raises:
        UserError: options that cannot be composed or cannot work, or too little memory.
    """
    texts = [*own_folder(config_dir), *(literal(text, multirun=False) for text in overrides)]
    with opened(app) as hydra, explained(app.prog):
        config = hydra.compose_config(app.config_name, texts, run_mode=RunMode.RUN)
        options = task_options(config)
    if getattr(options, "generator", None):
        if options.modulation.reader == "inversion":
            raise UserError(
                "modulation.reader=inversion trains nothing and takes minutes: leave --dry-run out"
            )
        from scalefp.pretrained.train import AdoptedTraining

        kind = AdoptedTraining
    torch.set_num_threads(options.run.threads)
    write("".join(f"{line}\n" for line in lines(rehearse(kind, options), options)))
    return OK
