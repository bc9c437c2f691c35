"""The images of the data set that a training step sees."""

import torch
from torch import Tensor

from scalefp.config import DataConfig
from scalefp.data.dataset import ImageSet, sample_indices
from scalefp.data.images import to_float
from scalefp.training.distributed import World


def real_images(
    data: ImageSet,
    options: DataConfig,
    world: World,
    source: torch.Generator,
    *,
    seed: int,
    seen: int,
    batch: int,
) -> Tensor:
    """This process's share of the ``batch`` images that come after ``seen`` images.

    Args:
        options: whether images are mirrored at random.
        source: of this step's randomness.
        seed: of the order of the images.

    Returns:
        [batch / processes, 3, R, R] in [-1, 1], on the device of the process.
    """
    indices = sample_indices(len(data), seed, seen, batch)
    images = to_float(data.batch(indices[world.rank :: world.size])).to(world.device)
    if options.flip:
        mirrored = torch.rand(len(images), generator=source) < 0.5
        images[mirrored] = images[mirrored].flip(3)
    return images
