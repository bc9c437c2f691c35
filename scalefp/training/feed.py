"""The images of the data set that a training step sees, on the device that computes it."""

import logging

import torch
from torch import Tensor

from scalefp.config import DataConfig
from scalefp.data.dataset import ImageSet, sample_indices
from scalefp.data.images import to_float
from scalefp.training.distributed import World
from scalefp.training.transfer import staged

MOST = 0.5  # of a device's free memory, for the data set

_log = logging.getLogger(__name__)


def fits(size: int, device: torch.device) -> bool:
    """Whether a data set of so many bytes leaves a device room to train; if not, that is said."""
    if device.type != "cuda":
        return True
    free = torch.cuda.mem_get_info(device)[0]
    if size <= MOST * free:
        return True
    _log.warning(
        "the images take %.1f GiB, over half of the %.1f GiB that are free on the device: they "
        "stay in the host's memory and are copied batch by batch",
        size / 2**30,
        free / 2**30,
    )
    return False


class Feed:
    """A process's share of the batches of a data set.

    Attributes:
        pixels: the batch that was loaded, uint8 [b, 3, R, R]; always the same piece of memory.
    """

    def __init__(
        self, data: ImageSet, options: DataConfig, world: World, *, seed: int, batch: int
    ) -> None:
        """
        Args:
            options: whether images are mirrored at random.
            seed: of the order of the images.
            batch: images a step, of all processes.
        """
        self._options, self._world = options, world
        self._seed, self._batch = seed, batch
        images = torch.from_numpy(data.pixels)
        self._on_device = fits(data.pixels.nbytes, world.device)
        self._images = images.to(world.device) if self._on_device else images
        shape = (batch // world.size, *images.shape[1:])
        self.pixels = torch.empty(shape, dtype=torch.uint8, device=world.device)

    def load(self, seen: int) -> None:
        """Take the images that come after ``seen`` images; nothing waits for the device."""
        indices = sample_indices(len(self._images), self._seed, seen, self._batch)
        rows = torch.from_numpy(indices[self._world.rank :: self._world.size].copy())
        device = self.pixels.device
        if self._on_device:
            rows = staged(rows, device).to(device, non_blocking=True)
            torch.index_select(self._images, 0, rows, out=self.pixels)
        else:
            batch = staged(self._images.index_select(0, rows), device)
            self.pixels.copy_(batch, non_blocking=True)

    def images(self, source: torch.Generator) -> Tensor:
        """The loaded batch [b, 3, R, R] in [-1, 1], each image mirrored by chance if asked for.

        Args:
            source: of this step's randomness, on the device.
        """
        images = to_float(self.pixels)
        if not self._options.flip:
            return images
        mirrored = torch.rand(len(images), generator=source, device=source.device) < 0.5
        return torch.where(mirrored[:, None, None, None], images.flip(3), images)
