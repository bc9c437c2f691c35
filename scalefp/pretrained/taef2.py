"""TAEF2, the tiny autoencoder of FLUX.2 latents, in plain torch: a pretrained decoder to modulate.

Its two files of weights (``taef2_encoder.pth`` and ``taef2_decoder.pth``, MIT) hold names and
shapes. What these leave open was found by what reconstructs photographs best, 28.8 dB on eight
crops of 128x128: four groups in the norms (with 8 it is 27.0), the branch with the norm added
before the three convolutions (beside them 28.3, after them 25.8) and latents bounded to 3 (to 2
26.2, to 5 27.3, not at all 25.8).
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalefp.pretrained.source import load_network

LATENT_CHANNELS = 32
FACTOR = 8  # of the image's sides to the latents'
WIDTH = 64  # channels inside
WIDENING, GROUPS = 4, 4  # of the branch with the norm
BOUND = 3.0  # of latents that are decoded


def _conv(inputs: int, outputs: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


class Block(nn.Module):
    """A residual block of three convolutions.

    Args:
        pool: it has a branch besides, of 1x1 convolutions and a norm over the whole picture, by
            which every place learns of all others.
    """

    def __init__(self, width: int, *, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )
        self.pool: nn.Sequential | None = None
        if pool:
            inner = WIDENING * width
            self.pool = nn.Sequential(
                nn.Conv2d(width, inner, 1, bias=False),
                nn.GroupNorm(GROUPS, inner),
                nn.ReLU(),
                nn.Conv2d(inner, width, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Features [b, width, h, w] to features of that shape."""
        if self.pool is not None:
            x = x + self.pool(x)
        return F.relu(self.conv(x) + x)


class Bound(nn.Module):
    """Softly keeps latents within -3 and 3."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / BOUND) * BOUND


class Layers(nn.Sequential):
    """A sequence built from sizes, of which a slice is a plain ``Sequential`` of the same layers.

    That of torch makes a network of the sequence's own class, whose arguments it does not know.
    """

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(list(self.named_children())[index]))
        return super().__getitem__(index)


class Encoder(Layers):
    """Images [b, 3, H, W] in [0, 1] to latents [b, 32, H/8, W/8]; sides are multiples of 8.

    Args:
        width: channels inside; that of the published weights is 64.
    """

    def __init__(self, width: int = WIDTH) -> None:
        def down() -> nn.Conv2d:
            return _conv(width, width, stride=2, bias=False)

        super().__init__(
            _conv(3, width), Block(width),
            down(), *(Block(width) for _ in range(3)),
            down(), *(Block(width) for _ in range(3)),
            down(), *(Block(width, pool=True) for _ in range(3)),
            _conv(width, LATENT_CHANNELS),
        )  # fmt: skip


class Decoder(Layers):
    """Latents [b, 32, h, w] to images [b, 3, 8 h, 8 w], nominally in [0, 1].

    Args:
        width: channels inside; that of the published weights is 64.
    """

    def __init__(self, width: int = WIDTH) -> None:
        def up() -> tuple[nn.Module, nn.Module]:
            return nn.Upsample(scale_factor=2, mode="nearest"), _conv(width, width, bias=False)

        super().__init__(
            Bound(), _conv(LATENT_CHANNELS, width), nn.ReLU(),
            *(Block(width, pool=True) for _ in range(3)), *up(),
            *(Block(width) for _ in range(3)), *up(),
            *(Block(width) for _ in range(3)), *up(),
            Block(width), _conv(width, 3),
        )  # fmt: skip


def load_taef2(folder: Path) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder with the weights of the two published files in a folder.

    Raises:
        UserError: a file is missing or holds other weights.
    """
    encoder, decoder = (
        load_network(
            {
                "_target_": f"{__name__}.{part.title()}",
                "weights": str(folder / f"taef2_{part}.pth"),
            },
            part,
        )
        for part in ("encoder", "decoder")
    )
    for network in (encoder, decoder):  # as convolutions on CPUs want it
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return encoder, decoder
