"""``scalefp artificial train``: the training of a marker, encoder and decoder together."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scalefp.artificial.config import MarkTrainConfig
from scalefp.artificial.encoder import Encoder, mark
from scalefp.artificial.marker import save_marker
from scalefp.artificial.state import MarkState
from scalefp.artificial.step import step
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_float, to_uint8
from scalefp.metrics import psnr_of
from scalefp.training.distributed import World
from scalefp.training.feed import Feed
from scalefp.training.loop import images_of, run

GAIN = 10  # of the residual in pictures of it


@torch.inference_mode()
def picture_grid(encoder: Encoder, data: ImageSet) -> Tensor:
    """Eight images clean, marked, and the residual times ten around grey: uint8 [24, 3, R, R]."""
    some = torch.linspace(0, len(data) - 1, 8).long()
    device = encoder.carriers.weight.device
    images = to_float(data.batch(some)).to(device)
    draw = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 2, (8, encoder.config.n_bits), generator=draw).to(device)
    marked = mark(images, encoder(images, bits))
    return to_uint8(torch.cat([images, marked, (marked - images) * GAIN])).cpu()


class MarkerTraining:
    """See :class:`scalefp.training.loop.Training`."""

    def __init__(self, config: MarkTrainConfig, world: World) -> None:
        self.config, self.world = config, world
        self.data = images_of(config, world)
        self.state = MarkState.build(config, self.data, world.device)
        batch = config.optimizer.batch
        self.feed = Feed(self.data, config.data, world, seed=config.seed, batch=batch)

    def step(self, precision: torch.dtype) -> dict[str, Tensor]:
        return step(self.config, self.state, self.feed, self.world, precision)

    def figures(self, means: dict[str, float]) -> dict[str, float]:
        ramp = self.state.progress.ramp(self.config)
        return {"ramp": ramp, **means, "psnr": psnr_of(means["pixels"])}

    def status(self, figures: dict[str, float]) -> str:
        return f"bits {figures['bit_accuracy']:.3f}, mark at {figures['psnr']:.1f} dB"

    def active_bits(self) -> int:
        return self.config.model.n_bits

    def pictures(self) -> dict[str, Tensor]:
        return {"marks": picture_grid(self.state.average_encoder, self.data)}

    def save_release(self, path: Path, note: dict[str, Any]) -> None:
        state = self.state
        save_marker(
            path, self.config.model, state.average_encoder, state.average_decoder, training=note
        )


def train(config: MarkTrainConfig, run_dir: str | Path) -> dict[str, float]:
    """Train encoder and decoder together; see :func:`scalefp.training.loop.run`.

    The pictures are those of :func:`picture_grid`.
    """
    return run(MarkerTraining, config, run_dir)
