"""The fingerprint encoder: image and key -> the residual that marks the image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalefp.artificial.config import MarkConfig
from scalefp.networks.layers import Conv2d, Linear, downsample, upsample
from scalefp.networks.receiver import halved

LEVELS = 2  # halvings between the stem and the bottom of the U
UNIT = 2 ** (LEVELS + 1)  # the U needs sides that are multiples of this
SMALL = 0.1  # initial size of what the U adds to the carriers


class Encoder(nn.Module):
    """``C(images [b, 3, R, R], bits [b, n]) -> residual [b, 3, R, R]``. Secret.

    A U-Net (Ronneberger et al. 2015) on image and key, as StegaStamp's encoder (Tancik et al.
    2020), with three changes:

    - The key enters as the sum of one learned carrier for each bit, as in spread spectrum (Cox et
      al. 1997); the U fits that pattern to the image. Bits enter as -1 and +1, bits that are not
      written as 0.
    - With ``config.psnr`` the residual of every image is scaled to exactly that strength. Training
      then decides where to write, and never how loudly.
    - The first halving is a pixel-unshuffle and the last doubling a pixel-shuffle, which keeps
      every pixel at a quarter of the cost.
    """

    def __init__(self, config: MarkConfig) -> None:
        super().__init__()
        self.config = config
        self.grid = config.decoder_resolution  # height and width of the carriers
        widths = [config.encoder_width * min(2**level, 4) for level in range(LEVELS + 1)]
        self.carriers = Linear(config.n_bits, 3 * self.grid**2, bias=False)
        self.stem = Conv2d(24, widths[0], 3)
        self.down = nn.ModuleList(
            Conv2d(a, b, 3) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.bottom = Conv2d(widths[-1], widths[-1], 3)
        self.up = nn.ModuleList(
            Conv2d(a + b, b, 3) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.output = Conv2d(widths[0] + 12, 12, 3, active=False)
        with torch.no_grad():
            self.output.weight.mul_(SMALL)

    def forward(self, images: Tensor, bits: Tensor, psnr: float | None = None) -> Tensor:
        """The residual to add to the images, in their units.

        Args:
            images: [b, 3, R, R] in [-1, 1].
            bits: [b, n] in {0, 1}.
            psnr: strength in dB instead of ``config.psnr``; without effect where that is None.
        """
        side = images.shape[-1]
        short = -side % UNIT
        pattern = self.carriers(2 * bits.to(images.dtype) - 1).unflatten(1, (3, self.grid, -1))
        if self.grid != side:
            pattern = F.interpolate(pattern, (side, side), mode="bilinear")
        key = halved(F.pad(pattern, (0, short, 0, short)))
        x = halved(F.pad(images, (0, short, 0, short), mode="replicate"))
        x = self.stem(torch.cat([x, key], dim=1))
        skips = []
        for layer in self.down:
            skips.append(x)
            x = layer(downsample(x))
        x = self.bottom(x)
        for layer in self.up:
            x = layer(torch.cat([upsample(x), skips.pop()], dim=1))
        x = self.output(torch.cat([x, key.to(x)], dim=1)).float() + key.float()
        residual = F.pixel_shuffle(x, 2)[:, :, :side, :side]
        if self.config.psnr is None:
            return residual
        power = residual.square().mean(dim=(1, 2, 3), keepdim=True)
        wanted = 2 * 10 ** (-(self.config.psnr if psnr is None else psnr) / 20)  # peak 2
        return residual * (wanted * (power + 1e-12).rsqrt())


def mark(images: Tensor, residual: Tensor) -> Tensor:
    """Images [b, 3, R, R] with a residual on them, within [-1, 1]."""
    return (images + residual).clamp(-1, 1)
