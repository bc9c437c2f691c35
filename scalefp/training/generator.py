"""The training of a generator: generator, decoder and discriminator together."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scalefp.config import ModelConfig, TrainConfig
from scalefp.data.images import to_uint8
from scalefp.metrics import psnr_of
from scalefp.networks.generator import Generator, map_channels, map_resolutions
from scalefp.release.model import save_release
from scalefp.training.distributed import World
from scalefp.training.loop import images_of, run
from scalefp.training.state import TrainingState
from scalefp.training.step import Step

_log = logging.getLogger(__name__)


def wide_enough(model: ModelConfig) -> ModelConfig:
    """The same sizes, or the least wider ones whose maps have a channel for each key bit."""
    while map_resolutions(model) and map_channels(model) < model.n_bits:
        base = model.channel_base + model.resolution
        most = max(model.channel_max, base // map_resolutions(model)[0])
        model = replace(model, channel_base=base, channel_max=most)
    return model


def warn_if_narrow(model: ModelConfig) -> None:
    """Say it if a key has more bits than the generator has channels with maps."""
    wider = wide_enough(model)
    if wider != model:
        _log.warning(
            "a key of %d bits is written by the maps of %d channels, which carry about as many "
            "bits well: model.channel_base=%d model.channel_max=%d have maps enough",
            model.n_bits, map_channels(model), wider.channel_base, wider.channel_max,
        )  # fmt: skip


@torch.inference_mode()
def picture_grids(generator: Generator) -> dict[str, Tensor]:
    """The pictures to judge a training by, each uint8 [n, 3, R, R] to be shown 8 in a row.

    ``latents``: 8 latents under one key. ``keys``: each of 8 latents (columns) under 4 keys (rows).
    ``difference``: those of the last three keys less the first, times 10, around grey.
    """
    draw, config = torch.Generator().manual_seed(0), generator.config
    z = torch.randn(32, config.latent_dim, generator=draw).to(generator.input.weight.device)
    bits = torch.randint(0, 2, (4, config.n_bits), generator=draw).to(z.device)
    latents = generator(z, bits[:1].expand(32, -1))
    keys = generator(z[:8].repeat(4, 1), bits.repeat_interleave(8, dim=0))
    difference = (keys[8:] - keys[:8].repeat(3, 1, 1, 1)) * 10
    pictures = {"latents": latents, "keys": keys, "difference": difference}
    return {name: to_uint8(images).cpu() for name, images in pictures.items()}


class GeneratorTraining:
    """See :class:`scalefp.training.loop.Training`."""

    def __init__(self, config: TrainConfig, world: World) -> None:
        self.config, self.world = config, world
        self.data = images_of(config, world)
        self._step: Step | None = None
        self.state = TrainingState.build(config, world.device)
        if config.run.compile:
            # Not the discriminator: compiled networks have no second derivatives, which R1 needs.
            for network in (self.state.generator, self.state.decoder):
                network.compile()

    def step(self, precision: torch.dtype) -> dict[str, Tensor]:
        if self._step is None:  # the state is what it was restored to by now
            if self.config.fingerprint and self.world.is_main and not self.state.progress.images:
                warn_if_narrow(self.config.model)
            self._step = Step(self.config, self.state, self.data, self.world, precision)
        return self._step()

    def figures(self, means: dict[str, float]) -> dict[str, float]:
        progress = self.state.progress
        figures = {"n_active": progress.n_active, **means}
        if self.config.fingerprint:
            figures["psnr"] = psnr_of(means["consistency"])
            figures["visible_psnr"] = psnr_of(means["visible"])
            figures["consistency_weight"] = progress.consistency_weight
        return figures

    def status(self, figures: dict[str, float]) -> str:
        if not self.config.fingerprint:
            return "no keys"
        return (
            f"bits {figures['active_bit_accuracy']:.3f} of {figures['n_active']}, "
            f"key hides at {figures['psnr']:.1f} dB"
        )

    def active_bits(self) -> int:
        return self.state.progress.n_active

    def pictures(self) -> dict[str, Tensor]:
        return picture_grids(self.state.average_generator)

    def save_release(self, path: Path, note: dict[str, Any]) -> None:
        state = self.state
        save_release(
            path, self.config.model, state.average_generator, state.average_decoder, training=note
        )


def train(config: TrainConfig, run_dir: str | Path) -> dict[str, float]:
    """Train generator, decoder and discriminator together; see :func:`scalefp.training.loop.run`.

    The pictures are those of :func:`picture_grids`.
    """
    return run(GeneratorTraining, config, run_dir)
