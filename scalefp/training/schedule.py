"""Where a training stands and what that means for the next step.

Key bits may be switched on in groups, each once those before it can be read. When all can, the key
has to hide: the weight of the consistency term is moved so that the images of one latent under two
keys stay as close as the schedule asks.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from scalefp.config import OptimizerConfig, TrainConfig
from scalefp.metrics import psnr_of
from scalefp.training.means import Means
from scalefp.training.transfer import staged

SMOOTHING = 0.05  # weight of the newest step in the running means
# Share of the excess of the consistency term, in powers of ten, by which its weight moves in a
# step. Slower than the running mean, or the weight would swing.
ADAPTATION = 0.03
# How much the consistency term may weigh beside key bits at chance. Beyond, nothing but it is
# learned, and where the learning rate is what keeps images apart no weight brings them nearer.
DOMINANCE = 10.0


def smoothing(steps: int, each: float = SMOOTHING) -> float:
    """Weight in a running mean of the mean over so many steps."""
    return each if steps == 1 else 1 - (1 - each) ** steps


@dataclasses.dataclass
class Standing:
    """Where a training of any kind stands; saved with the networks."""

    images: int = 0
    precision: str | None = None  # in which it computes, fp32 or bf16, from its first image on
    # Running means of how images are read in training: bit accuracy over all key bits, and the
    # bits of evidence that one image carries.
    bit_accuracy: float = 0.5
    evidence: float = 0.0
    unread: Means = dataclasses.field(default_factory=Means)  # of the steps since the last look

    def __post_init__(self) -> None:
        if isinstance(self.unread, dict):  # as it comes back from a file
            self.unread = Means(**self.unread)

    def note_reading(self, figures: Mapping[str, float], steps: int = 1) -> None:
        """Account for how the images of some steps were read, on the average."""
        share = smoothing(steps)
        self.bit_accuracy += share * (figures["bit_accuracy"] - self.bit_accuracy)
        self.evidence += share * (figures["evidence"] - self.evidence)


@dataclasses.dataclass
class Progress(Standing):
    """Where the training of a generator stands."""

    n_active: int = 0  # key bits switched on
    accuracy: float = 0.5  # running bit accuracy of the active bits
    difference: float = 0.0  # running consistency term: MSE between two keys, see loss.visibility
    consistency_weight: float = 0.0
    readable_at: int | None = None  # images seen when all bits had become readable
    path_mean: float = 0.0  # running mean of the path lengths

    @classmethod
    def start(cls, config: TrainConfig) -> "Progress":
        """Before the first image."""
        n_active = config.schedule.curriculum_bits or config.model.n_bits
        return cls(
            n_active=n_active if config.fingerprint else 0,
            consistency_weight=config.loss.consistency,
        )

    @property
    def readable(self) -> bool:
        """Whether all key bits have become readable."""
        return self.readable_at is not None

    def ramp(self, config: TrainConfig) -> float:
        """How far the second phase is, 0..1: 0 until all bits are readable."""
        if self.readable_at is None:
            return 0.0
        return min(1.0, (self.images - self.readable_at) / max(1, config.schedule.ramp_images))

    def target_psnr(self, config: TrainConfig) -> float | None:
        """How close the images of one latent under two keys should be now, in dB; None = as the
        weight in `loss` makes them."""
        schedule = config.schedule
        if schedule.hide_psnr is None:
            return None
        rise = schedule.hide_psnr - schedule.reading_psnr
        return schedule.reading_psnr + self.ramp(config) * rise

    def advance(
        self, accuracy: float, difference: float, config: TrainConfig, steps: int = 1
    ) -> None:
        """Account for some steps.

        Args:
            accuracy: of the active bits, on the average.
            difference: between two keys, see :func:`scalefp.training.losses.difference`.
        """
        schedule, target = config.schedule, self.target_psnr(config)
        self.accuracy += smoothing(steps) * (accuracy - self.accuracy)
        self.difference += smoothing(steps) * (difference - self.difference)
        if target is not None:
            excess = (target - psnr_of(self.difference)) / 10  # powers of ten
            self.consistency_weight *= 10 ** (steps * ADAPTATION * max(-1.0, min(1.0, excess)))
            if config.loss.bits:
                most = DOMINANCE * config.loss.bits * math.log(2) / max(self.difference, 1e-12)
                self.consistency_weight = min(most, self.consistency_weight)
            self.consistency_weight = max(1.0, self.consistency_weight)
        if self.accuracy >= schedule.curriculum_accuracy and not self.readable:
            if self.n_active == config.model.n_bits:
                self.readable_at = self.images
            else:
                more = schedule.curriculum_bits or config.model.n_bits
                self.n_active = min(config.model.n_bits, self.n_active + more)
                self.accuracy = 0.5


def step_seed(seed: int, rank: int, images: int) -> int:
    """The seed of all randomness of one step of one process."""
    state = np.random.SeedSequence([seed, rank, images]).generate_state(1, np.uint64)[0]
    return int(state >> 1)


def step_generator(
    seed: int, rank: int, images: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """The source of all randomness of one step of one process."""
    return torch.Generator(device).manual_seed(step_seed(seed, rank, images))


class Scheduled:
    """What the schedule says of a step, in one tensor that stays where it is.

    Attributes:
        ramp: how far the second phase is, [].
        consistency: weight of the consistency terms, [].
        path_mean: running mean of the path lengths, [].
        active: 1 for each key bit that is switched on, else 0, [n].
    """

    def __init__(self, n_bits: int, device: torch.device) -> None:
        self._values = torch.zeros(3 + n_bits, device=device)
        self.ramp, self.consistency, self.path_mean = self._values[:3].unbind()
        self.active = self._values[3:]

    def set(self, progress: Progress, config: TrainConfig) -> None:
        """As it is now; nothing waits for the device."""
        values = torch.zeros(self._values.shape)
        values[0], values[1] = progress.ramp(config), progress.consistency_weight
        values[2] = progress.path_mean
        values[3 : 3 + progress.n_active] = 1
        self._values.copy_(staged(values, self._values.device), non_blocking=True)

    def weights(self, config: TrainConfig) -> dict[str, float | Tensor]:
        """Weights of the generator's loss terms."""
        loss = config.loss
        weights: dict[str, float | Tensor] = {"adversarial": loss.adversarial, "range": loss.range}
        if not config.fingerprint:
            return weights
        weights |= {
            "latent": loss.latent,
            "bits": loss.bits,
            "consistency": self.consistency * (1 - loss.visibility),
            "visible": self.consistency * loss.visibility,
        }
        for name in ("gradients", "lpips"):
            if getattr(loss, name):
                weights[name] = self.consistency * getattr(loss, name)
        if config.model.decoder_localizer:
            weights["geometry"] = loss.geometry
        return weights


def learning_rate(options: OptimizerConfig, left: int, decay_images: int) -> float:
    """The configured rate, falling linearly to 0 over the last `schedule.decay_images`.

    Args:
        left: images until the end of the training.
    """
    return options.learning_rate * min(1.0, left / max(1, decay_images))
