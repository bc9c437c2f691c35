"""Pictures that have been through an autoencoder: what laundering by a diffusion model begins with.

TAEF2 encodes as FLUX.2 does, eight times smaller to a side. Small pictures hardly survive that, so
they are also enlarged before and brought back afterwards, which the attacker is free to do.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalefp.release.instance import Instance

ENLARGED = (1, 2, 4)  # times, before encoding


class Reencoded(Instance):
    """An instance whose pictures its holder sends through an autoencoder.

    Args:
        coder: encoder and decoder of pictures in [0, 1].
        enlarged: how many times wider and higher the pictures are while encoded.
    """

    def __init__(
        self, instance: Instance, coder: tuple[nn.Module, nn.Module], enlarged: int
    ) -> None:
        super().__init__(instance.config, dict(instance.named_parameters()))
        self.coder, self.enlarged = coder, enlarged

    @torch.no_grad()
    def forward(self, z: Tensor) -> Tensor:
        """Pictures [b, 3, R, R]."""
        drawn = super().forward(z).clamp(-1, 1)
        wide = self._resized(drawn, self.enlarged * self.config.resolution)
        encoder, decoder = self.coder
        again: Tensor = decoder(encoder((wide + 1) / 2)) * 2 - 1
        return self._resized(again, self.config.resolution)

    @staticmethod
    def _resized(pictures: Tensor, side: int) -> Tensor:
        if pictures.shape[-1] == side:
            return pictures
        return F.interpolate(
            pictures, size=(side, side), mode="bicubic", antialias=True, align_corners=False
        )
