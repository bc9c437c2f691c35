"""``scalefp train generator=...``: keys for a generator that others trained."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scalefp.config import TrainConfig
from scalefp.data.images import to_uint8
from scalefp.metrics import psnr_of
from scalefp.pretrained.adopted import Adopted, adopt, draw
from scalefp.pretrained.fitting import check_fitting, fit
from scalefp.pretrained.modulation import Parent
from scalefp.pretrained.release import save_pretrained
from scalefp.pretrained.state import AdoptedState, ReaderSizes
from scalefp.pretrained.step import step
from scalefp.training import loop
from scalefp.training.distributed import World

GAIN = 10  # of differences in pictures of them


@torch.inference_mode()
def picture_grids(adopted: Adopted, parent: Parent, device: torch.device) -> dict[str, Tensor]:
    """Pictures to judge the training by, each uint8 [n, 3, R, R] to be shown 8 in a row.

    ``keys``: eight pictures of the original, and the same under two keys. ``difference``: what the
    keys change, times 10, around grey.
    """
    source = torch.Generator().manual_seed(0)
    inputs = draw(adopted.inputs, 8, source).to(device)
    bits = torch.randint(0, 2, (2, parent.n_bits), generator=source).to(device)
    original = adopted.pictures.of(parent.original(inputs))
    made = [adopted.pictures.of(parent(inputs, key.expand(8, -1))) for key in bits]
    keys = torch.cat([original, *made])
    difference = torch.cat([(one - original) * GAIN for one in made])
    return {name: to_uint8(x).cpu() for name, x in (("keys", keys), ("difference", difference))}


class AdoptedTraining:
    """See :class:`scalefp.training.loop.Training`."""

    def __init__(self, config: TrainConfig, world: World) -> None:
        self.config, self.world = config, world
        self.adopted = adopt(config)
        self.state = AdoptedState.build(config, self.adopted, world.device)
        if isinstance(self.adopted.inputs, nn.Module):  # an encoder, which should not hold up a GPU
            self.adopted.inputs.to(world.device)
        if isinstance(self.adopted.perceptual, nn.Module):
            self.adopted.perceptual.to(world.device)

    def step(self, precision: torch.dtype) -> dict[str, Tensor]:
        return step(self.config, self.adopted, self.state, self.world, precision)

    def figures(self, means: dict[str, float]) -> dict[str, float]:
        progress = self.state.progress
        return {
            "n_active": progress.n_active,
            **means,
            "psnr": psnr_of(means["consistency"]),
            "visible_psnr": psnr_of(means["visible"]),
            "consistency_weight": progress.consistency_weight,
        }

    def status(self, figures: dict[str, float]) -> str:
        return (
            f"bits {figures['active_bit_accuracy']:.3f} of {figures['n_active']}, "
            f"{figures['psnr']:.1f} dB from the original"
        )

    def active_bits(self) -> int:
        return self.state.progress.n_active

    def pictures(self) -> dict[str, Tensor]:
        return picture_grids(self.adopted, self.state.average_parent, self.world.device)

    def save_release(self, path: Path, note: dict[str, Any]) -> None:
        state = self.state
        sizes = ReaderSizes.of(self.config.model)
        save_pretrained(path, sizes, self.config, state.average_parent, state.average_decoder, note)


def check(config: TrainConfig) -> None:
    """Raise UserError for all that can be known to be wrong before anything is written."""
    loop.check(config)
    check_fitting(config) if config.modulation.reader == "inversion" else adopt(config)


def train(config: TrainConfig, run_dir: str | Path) -> dict[str, float]:
    """Train what keys change of a generator, and the decoder that reads them; see
    :func:`scalefp.training.loop.run`. The pictures are those of :func:`picture_grids`.

    With ``modulation.reader=inversion`` nothing is trained, see fitting.py."""
    if config.modulation.reader == "inversion":
        loop.check(config)
        return fit(config, run_dir)
    return loop.run(AdoptedTraining, config, run_dir)
