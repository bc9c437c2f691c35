"""The discriminator: image -> one realness logit (residual, as StyleGAN2's)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalefp.config import ModelConfig
from scalefp.networks.generator import block_resolutions, channels_at
from scalefp.networks.layers import Conv2d, Linear, downsample, is_recomputed, recomputed


class ResidualBlock(nn.Module):
    """Two convolutions and a 1x1 skip; height and width halve between the convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = Conv2d(in_channels, in_channels, 3)
        self.conv1 = Conv2d(in_channels, out_channels, 3)
        self.skip = Conv2d(in_channels, out_channels, 1, active=False)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.skip(downsample(x))
        out: Tensor = (self.conv1(downsample(self.conv0(x))) + skip) * math.sqrt(0.5)
        return out


def minibatch_deviation(x: Tensor, group: int = 4) -> Tensor:
    """Append one map: the mean standard deviation over groups of samples (Karras et al. 2018).

    It lets the discriminator see a batch whose images are too much alike.
    """
    b, _, h, w = x.shape
    group = math.gcd(group, b)
    y = x.float().reshape(group, b // group, -1)
    deviation = (y.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=1)  # [b / group]
    maps = deviation.repeat(group).reshape(b, 1, 1, 1).expand(b, 1, h, w)
    return torch.cat([x, maps.to(x.dtype)], dim=1)


class Discriminator(nn.Module):
    """``D(images [b, 3, R, R]) -> logits [b]``, positive for real.

    A batch of ``sets`` equal parts gives what the parts would give by themselves. With
    ``recompute_from``, blocks of images of this resolution and up keep no activations for the
    backward pass, which computes them again; None = all keep them.

    The first halving is a pixel-unshuffle: 2x2 pixels become channels, nothing is lost and the
    costliest resolution is skipped.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = [channels_at(config, r) for r in block_resolutions(config)[-2::-1]]
        self.stem = Conv2d(12, widths[0], 3)
        self.blocks = nn.Sequential(
            *(ResidualBlock(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        )
        self.conv = Conv2d(widths[-1] + 1, widths[-1], 3)
        self.dense = Linear(widths[-1] * 16, widths[-1], active=True)
        self.output = Linear(widths[-1], 1)
        self.recompute_from: int | None = None

    def forward(self, images: Tensor, sets: int = 1) -> Tensor:
        x = F.pixel_unshuffle(images, 2).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        for block in self.blocks:
            x = recomputed(block, is_recomputed(2 * x.shape[-1], self.recompute_from), x)
        x = self.conv(torch.cat([minibatch_deviation(part) for part in x.chunk(sets)]))
        logits: Tensor = self.output(self.dense(x.flatten(1))).squeeze(1)
        return logits
