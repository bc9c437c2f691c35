"""Where a training stands and what that means for the next step.

Key bits may be switched on in groups, each once those before it can be read. When all can, the key
has to hide: the weight of the consistency term is moved so that the images of one latent under two
keys stay as close as the schedule asks.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch

from scalefp.config import OptimizerConfig, TrainConfig
from scalefp.metrics import psnr_of

SMOOTHING = 0.05  # weight of the newest step in the running means
# Share of the excess of the consistency term, in powers of ten, by which its weight moves in a
# step. Slower than the running mean, or the weight would swing.
ADAPTATION = 0.03


@dataclasses.dataclass
class Standing:
    """Where a training of any kind stands; saved with the networks."""

    images: int = 0
    precision: str | None = None  # in which it computes, fp32 or bf16, from its first image on
    # Running means of how images are read in training: bit accuracy over all key bits, and the
    # bits of evidence that one image carries.
    bit_accuracy: float = 0.5
    evidence: float = 0.0

    def note_reading(self, figures: Mapping[str, float]) -> None:
        """Account for how the images of a step were read."""
        self.bit_accuracy += SMOOTHING * (figures["bit_accuracy"] - self.bit_accuracy)
        self.evidence += SMOOTHING * (figures["evidence"] - self.evidence)


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

    def advance(self, accuracy: float, difference: float, config: TrainConfig) -> None:
        """Account for one step.

        Args:
            accuracy: of the active bits.
            difference: between two keys, see :func:`scalefp.training.losses.difference`.
        """
        schedule, target = config.schedule, self.target_psnr(config)
        self.accuracy += SMOOTHING * (accuracy - self.accuracy)
        self.difference += SMOOTHING * (difference - self.difference)
        if target is not None:
            excess = (target - psnr_of(self.difference)) / 10  # powers of ten
            self.consistency_weight *= 10 ** (ADAPTATION * max(-1.0, min(1.0, excess)))
            self.consistency_weight = max(1.0, self.consistency_weight)
        if self.accuracy >= schedule.curriculum_accuracy and not self.readable:
            if self.n_active == config.model.n_bits:
                self.readable_at = self.images
            else:
                more = schedule.curriculum_bits or config.model.n_bits
                self.n_active = min(config.model.n_bits, self.n_active + more)
                self.accuracy = 0.5

    def weights(self, config: TrainConfig) -> dict[str, float]:
        """Weights of the generator's loss terms."""
        if not config.fingerprint:
            return {"adversarial": config.loss.adversarial}
        weights = {
            "adversarial": config.loss.adversarial,
            "latent": config.loss.latent,
            "bits": config.loss.bits,
            "consistency": self.consistency_weight * (1 - config.loss.visibility),
            "visible": self.consistency_weight * config.loss.visibility,
        }
        if config.model.decoder_localizer:
            weights["geometry"] = config.loss.geometry
        return weights


def step_generator(seed: int, rank: int, images: int) -> torch.Generator:
    """The source of all randomness of one step of one process."""
    state = np.random.SeedSequence([seed, rank, images]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))


def learning_rate(options: OptimizerConfig, left: int, decay_images: int) -> float:
    """The configured rate, falling linearly to 0 over the last `schedule.decay_images`.

    Args:
        left: images until the end of the training.
    """
    return options.learning_rate * min(1.0, left / max(1, decay_images))
