"""Everything a training is made of: networks, their averages, optimizers, and how far it is."""

import copy
import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from scalefp.checkpoint import load_state, load_strictly, save_state
from scalefp.config import TrainConfig, flat_options
from scalefp.decoder import Decoder
from scalefp.discriminator import Discriminator
from scalefp.errors import UserError
from scalefp.generator import Generator
from scalefp.model import save_release
from scalefp.schedule import Progress

P = TypeVar("P")

# What a resumed run may change: nothing here alters what was learned so far.
FREE_OPTIONS = ("name", "run.", "schedule.total_images")


def save_parts(
    path: Path, progress: dict[str, Any], parts: dict[str, Any], options: dict[str, Any]
) -> None:
    """Write networks and optimizers by name, with how far they are and what they were made by."""
    states = {name: part.state_dict() for name, part in parts.items()}
    about = {"images": progress["images"], "progress": progress, "config": options}
    save_state(path, {**about, **states})


def restore_parts(
    path: Path,
    parts: dict[str, Any],
    options: dict[str, Any],
    progress_type: type[P],
    binding: str = "",
) -> P:
    """Read a file of :func:`save_parts` into the networks and optimizers of a training.

    Args:
        progress_type: dataclass of the progress.
        binding: only options whose names begin so have to be what they were; "" = all but
            :data:`FREE_OPTIONS`.

    Returns:
        The progress.

    Raises:
        UserError: the file is damaged or missing, or belongs to a training with other options.
    """
    saved = load_state(path)
    try:
        before, progress = saved["config"], progress_type(**saved["progress"])
        for name in sorted(before.keys() | options.keys()):
            bound = name.startswith(binding) and not name.startswith(FREE_OPTIONS)
            if bound and before.get(name) != options.get(name):
                raise UserError(
                    f"{path.parent} holds a training with {name}={before.get(name)}, not "
                    f"{options.get(name)}: "
                    + ("set it so" if binding else "choose another name= or remove that folder")
                )
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                load_strictly(part, saved[name], path)
            else:
                part.load_state_dict(saved[name])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a whole training checkpoint: remove it to start anew"
        ) from error
    return progress


@dataclasses.dataclass
class TrainingState:
    """The networks and optimizers by the names they are saved under, and the progress."""

    progress: Progress
    generator: Generator
    decoder: Decoder
    discriminator: Discriminator
    average_generator: Generator
    average_decoder: Decoder
    reader_optimizer: torch.optim.Optimizer  # of generator and decoder
    discriminator_optimizer: torch.optim.Optimizer

    @classmethod
    def build(cls, config: TrainConfig, device: torch.device) -> "TrainingState":
        """A training before its first image; the same seed gives the same weights everywhere."""
        torch.manual_seed(config.seed)
        generator, decoder = Generator(config.model), Decoder(config.model)
        if not config.fingerprint:
            generator.embedding.ignore_keys_()
        discriminator = Discriminator(config.model)
        for network in (generator, decoder, discriminator):
            network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        generator.recompute_from = discriminator.recompute_from = config.run.recompute_from
        options = config.optimizer

        def adam(*learners: nn.Module) -> torch.optim.Optimizer:
            parameters = [p for learner in learners for p in learner.parameters()]
            betas = (options.beta1, options.beta2)
            return torch.optim.Adam(parameters, lr=options.learning_rate, betas=betas, fused=True)

        return cls(
            progress=Progress.start(config),
            generator=generator,
            decoder=decoder,
            discriminator=discriminator,
            average_generator=copy.deepcopy(generator).requires_grad_(False),
            average_decoder=copy.deepcopy(decoder).requires_grad_(False),
            reader_optimizer=adam(generator, decoder),
            discriminator_optimizer=adam(discriminator),
        )

    def _parts(self) -> dict[str, Any]:
        return {name: part for name, part in vars(self).items() if name != "progress"}

    def save(self, run_dir: Path, config: TrainConfig) -> None:
        """Write ``state.pt`` and the release that the averaged networks make at this point."""
        options = flat_options(config)
        save_parts(run_dir / "state.pt", dataclasses.asdict(self.progress), self._parts(), options)
        save_release(
            run_dir / "release.safetensors",
            config.model,
            self.average_generator,
            self.average_decoder,
            training={"images": self.progress.images, "options": options},
        )

    def restore(self, run_dir: Path, config: TrainConfig) -> None:
        """Go on from ``state.pt`` if there is one, else from ``start_from`` if that is given.

        Raises:
            UserError: it is damaged or missing, or belongs to a training with other options (of
                ``start_from`` only the model's have to be the same).
        """
        path, binding = run_dir / "state.pt", ""
        if not path.exists():
            if not config.start_from:
                return
            path, binding = Path(config.start_from), "model."
        options = flat_options(config)
        self.progress = restore_parts(path, self._parts(), options, Progress, binding)
