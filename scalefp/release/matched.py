"""Carriers as a matched filter: what an image reads in very many places at once, roughly.

A decoder's carriers are correlated with what is left of a picture once its own content is taken
away, and content is predicted from its neighbourhood. That prediction is learned, but very nearly
linear, so that the rough logits of an image are one matrix times its low-passed pixels. Then all
shifts of a picture take one resampling and one matrix product, as in the registration of images by
correlation: a place costs a fiftieth of what the decoder asks for its own rough logits.

Shape legend: f frames, s shifts, n key bits, R image and r decoder resolution, m margin in pixels
of the decoder.
"""

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefp.networks.decoder import Decoder
from scalefp.networks.frames import compose, inverse
from scalefp.networks.layers import downsample

# The linear prediction is fitted to clouds: pictures of no subject, the same every time.
CLOUDS, NEIGHBOURS, RIDGE = 96, 5, 1e-5


def clouds(count: int, size: int) -> Tensor:
    """Random pictures [count, 3, size, size] in [-1, 1], light, whose contrast is mostly coarse."""
    source = torch.Generator().manual_seed(0)
    pictures, cells = torch.full((count, 3, size, size), 0.5), 1
    while cells <= size:
        contrast = torch.randn(count, 3, cells, cells, generator=source) * 0.6 / cells**0.8
        pictures += F.interpolate(contrast, size=(size, size), mode="bilinear")
        cells *= 2
    return pictures.clamp_(-1, 1)


def linear_content(decoder: Decoder) -> Tensor:
    """Kernel [12, 12, 5, 5] that predicts a picture's content as the decoder does, but linearly.

    Least squares over clouds, with a constant that is left out: the same for all places, it tells
    nothing of them.
    """
    assert decoder.content is not None
    device = decoder.output.weight.device
    pixels = F.pixel_unshuffle(clouds(CLOUDS, decoder.resolution), 2).to(device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    rim = NEIGHBOURS // 2
    content = decoder.content(decoder.stem(pixels))[:, :, rim:-rim, rim:-rim]
    seen = F.unfold(pixels, NEIGHBOURS).transpose(1, 2).flatten(0, 1).cpu().double()
    wanted = content.flatten(2).transpose(1, 2).flatten(0, 1).cpu().double()
    seen, wanted = seen - seen.mean(dim=0), wanted - wanted.mean(dim=0)
    square = seen.T @ seen
    square.diagonal().add_(RIDGE * square.diagonal().mean())
    kernel: Tensor = torch.linalg.solve(square, seen.T @ wanted).float().to(device)
    return kernel.T.reshape(12, 12, NEIGHBOURS, NEIGHBOURS)


class MatchedFilter:
    """Rough logits of one image in many places, for a decoder with carriers."""

    def __init__(self, decoder: Decoder) -> None:
        self.size = decoder.resolution
        self._decoder = decoder

    @cached_property
    def weight(self) -> Tensor:
        """The matrix [3 r r, n]; made on first use, which takes as long as thirty readings."""
        decoder = self._decoder
        carriers = decoder.carriers.weight * decoder.carriers.weight_gain
        carriers = carriers.unflatten(1, (12, self.size // 2, self.size // 2))
        content = F.conv_transpose2d(carriers, linear_content(decoder), padding=NEIGHBOURS // 2)
        return F.pixel_shuffle(carriers - content, 2).flatten(1).T.contiguous()

    def put_back(self, image: Tensor, frames: Tensor, margin: int = 0) -> Tensor:
        """One image [3, R, R] where each frame [f, 2, 3] says that it came from, low-passed.

        Returns:
            [f, 3, r + 2 m, r + 2 m]: 0 where the image does not reach. Before, the mean of its
            border is taken away, so that the border shows little as an edge.
        """
        border = [image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]]
        image = image - torch.cat(border, dim=1).mean(dim=1)[:, None, None]
        grown = 1 + 2 * margin / self.size
        side = round(grown * image.shape[-1])
        canvas = image.new_tensor([[grown, 0, 0], [0, grown, 0]]).expand(len(frames), -1, -1)
        back = compose(inverse(frames), canvas)
        grid = F.affine_grid(back, [len(frames), 3, side, side], align_corners=False)
        pixels = F.grid_sample(image.expand(len(frames), -1, -1, -1), grid, align_corners=False)
        wanted = self.size + 2 * margin
        while pixels.shape[-1] >= 2 * wanted:
            pixels = downsample(pixels)
        if pixels.shape[-1] > wanted:  # R / r is no power of two
            size = (wanted, wanted)
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        return pixels

    def logits(self, image: Tensor, frames: Tensor) -> Tensor:
        """Rough logits [f, n] of one image [3, R, R] in frames [f, 2, 3]."""
        return self.put_back(image, frames).flatten(1) @ self.weight

    def slide(self, image: Tensor, frames: Tensor, reach: int) -> tuple[Tensor, Tensor]:
        """Rough logits of one image in frames [f, 2, 3] and all shifts of these by whole pixels.

        Args:
            reach: shifts go so many of the decoder's pixels to each side.

        Returns:
            The frames [f s, 2, 3] of s = (2 reach + 1)^2 shifts each, and their logits [f s, n].
        """
        canvas = self.put_back(image, frames, reach)
        logits = F.unfold(canvas, self.size).transpose(1, 2) @ self.weight  # [f, s, n]
        # A window that begins further left sees the picture further right.
        steps = torch.arange(reach, -reach - 1, -1, device=frames.device) * (2 / self.size)
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        shifted = frames[:, None].repeat(1, len(steps) ** 2, 1, 1)
        shifted[..., 2] += torch.stack([x, y], dim=-1).flatten(0, 1)
        return shifted.flatten(0, 1), logits.flatten(0, 1)
