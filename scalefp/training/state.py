"""Everything a training is made of: networks, their averages, optimizers, and how far it is."""

import copy
import dataclasses
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from scalefp.config import ModelConfig, OptimizerConfig, TrainConfig
from scalefp.errors import FolderTakenError, UserError
from scalefp.networks.decoder import Decoder
from scalefp.networks.discriminator import Discriminator
from scalefp.networks.generator import Generator
from scalefp.options import absent_values
from scalefp.release.container import load_state, load_strictly, save_state
from scalefp.training.schedule import Progress

# What a resumed run may change: nothing here alters what was learned so far.
FREE_OPTIONS = ("name", "run.", "schedule.total_images")
# Options that trainings of earlier versions do not name, with what these did: no such term, and
# for the sizes what their release files mean.
EARLIER: dict[str, Any] = {"loss.range": 0.0}
EARLIER |= {f"model.{name}": value for name, value in absent_values(ModelConfig).items()}


class State(Protocol):
    """A dataclass of networks and optimizers, by the names they are saved under, and a progress."""

    progress: Any  # a dataclass with the number of `images` seen and the `precision` computed in


def parts_of(state: State) -> dict[str, Any]:
    """Networks and optimizers by name."""
    return {name: part for name, part in vars(state).items() if name != "progress"}


def save_training(path: Path, state: State, options: dict[str, Any]) -> None:
    """Write a training: its networks and optimizers, how far they are, what they were made by."""
    parts = {name: part.state_dict() for name, part in parts_of(state).items()}
    progress = dataclasses.asdict(state.progress)
    about = {"images": progress["images"], "progress": progress, "config": options}
    save_state(path, {**about, **parts})


def check_binding(
    path: Path, before: dict[str, Any], options: dict[str, Any], binding: str
) -> None:
    """Raise :class:`UserError` unless a saved training had the options that have to be the same."""
    before = {name: value for name, value in EARLIER.items() if name in options} | before
    unknown = sorted(name for name in before.keys() - options.keys() if "perturb" not in name)
    # Unless it is only started from, it is another training's folder.
    error = UserError if binding else FolderTakenError
    if unknown:
        raise error(
            f"{path} was written by another version of scalefp or another kind of training, which "
            f"had the option {unknown[0]}: choose another name= or remove that folder"
        )
    for name in sorted(before.keys() | options.keys()):
        bound = name.startswith(binding) and not name.startswith(FREE_OPTIONS)
        if bound and before.get(name) != options.get(name):
            raise error(
                f"{path.parent} holds a training with {name}={before.get(name)}, not "
                f"{options.get(name)}: set it so"
                + ("" if binding else " to go on, choose another name= or remove that folder")
            )


def restore_training(
    path: Path, state: State, options: dict[str, Any], *, binding: str = ""
) -> None:
    """Go on from a file of :func:`save_training`.

    Args:
        binding: only options whose names begin so have to be what they were; "" = all but
            :data:`FREE_OPTIONS`.

    Raises:
        UserError: the file is damaged or missing, or belongs to a training with other options.
    """
    saved = load_state(path)
    try:
        check_binding(path, saved["config"], options, binding)
        progress = type(state.progress)(**saved["progress"])
        for name, part in parts_of(state).items():
            if isinstance(part, nn.Module):
                load_strictly(part, saved[name], path)
            else:
                part.load_state_dict(saved[name])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a whole training checkpoint: remove it to start anew"
        ) from error
    state.progress = progress


def adam(options: OptimizerConfig, *learners: nn.Module) -> torch.optim.Optimizer:
    """Adam for all parameters of these networks."""
    groups: dict[float, list[nn.Parameter]] = {}  # by beta1
    for learner in learners:
        beta1 = options.beta1
        if isinstance(learner, Decoder) and options.decoder_beta1 is not None:
            beta1 = options.decoder_beta1
        groups.setdefault(beta1, []).extend(learner.parameters())
    return torch.optim.Adam(
        [{"params": own, "betas": (beta1, options.beta2)} for beta1, own in groups.items()],
        lr=options.learning_rate,
        fused=True,
    )


def set_learning_rate(rate: float, *optimizers: torch.optim.Optimizer) -> None:
    """The rate of all parameters from now on."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def make_capturable(device: torch.device, *optimizers: torch.optim.Optimizer) -> None:
    """Keep on the device what the steps of optimizers read, so that they can be captured."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = torch.as_tensor(float(group["lr"]), device=device)
            group["capturable"] = True


@torch.no_grad()
def ema_update(
    average: nn.Module, current: nn.Module, options: OptimizerConfig, images: int
) -> None:
    """Move averaged weights towards those that a step has changed (exponential moving average).

    Early on the average is kept short.

    Args:
        images: number seen, those of the step included.
    """
    half_life = min(options.ema_images, 0.05 * images)
    weights = [parameter.detach() for parameter in current.parameters()]
    share = 1 - 0.5 ** (options.batch / half_life)
    torch._foreach_lerp_(list[Tensor](average.parameters()), weights, share)


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
        return cls(
            progress=Progress.start(config),
            generator=generator,
            decoder=decoder,
            discriminator=discriminator,
            average_generator=copy.deepcopy(generator).requires_grad_(False),
            average_decoder=copy.deepcopy(decoder).requires_grad_(False),
            reader_optimizer=adam(config.optimizer, generator, decoder),
            discriminator_optimizer=adam(config.optimizer, discriminator),
        )

    def averages(self) -> list[tuple[nn.Module, nn.Module]]:
        """What is released, each with the network that it is the average of."""
        return [
            (self.average_generator, self.generator),
            (self.average_decoder, self.decoder),
        ]
