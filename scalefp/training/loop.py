"""One visible training loop for every kind of training, resumed exactly by the same command.

Progress counts images. What one step does is in step.py of each kind.
"""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from scalefp import perturb
from scalefp.config import flat_options
from scalefp.data.dataset import ImageSet
from scalefp.data.source import Source, resolve_source
from scalefp.errors import UserError
from scalefp.release.container import kind_of, load_tensors
from scalefp.release.networks import holds_networks
from scalefp.training.distributed import World, is_main, join, pick_device, world_size
from scalefp.training.fitting import fitting_batch
from scalefp.training.log import TrainingLog
from scalefp.training.precision import pick_precision, precision_name
from scalefp.training.run import (
    TooLittleMemoryError,
    caught_signals,
    locked,
    make_run_folder,
    named_memory_errors,
    stop,
)
from scalefp.training.start import start_from_networks
from scalefp.training.state import State, TrainingState, restore_training, save_training

STATE, RELEASE = "state.pt", "release.safetensors"  # in the run folder
C = TypeVar("C")


class Training(Protocol):
    """A training of some kind, as the loop sees it."""

    config: Any  # TrainConfig or MarkTrainConfig
    world: World

    @property
    def state(self) -> State:
        """Networks, optimizers and progress."""

    def step(self, precision: torch.dtype) -> dict[str, Tensor]:
        """Train on one batch; the unweighted loss terms and other figures of this process, as
        scalars that may be about to be computed. They hold until the next step."""

    def figures(self, means: dict[str, float]) -> dict[str, float]:
        """What a line of the log holds, from the means of the figures since the last line."""

    def status(self, figures: dict[str, float]) -> str:
        """A line of the log in a few words, for the progress bar."""

    def active_bits(self) -> int:
        """Key bits that are switched on."""

    def pictures(self) -> dict[str, Tensor]:
        """Pictures to judge the training by, by name: each uint8 [n, 3, R, R], 8 in a row."""

    def save_release(self, path: Path, note: dict[str, Any]) -> None:
        """Write what the averaged networks make, with a note on the training."""


def save(training: Training, run_dir: Path) -> None:
    """Write the training's state and the release that it makes at this point."""
    save_training(run_dir / STATE, training.state, flat_options(training.config))
    release(training, run_dir)


def release(training: Training, run_dir: Path) -> None:
    """Write the release that the training makes at this point."""
    progress = training.state.progress
    note = {
        "images": progress.images,
        "options": flat_options(training.config),
        "reached": {
            "active_bits": training.active_bits(),
            "bit_accuracy": progress.bit_accuracy,
            "evidence": progress.evidence,
        },
    }
    training.save_release(run_dir / RELEASE, note)


def released_images(path: Path) -> int | None:
    """Images that the training of a release had seen; None if there is no such file, or damaged."""
    try:
        header = load_tensors(path, kind_of(path) or "release")[1]
        return int(header["training"]["images"])
    except (UserError, KeyError, TypeError, ValueError):
        return None


def restore(training: Training, run_dir: Path) -> None:
    """Go on from the run folder if it holds a training, else from ``start_from`` if that is given.

    Raises:
        UserError: what is there is damaged or missing, or belongs to a training with other options
            (of ``start_from`` only the model's have to be the same).
    """
    start_from = getattr(training.config, "start_from", None)
    options = flat_options(training.config)
    if (run_dir / STATE).exists():
        restore_training(run_dir / STATE, training.state, options)
    elif start_from is not None:
        path = Path(start_from)
        if isinstance(training.state, TrainingState) and holds_networks(path):
            start_from_networks(path, training.state, training.config)
            return
        path = path / STATE if path.is_dir() else path
        restore_training(path, training.state, options, binding="model.")


def check(config: Any) -> None:
    """Raise UserError for all that can be known to be wrong before anything is written."""
    config.check(world_size())
    perturb.check_names(config.perturb)
    pick_device(config.run)
    if learns_from_images(config):
        with Source(resolve_source(config.data.source)):
            pass


def learns_from_images(config: Any) -> bool:
    """Whether a training takes a data set; that of a generator of others takes its own inputs."""
    return not getattr(config, "generator", None)


