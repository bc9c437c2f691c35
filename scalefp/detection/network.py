"""A small residual network that tells marked images from clean ones, as pixels or filtered."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalefp.data.images import to_float
from scalefp.detection.examples import Examples
from scalefp.detection.filters import high_pass_filters
from scalefp.detection.fitting import BATCH, Batch, computing, fit
from scalefp.detection.scores import Detector, Scores

CROP = 64  # side of what a network is trained on; it judges whole images
TRUNCATION = 12 / 127.5  # of high-passed values: what exceeds 12 grey levels is the picture's own


class Block(nn.Module):
    """Two convolutions beside a shortcut, the first of which may halve the image."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.shortcut(x))


class Network(nn.Module):
    """``N(images [b, 3, R, R] in [-1, 1]) -> logits [b]``, above 0: marked.

    As the networks of steganalysis do (SRNet, Boroumand et al. 2019), it looks at every pixel
    before it looks at less, and judges by the average of local features.
    """

    def __init__(self, *, high_pass: bool, width: int = 24) -> None:
        super().__init__()
        self.filters: Tensor | None
        self.register_buffer("filters", high_pass_filters()[:, None] if high_pass else None)
        self.stem = nn.Conv2d(4 * (21 if high_pass else 3), width, 3, padding=1)
        self.blocks = nn.Sequential(
            Block(width, width, stride=1),
            Block(width, 2 * width, stride=2),
            Block(2 * width, 4 * width, stride=2),
        )
        self.output = nn.Linear(4 * width, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        if self.filters is not None:
            planes = F.conv2d(images.flatten(0, 1)[:, None], self.filters, padding=2)
            x = planes.clamp(-TRUNCATION, TRUNCATION).unflatten(0, (-1, 3)).flatten(1, 2)
            x = x / TRUNCATION
        # In full precision up to here: bfloat16 would round a weak mark away.
        x = self.stem(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        with computing(images.device):
            x = self.blocks(x)
        return torch.as_tensor(self.output(x.float().mean(dim=(2, 3))))[:, 0]


def _draw(examples: Examples, draw: np.random.Generator) -> Tensor:
    """A batch [BATCH, 3, s, s], the clean half first, of at most CROP pixels a side.

    Pairs are mirrored and turned alike, for whatever the key, a mark stays a mark; the mark of ONE
    key must stay where it is.
    """
    first = draw.integers(0, len(examples.clean), BATCH // 2)
    second = first if examples.paired else draw.integers(0, len(examples.marked), BATCH // 2)
    batch = torch.cat([examples.clean[first], examples.marked[second]])
    if examples.paired:
        batch = batch.rot90(int(draw.integers(4)), (2, 3))
        batch = batch.flip(3) if draw.random() < 0.5 else batch
    room = max(0, batch.shape[-1] - CROP)
    top, left = (2 * int(x) for x in draw.integers(0, room // 2 + 1, 2))
    return to_float(batch[:, :, top : top + CROP, left : left + CROP])


def train_network(examples: Examples, *, high_pass: bool, images: int, seed: int) -> Detector:
    """A network trained on so many images, half of each batch marked."""
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    network = Network(high_pass=high_pass)
    labels = torch.arange(BATCH).ge(BATCH // 2).float()
    title = "high-pass network" if high_pass else "network"

    def batch() -> Batch:
        return _draw(examples, draw), labels

    fit(network, batch, F.binary_cross_entropy_with_logits, images=images, title=title)

    @torch.inference_mode()
    def detect(pixels: Tensor) -> Scores:
        parts = [network(to_float(part)) for part in pixels.split(128)]
        return torch.cat(parts).double().numpy()

    return detect
