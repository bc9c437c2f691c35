"""StyleGAN2 in plain PyTorch as the paper and its ports write it: the reference for speed.

Karras et al., CVPR 2020, arXiv 1912.04958: each sample convolved with weights of its own by a
grouped convolution (eqs. 1 and 3), transposed convolutions and separable 1 3 3 1 filters for
resampling, residual discriminator, skip-summed RGB, all in float32 and channels first. Only the
noise inputs are left out. Key bits take the place of the style, as in Yu et al., ICLR 2022.

Shape legend: b batch, I and O channels, H W height and width, n key bits, e embedding width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalefp.config import ModelConfig
from scalefp.networks.discriminator import minibatch_deviation
from scalefp.networks.generator import KeyEmbedding, block_resolutions, channels_at
from scalefp.networks.layers import Linear, normalize_2nd_moment


def low_pass(channels: int) -> Tensor:
    """The filter 1 3 3 1 both ways, for each channel: [C, 1, 4, 4]."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return (taps[:, None] * taps / taps.sum() ** 2).expand(channels, 1, 4, 4)


def activated(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class ModulatedConv(nn.Module):
    """Weights of each sample's own, in one grouped convolution; optionally doubles H and W."""

    filter: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: int, embedding: int, *, up: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1))
        self.affine = Linear(embedding, inputs)
        self.gain = 1 / math.sqrt(inputs * kernel * kernel)
        self.up = up
        if up:
            self.register_buffer("filter", low_pass(outputs) * 4, persistent=False)

    def forward(self, x: Tensor, embedding: Tensor, *, demodulate: bool = True) -> Tensor:
        b, inputs, height, width = x.shape
        outputs, _, k, _ = self.weight.shape
        scales = 1 + self.affine(embedding)
        weight = self.weight * self.gain * scales[:, None, :, None, None]  # [b, O, I, k, k]
        if demodulate:
            weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        x = x.reshape(1, b * inputs, height, width)
        if self.up:
            weight = weight.transpose(1, 2).reshape(b * inputs, outputs, k, k)
            x = F.conv_transpose2d(x, weight, stride=2, groups=b)
            x = x.unflatten(1, (b, outputs))[0]
            x = F.conv2d(x, self.filter, padding=1, groups=outputs)
        else:
            x = F.conv2d(x, weight.flatten(0, 1), padding=k // 2, groups=b)
            x = x.unflatten(1, (b, outputs))[0]
        return x + self.bias


class Generator(nn.Module):
    """``G(z [b, dz], bits [b, n]) -> images [b, 3, R, R]``."""

    filter: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = [channels_at(config, r) for r in block_resolutions(config)]
        e = config.embedding_width
        self.embedding = KeyEmbedding(config)
        self.input = Linear(config.latent_dim, widths[0] * 16)
        self.first = ModulatedConv(widths[0], widths[0], 3, e)
        self.ups = nn.ModuleList(
            ModulatedConv(a, b, 3, e, up=True) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.convs = nn.ModuleList(ModulatedConv(w, w, 3, e) for w in widths[1:])
        self.to_rgb = nn.ModuleList(ModulatedConv(w, 3, 1, e) for w in widths)
        self.register_buffer("filter", low_pass(3) * 4, persistent=False)

    def forward(self, z: Tensor, bits: Tensor) -> Tensor:
        embedding = self.embedding(bits)
        x = activated(self.input(normalize_2nd_moment(z))).unflatten(1, (-1, 4, 4))
        x = activated(self.first(x, embedding))
        rgb: Tensor = self.to_rgb[0](x, embedding, demodulate=False)
        for up, conv, to_rgb in zip(self.ups, self.convs, self.to_rgb[1:], strict=True):
            x = activated(up(x, embedding))
            x = activated(conv(x, embedding))
            rgb = F.conv_transpose2d(rgb, self.filter, stride=2, padding=1, groups=3)
            rgb = rgb + to_rgb(x, embedding, demodulate=False)
        return rgb


class Conv(nn.Module):
    """Convolution with equalized learning rate; optionally filters and halves H and W."""

    filter: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, *, down: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = 1 / math.sqrt(inputs * kernel * kernel)
        self.down = down
        if down:
            self.register_buffer("filter", low_pass(inputs), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        k = self.weight.shape[-1]
        if self.down:
            x = F.conv2d(x, self.filter, padding=1 + k // 2, groups=x.shape[1])
            return F.conv2d(x, self.weight * self.gain, self.bias, stride=2)
        return F.conv2d(x, self.weight * self.gain, self.bias, padding=k // 2)


class Discriminator(nn.Module):
    """``D(images [b, 3, R, R]) -> [b, outputs]``; with more outputs than one it is the decoder."""

    def __init__(self, config: ModelConfig, outputs: int = 1) -> None:
        super().__init__()
        widths = [channels_at(config, r) for r in block_resolutions(config)[::-1]]
        self.deviation = outputs == 1
        self.from_rgb = Conv(3, widths[0], 1)
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.first = nn.ModuleList(Conv(a, a, 3) for a, _ in pairs)
        self.second = nn.ModuleList(Conv(a, b, 3, down=True) for a, b in pairs)
        self.skips = nn.ModuleList(Conv(a, b, 1, down=True) for a, b in pairs)
        self.conv = Conv(widths[-1] + self.deviation, widths[-1], 3)
        self.dense = Linear(widths[-1] * 16, widths[-1])
        self.output = Linear(widths[-1], outputs)

    def forward(self, images: Tensor) -> Tensor:
        x = activated(self.from_rgb(images))
        for first, second, skip in zip(self.first, self.second, self.skips, strict=True):
            x = (activated(second(activated(first(x)))) + skip(x)) * math.sqrt(0.5)
        if self.deviation:
            x = minibatch_deviation(x)
        x = activated(self.conv(x)).flatten(1)
        logits: Tensor = self.output(activated(self.dense(x)))
        return logits
