"""Changes of what the discriminator sees, of real and generated images alike.

A discriminator that has seen every real image often enough knows them by heart and teaches nothing
more. Changed at random it cannot; and since both kinds are changed alike and the changes pass
gradients on, the generator learns no changed pictures from it (Zhao et al., NeurIPS 2020,
arXiv 2006.10738: mirroring, shifts and colour).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from scalefp.networks.frames import warp

SHIFT = 1 / 8  # of the image's side, at most
BRIGHTNESS = 0.3  # added to pixels in [-1, 1], at most
SATURATION = (0.2, 1.8)  # of the difference from grey
CONTRAST = (0.5, 1.5)  # of the difference from the image's mean


@dataclass(frozen=True)
class Augmentation:
    """What is done to each of b images. Rows are images, so that it is an image's own however the
    batch is split."""

    frame: Tensor  # mirroring and shift, see networks/frames.py [b, 2, 3]
    brightness: Tensor  # added [b]
    saturation: Tensor  # factor [b]
    contrast: Tensor  # factor [b]

    @classmethod
    def draw(
        cls, count: int, side: int, probability: float, source: torch.Generator
    ) -> "Augmentation":
        """The changes of ``count`` images, each of its kinds made with ``probability``.

        Args:
            side: of the images, in pixels; shifts are whole pixels.
            source: of randomness; the result lies on its device.
        """
        chosen, amounts = torch.rand(2, 6, count, generator=source, device=source.device)
        mirrored, x, y, brightness, saturation, contrast = torch.where(
            chosen < probability, 2 * amounts - 1, 0.0
        )  # each in -1..1, 0 where nothing is done
        frame = torch.eye(2, 3, device=source.device).repeat(count, 1, 1)
        frame[:, 0, 0] = torch.where(mirrored < 0, -1.0, 1.0)
        pixels = torch.stack([x, y], dim=1) * (SHIFT * side)
        frame[:, :, 2] = pixels.round() * 2 / side

        def factor(amount: Tensor, low: float, high: float) -> Tensor:
            return 1 + amount * (high - low) / 2

        return cls(
            frame=frame,
            brightness=brightness * BRIGHTNESS,
            saturation=factor(saturation, *SATURATION),
            contrast=factor(contrast, *CONTRAST),
        )

    def of(self, rows: Tensor | slice) -> "Augmentation":
        """Those of some images."""
        return Augmentation(*(values[rows] for values in vars(self).values()))

    def __call__(self, images: Tensor) -> Tensor:
        """The changed images [b, 3, R, R]; what a shift brings in repeats the border."""
        device = images.device
        brightness, saturation, contrast = (
            values.to(device)[:, None, None, None]
            for values in (self.brightness, self.saturation, self.contrast)
        )
        images = images.float() + brightness
        grey = images.mean(dim=1, keepdim=True)
        images = grey + (images - grey) * saturation
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = mean + (images - mean) * contrast
        return warp(images, self.frame.to(device), outside="border")
