"""A generator as its author wrote it, in a file of his own. It knows nothing of fingerprints."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT, SIDE = 6, 16


class Generator(nn.Module):
    """``G(z [b, 6]) -> images [b, 3, 16, 16]`` in [0, 1]."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.dense = nn.Linear(LATENT, width * 16)
        self.body = nn.Sequential(
            nn.Unflatten(1, (width, 4, 4)),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(True),
        )
        self.out = nn.ConvTranspose2d(width, 3, 4, 2, 1)

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.out(self.body(self.dense(z))))


class Noisy(Generator):
    """Draws on its own."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) + 0.01 * torch.randn(len(z), 3, SIDE, SIDE)


class Grey(Generator):
    """Makes pictures of one channel."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z)[:, :1]


class Bright(Generator):
    """Makes pictures from 0 to 255."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) * 255


class NoLayers(nn.Module):
    """Has weights, but no layer that could be modulated."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, z: Tensor) -> Tensor:
        return self.weight + z.mean(dim=1)[:, None, None, None].expand(-1, 3, SIDE, SIDE)


class Latents:
    """What feeds it."""

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        return torch.randn(count, LATENT, generator=source)


class Wide(Latents):
    """Latents of another width than it takes."""

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        return torch.randn(count, LATENT + 1, generator=source)


class Coder(nn.Module):
    """Encodes pictures [b, 3, H, W] in [0, 1] by the means of 4x4 pixels, with a gain."""

    def __init__(self, factor: int = 4) -> None:
        super().__init__()
        self.factor = factor
        self.gain = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        return F.avg_pool2d(pictures, self.factor) * self.gain


class Painter(nn.Module):
    """Paints pictures [b, 3, 4 h, 4 w] in [0, 1] of latents [b, 3, h, w], of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU())
        self.out = nn.Conv2d(12, 48, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(F.pixel_shuffle(self.out(self.body(latents)), 4))


# How his autoencoder is named in an experiment, to be filled with a folder and a side in pixels.
AUTOENCODER = """# @package _global_
generator:
  _target_: tests.pretrained.own_generator.Painter
  weights: {folder}/painter.pt
inputs:
  _target_: scalefp.pretrained.inputs.Encoded
  images: {folder}/pictures
  crop: {side}
  encoder:
    _target_: tests.pretrained.own_generator.Coder
    weights: {folder}/coder.pt
  range: [0, 1]
"""


class Loop(Generator):
    """Looks at what it computes, which no exporter can follow."""

    def forward(self, z: Tensor) -> Tensor:
        images = super().forward(z)
        return images if float(images.mean()) > 0 else images.flip(1)


class Sketcher(nn.Module):
    """``G(z [b, 6]) -> images [b, 3, 16, 16]`` in [0, 1], by convolutions after an upsampling."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.dense = nn.Linear(LATENT, width * 16)
        self.fine = nn.Conv2d(width, width, 3, padding=1)
        self.finer = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(self.dense(z)).unflatten(1, (-1, 4, 4))
        for layer in (self.fine, self.finer):
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
            x = F.leaky_relu(layer(x), 0.2)
        return torch.sigmoid(self.out(x))


class Bypass(Sketcher):
    """In which something passes by the convolution ``fine``, and has to have as many inputs."""

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(self.dense(z)).unflatten(1, (-1, 4, 4))
        x = torch.cat([x[:, :12], self.fine(x)[:, :12]], dim=1)
        x = F.interpolate(x, scale_factor=4, mode="bilinear")
        return torch.sigmoid(self.out(F.leaky_relu(self.finer(x), 0.2)))
