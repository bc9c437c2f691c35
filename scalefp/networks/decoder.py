"""The fingerprint decoder: image -> one logit per key bit, and the recovered latent."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalefp.networks.discriminator import ResidualBlock
from scalefp.networks.frames import identity_frame, inverse, warp
from scalefp.networks.layers import Conv2d, Linear, downsample


class DecoderSizes(Protocol):
    """The options that size a decoder; see :class:`scalefp.config.ModelConfig`."""

    resolution: int
    n_bits: int
    latent_dim: int
    decoder_resolution: int
    decoder_base: int
    decoder_max: int
    decoder_carriers: bool
    decoder_localizer: bool


class Localizer(nn.Module):
    """``L(images [b, 3, R, R]) -> frames [b, 2, 3]``: which part of a picture each image shows.

    Trained beside the generator, which learns to leave marks for it (as the alignment template of
    print-and-scan watermarks, Pereira & Pun 2000, but learned). It starts at the identity.
    """

    def __init__(self, resolution: int, base: int, width: int) -> None:
        super().__init__()
        widths = []
        size = resolution // 2
        while size >= 4:
            widths.append(min(base // size, width))
            size //= 2
        self.stem = Conv2d(12, widths[0], 3)
        self.blocks = nn.Sequential(
            *(ResidualBlock(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        )
        self.dense = Linear(widths[-1] * 16, width, active=True)
        self.output = Linear(width, 6)
        with torch.no_grad():
            self.output.weight.mul_(0.01)

    def forward(self, images: Tensor) -> Tensor:
        x = F.pixel_unshuffle(images, 2).contiguous(memory_format=torch.channels_last)
        x = self.blocks(self.stem(x)).flatten(1)
        change: Tensor = self.output(self.dense(x)).float().unflatten(1, (2, 3))
        return identity_frame(len(images), images.device) + change


class Decoder(nn.Module):
    """``E(images [b, 3, R, R]) -> (logits [b, n], latent [b, dz])``; logit > 0 means bit 1. Secret.

    A discriminator-style trunk, with four changes:

    - Images larger than ``decoder_resolution`` are low-passed to it first, so the fingerprint is
      written where resizing and JPEG leave it alone.
    - The first halving is a pixel-unshuffle, which keeps every pixel where pooling would average
      the fingerprint away, at a quarter of the cost.
    - ``decoder_carriers``: one convolution predicts the picture's own content from its
      neighbourhood, and what is left over is correlated with one learned carrier per bit, as a
      spread-spectrum receiver does (Cox et al. 1997). From the first step on this gives the
      generator a fixed pattern to write for each bit, where a deep trunk alone has to discover
      one by chance.
    - ``decoder_localizer``: a fixed pattern can be read only where it was written. An image that
      was cropped or turned is first put back to where it came from; :meth:`locate` estimates that.
    """

    def __init__(self, config: DecoderSizes) -> None:
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
        self.localizer: Localizer | None = None
        if config.decoder_localizer:
            self.localizer = Localizer(
                self.resolution, config.decoder_base // 2, config.decoder_max // 2
            )

    def low_pass(self, images: Tensor) -> Tensor:
        """Images [b, 3, R, R] at no more than the decoder's resolution r."""
        while images.shape[-1] >= 2 * self.resolution:
            images = downsample(images)
        if images.shape[-1] > self.resolution:  # R / r is no power of two
            size = (self.resolution, self.resolution)
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return images

    def locate(self, images: Tensor) -> Tensor:
        """Frames [b, 2, 3] that images [b, 3, R, R] are thought to show; needs a localizer."""
        assert self.localizer is not None
        frames: Tensor = self.localizer(self.low_pass(images))
        return frames

    def look(self, images: Tensor, frame: Tensor | None) -> tuple[Tensor, Tensor]:
        """First features [b, C, r/2, r/2], and the carriers' logits [b, n] (0 without carriers)."""
        inside = None  # 1 where the image reaches, [b, 1, r, r]
        if frame is not None:
            back = inverse(frame)
            images = warp(images, back)
            if self.content is not None:
                whole = images.new_ones(images.shape[0], 1, self.resolution, self.resolution)
                inside = warp(whole, back)
        x = self.low_pass(images)
        pixels = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        features = self.stem(pixels)
        if self.content is None:
            return features, features.new_zeros(images.shape[0], self.n_bits, dtype=torch.float32)
        residual = pixels - self.content(features)
        if inside is not None:
            residual = residual * F.pixel_unshuffle(inside, 2).repeat(1, 3, 1, 1)
        return features, self.carriers(residual.flatten(1)).float()

    def forward(self, images: Tensor, frame: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read images.

        Args:
            images: [b, 3, R, R] in [-1, 1].
            frame: which part of the generated image each one shows, [b, 2, 3] (see frames.py);
                None where nobody moved anything.

        Returns:
            Logits [b, n] and the recovered latents [b, dz].
        """
        features, logits = self.look(images, frame)
        out = self.output(self.conv(self.blocks(features)).flatten(1)).float()
        return out[:, : self.n_bits] + logits, out[:, self.n_bits :]