def settle_precision(training: Training) -> torch.dtype:
    """The precision of all processes, which the training keeps when it is resumed."""
    progress, world = training.state.progress, training.world
    picked = pick_precision(training.config.run, world.device, progress.precision)
    (half,) = world.any([picked == torch.bfloat16])
    precision = torch.bfloat16 if half else torch.float32
    progress.precision = precision_name(precision)
    return precision


def images_of(config: Any, world: World) -> ImageSet:
    """The data set of a training."""
    source, resolution = config.data.source, config.model.resolution
    return ImageSet(source, resolution, workers=config.data.workers, progress=world.is_main)


def run(kind: Callable[[C, World], Training], config: C, run_dir: str | Path) -> dict[str, float]:
    """Train in ``run_dir`` from where it stands to the last image.

    Writes ``state.pt`` (exact resume), ``release.safetensors`` (the averaged networks),
    ``log.jsonl``, ``grids/*.png`` and TensorBoard events.

    Args:
        kind: makes a training before its first image.
        config: its options.

    Returns:
        The last logged figures: ``evidence``, ``bit_accuracy``, ``psnr``, the loss terms, ...

    Raises:
        UserError: options, data or run folder that do not work, another training in the folder, too
            little memory, or a loss that is not finite.
        SystemExit: stopped by SIGINT or SIGTERM, after saving (code 130 or 143).
    """
    options: Any = config
    check(options)
    run_dir, device = make_run_folder(run_dir), pick_device(options.run)
    try:
        return run_in(kind, config, run_dir)
    except TooLittleMemoryError as error:
        if device.type != "cuda" or world_size() > 1:
            raise
        said = str(error)
    # Only now, without the error, is the memory free that the failed step had taken.
    batch = fitting_batch(kind, options, device)
    raise UserError(said if batch is None else f"{said}; optimizer.batch={batch} fits")


def run_in(kind: Callable[[C, World], Training], config: C, run_dir: Path) -> dict[str, float]:
    """:func:`run` in a folder that is there, with options that may work."""
    options: Any = config
    with (
        locked(run_dir, here=is_main()),
        closing(join(pick_device(options.run))) as world,
        named_memory_errors(options),
    ):
        training = kind(config, world)
        restore(training, run_dir)
        seen = training.state.progress.images
        if world.is_main and seen and released_images(run_dir / RELEASE) != seen:
            # Killed between writing the state and the release, or the release was removed.
            release(training, run_dir)
        return loop(training, run_dir, settle_precision(training))


def loop(training: Training, run_dir: Path, precision: torch.dtype) -> dict[str, float]:
    """Step after step to the last image; logs, draws and saves as it goes."""
    config, world, progress = training.config, training.world, training.state.progress
    total, batch = config.schedule.total_images, config.optimizer.batch
    with (
        caught_signals() as signals,
        TrainingLog(
            run_dir, progress.images, tensorboard=config.run.tensorboard, writes=world.is_main
        ) as log,
        tqdm(
            total=total, initial=progress.images, unit="img", desc="train",
            disable=not world.is_main, mininterval=1,
        ) as bar,
    ):  # fmt: skip
        saved_at = time.monotonic()
        while progress.images < total:
            terms = training.step(precision)
            log.add(terms, batch)
            progress.images += batch
            bar.update(batch)
            finished = progress.images >= total

            # Log.
            if (progress.images // batch) % config.run.log_steps == 0 or finished:
                figures = training.figures(log.means(world))
                bar.set_postfix_str(training.status(figures))
                speed = {"images_per_second": log.images_per_second()}
                log.write({"images": progress.images, **figures, **speed})
                if finished:
                    log.note_options(flat_options(config))

            # Pictures.
            period = config.run.grid_images
            passed = progress.images // period > (progress.images - batch) // period
            if world.is_main and (passed or finished):
                for name, pictures in training.pictures().items():
                    log.show(name, pictures, progress.images)

            # Checkpoint.
            due = time.monotonic() - saved_at > 60 * config.run.checkpoint_minutes
            stopping, due = world.any([bool(signals), due and world.is_main])
            if stopping or due or finished:
                log.means(world)  # which are finite, or nothing is saved
                progress.unread.share(world)
                if world.is_main:
                    save(training, run_dir)
                world.barrier()
                saved_at = time.monotonic()
            if stopping and not finished:
                bar.close()
                stop(signals, progress.images, quiet=not world.is_main)
    return log.figures
