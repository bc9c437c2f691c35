"""scalefp's own generator and discriminator, trained without keys (``fingerprint: false``)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from generators.learner import CPU
from scalefp.config import (
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from scalefp.data.dataset import ImageSet
from scalefp.networks.generator import Generator
from scalefp.training.distributed import World
from scalefp.training.precision import pick_precision
from scalefp.training.schedule import Progress
from scalefp.training.state import TrainingState
from scalefp.training.step import Step


def draw(generator: Generator, sizes: ModelConfig, count: int, chance: torch.Generator) -> Tensor:
    """Images of random latents under no key, [count, 3, R, R]."""
    nobody = generator.embedding(torch.zeros(1, sizes.n_bits), torch.zeros(()))
    latents = torch.randn(count, sizes.latent_dim, generator=chance).split(Ours.batch)
    return torch.cat([generator.synthesize(z, nobody.expand(len(z), -1)) for z in latents])


class Ours:
    """See :class:`generators.learner.Learner`. No layer can draw a pattern at a fixed place."""

    batch: ClassVar[int] = 32
    mapping_layers: ClassVar[int] = 0  # the embedding of no key is 0, and the maps are without use

    def __init__(self, data: ImageSet, total: int, seed: int) -> None:
        self.data = data
        self.config = TrainConfig(
            seed=seed,
            fingerprint=False,
            # The decoder that belongs to every model, here without use, is kept small.
            model=ModelConfig(
                resolution=data.resolution, channel_base=1024, channel_max=64, embedding_width=8,
                decoder_base=data.resolution, decoder_max=8, decoder_carriers=False,
                mapping_layers=self.mapping_layers,
            ),
            loss=LossConfig(r1=3),
            schedule=ScheduleConfig(total_images=total, decay_images=total // 4),
            optimizer=OptimizerConfig(batch=self.batch, ema_images=total / 40),
        )  # fmt: skip
        self.config.check()
        self.state = TrainingState.build(self.config, CPU)
        self.average = self.state.average_generator
        self.world = World(0, 1, CPU)
        precision = pick_precision(RunConfig(), CPU)
        self._step = Step(self.config, self.state, data, self.world, precision)

    def step(self, seen: int) -> dict[str, float]:
        self.state.progress.images = seen
        return self.world.average_terms(self._step())

    @torch.inference_mode()
    def sample(self, count: int, seed: int) -> Tensor:
        chance = torch.Generator().manual_seed(seed)
        return draw(self.average, self.config.model, count, chance)

    def _parts(self) -> dict[str, Any]:
        return {n: part for n, part in vars(self.state).items() if not isinstance(part, Progress)}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])


class OursWithMaps(Ours):
    """The same with the learned maps that keys are otherwise written with, one set for all images:
    the embedding of no key is learned, too."""

    mapping_layers: ClassVar[int] = 1
