"""The fingerprint decoder: image -> one logit per key bit, and the recovered latent."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalefp.config import ModelConfig
from scalefp.discriminator import ResidualBlock
from scalefp.layers import Conv2d, Linear, downsample


class Decoder(nn.Module):
    """``E(images [b, 3, R, R]) -> (logits [b, n], latent [b, dz])``; logit > 0 means bit 1. Secret.

    A discriminator-style trunk, with three changes:

    - Images larger than ``decoder_resolution`` are low-passed to it first, so the fingerprint is
      written where resizing and JPEG leave it alone.
    - The first halving is a pixel-unshuffle, which keeps every pixel where pooling would average
      the fingerprint away, at a quarter of the cost.
    - ``decoder_carriers``: one convolution predicts the picture's own content from its
      neighbourhood, and what is left over is correlated with one learned carrier per bit, as a
      spread-spectrum receiver does (Cox et al. 1997). From the first step on this gives the
      generator a fixed pattern to write for each bit, where a deep trunk alone has to discover
      one by chance.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_bits = config.n_bits
        self.resolution = min(config.resolution, config.decoder_resolution)
        size = self.resolution // 2
        widths = []
        while size >= 4:
            widths.append(min(config.decoder_base // size, config.decoder_max))
            size //= 2
        self.stem = Conv2d(12, widths[0], 3)
        self.blocks = nn.Sequential(
            *(ResidualBlock(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        )
        self.conv = Conv2d(widths[-1], widths[-1], 3)
        self.output = Linear(widths[-1] * 16, config.n_bits + config.latent_dim)
        self.content: Conv2d | None = None
        if config.decoder_carriers:
            self.content = Conv2d(widths[0], 12, 3, active=False)
            self.carriers = Linear(3 * self.resolution**2, config.n_bits)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images
        while x.shape[-1] > self.resolution:
            x = downsample(x)
        pixels = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        features = self.stem(pixels)
        out = self.output(self.conv(self.blocks(features)).flatten(1)).float()
        logits, latent = out[:, : self.n_bits], out[:, self.n_bits :]
        if self.content is not None:
            residual = pixels - self.content(features)
            logits = logits + self.carriers(residual.flatten(1)).float()
        return logits, latent
