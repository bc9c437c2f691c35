"""A small network that sorts images into classes: the baseline of attribution and of detection.

In the manner of Yu et al. (ICCV 2019) with a class for each source of images; with the classes real
and generated, and images blurred and compressed in training, in that of Wang et al. (CVPR 2020).
Theirs are larger networks trained on hundreds of thousands of images.

Shape legend: b images, c classes.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor, nn

from scalefp.data.images import to_float
from scalefp.detection.fitting import BATCH, Batch, computing, fit
from scalefp.detection.network import Block

BLUR = 0.86  # pixels of 64, as 3 of 224: the largest deviation of Wang et al.
QUALITIES = (30, 100)  # of JPEG, as theirs

Change = Callable[[Tensor, np.random.Generator], Tensor]  # of uint8 [b, 3, R, R]
Probabilities = NDArray[np.float64]  # [b, c]


class Classifier(nn.Module):
    """``C(images [b, 3, R, R] in [-1, 1]) -> logits [b, c]``.

    The last features keep their places, since a fingerprint may lie anywhere in the image but lies
    at the same place in all images of an instance.
    """

    def __init__(self, classes: int, *, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3 * 4 * 4, width, 3, padding=1)
        self.blocks = nn.Sequential(
            Block(width, width, stride=1),
            Block(width, 2 * width, stride=2),
            Block(2 * width, 2 * width, stride=2),
        )
        self.output = nn.LazyLinear(classes)

    def forward(self, images: Tensor) -> Tensor:
        x = F.pixel_unshuffle(images, 4).contiguous(memory_format=torch.channels_last)
        with computing(images.device):
            x = self.blocks(self.stem(x))
        return torch.as_tensor(self.output(x.float().flatten(1)))


def blur_and_jpeg(pixels: Tensor, draw: np.random.Generator) -> Tensor:
    """Every second image blurred, every second compressed, each drawn by itself (Wang et al.)."""
    changed = []
    for pixel in pixels:
        image = Image.fromarray(pixel.permute(1, 2, 0).numpy())
        if draw.random() < 0.5:
            image = image.filter(ImageFilter.GaussianBlur(draw.uniform(0, BLUR)))
        if draw.random() < 0.5:
            file = BytesIO()
            image.save(file, "JPEG", quality=int(draw.integers(*QUALITIES, endpoint=True)))
            image = Image.open(file)
        changed.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return torch.stack(changed)


def train_classifier(
    classes: list[Tensor],
    *,
    images: int,
    seed: int,
    change: Change | None = None,
    title: str = "classifier",
) -> Callable[[Tensor], Probabilities]:
    """A classifier trained on so many images, of each class as many.

    Args:
        classes: for each class its images, uint8 [., 3, R, R].
        images: repetitions counted.
        change: what happens to images before they are learned from.

    Returns:
        Images uint8 [b, 3, R, R] -> probabilities of the classes [b, c].
    """
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    network = Classifier(len(classes))
    network(torch.zeros(2, *classes[0].shape[1:]))  # its last layer takes the size of its input

    def batch() -> Batch:
        labels = draw.permutation(BATCH + len(classes))[:BATCH] % len(classes)
        chosen = [classes[k][draw.integers(len(classes[k]))] for k in labels]
        pixels = torch.stack(chosen)
        pixels = pixels if change is None else change(pixels, draw)
        return to_float(pixels), torch.from_numpy(labels)

    fit(network, batch, F.cross_entropy, images=images, title=title)

    @torch.inference_mode()
    def judge(pixels: Tensor) -> Probabilities:
        parts = [network(to_float(part)).softmax(dim=1) for part in pixels.split(128)]
        return torch.cat(parts).double().numpy()

    return judge
