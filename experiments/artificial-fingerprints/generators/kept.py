"""The file that a finished generator is kept in: its averaged weights and how they came about."""

from pathlib import Path
from typing import Any

from generators.dcgan import Generator
from generators.learner import Learner
from scalefp.errors import UserError
from scalefp.release.container import load_tensors, save_tensors

FILE = "generator.safetensors"
KIND = "generator"


def save_generator(run_dir: Path, learner: Learner, settings: dict[str, Any]) -> None:
    """Write the weights that ``learner`` samples with, and the settings of their training."""
    header = {**settings, "resolution": learner.data.resolution}
    save_tensors(run_dir / FILE, KIND, learner.average.state_dict(), header)


def load_dcgan(run_dir: Path) -> tuple[Generator, dict[str, Any]]:
    """The generator of a finished job, and the settings of its training.

    Raises:
        UserError: the job kept no generator, or one that is not a DCGAN, or the file is damaged.
    """
    if not (run_dir / FILE).exists():
        raise UserError(
            f"{run_dir} holds no {FILE}: remove its result.json and let transfer.py do it again"
        )
    tensors, settings = load_tensors(run_dir / FILE, KIND)
    if settings["generator"] != "dcgan":
        raise UserError(f"{run_dir} holds a generator of kind {settings['generator']}, not dcgan")
    generator = Generator(settings["resolution"])
    generator.load_state_dict(tensors)
    return generator.requires_grad_(False).eval(), settings
