"""The generator: latent in at 4x4, key in through the weights, image out.

key bits [b, n] --embedding--> [b, e] --linear, per layer--> scales [b, C]
z [b, dz] --dense--> [b, C, 4, 4] --modulated blocks, x2 each--> skip-summed RGB [b, 3, R, R]
"""

import math

import torch
from torch import Tensor, nn

from scalefp.config import ModelConfig
from scalefp.networks.layers import (
    Linear,
    ModulatedConv2d,
    is_recomputed,
    normalize_2nd_moment,
    recomputed,
    upsample,
)


def channels_at(config: ModelConfig, resolution: int) -> int:
    """Feature channels of the generator and discriminator at one resolution."""
    return min(config.channel_base // resolution, config.channel_max)


def block_resolutions(config: ModelConfig) -> list[int]:
    """4, 8, ..., the image resolution."""
    return [2**i for i in range(2, int(math.log2(config.resolution)) + 1)]


def takes_key(config: ModelConfig, size: int) -> bool:
    """Whether a key modulates the layers whose input is ``size`` pixels wide."""
    return config.key_from <= size <= config.key_to


def map_resolutions(config: ModelConfig) -> list[int]:
    """Where keys have maps: from 16x16, below which a map would lay out the whole picture, to
    what the decoder sees, if a key goes there."""
    if not config.key_maps:
        return []
    seen = [r for r in block_resolutions(config) if 16 <= r <= config.decoder_resolution]
    return [r for r in seen if takes_key(config, r)]


def map_channels(config: ModelConfig) -> int:
    """Channels that have a map of their own: so many patterns a key can lay over one another.

    A key of more bits is read badly, however long the training (experiments/capacity).
    """
    sizes, last = map_resolutions(config), config.resolution
    # At each size the block's own convolution, and the one before the next doubling.
    return sum(channels_at(config, size) * (1 if size == last else 2) for size in sizes)


class KeyEmbedding(nn.Module):
    """Key bits [b, n] in {0, 1} -> embedding [b, e].

    Bits enter as -1 / +1. With ``mapping_layers`` 0 the embedding is one linear map; otherwise an
    MLP of that many layers (8 in the published setting), whose weights learn at
    ``mapping_lr_multiplier`` of the common rate. Bits that a training curriculum has not switched
    on enter as 0 and leave the embedding as if they did not exist.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inputs = [config.n_bits] + [config.embedding_width] * (config.mapping_layers - 1)
        layers: list[nn.Module] = [
            Linear(
                width,
                config.embedding_width,
                lr_multiplier=config.mapping_lr_multiplier,
                active=True,
            )
            for width in inputs
        ]
        if config.mapping_layers == 0:
            # Without a bias opposite keys have opposite embeddings, and all average out.
            layers = [Linear(config.n_bits, config.embedding_width, bias=False)]
        self.layers = nn.Sequential(*layers)

    def forward(self, bits: Tensor, active: Tensor | None = None) -> Tensor:
        signs = bits.to(torch.float32) * 2 - 1
        if active is not None:
            signs = signs * active
        embedding: Tensor = self.layers(signs)
        return embedding

    @torch.no_grad()
    def ignore_keys_(self) -> None:
        """Give every key the embedding that no bit switched on has, for a twin without keys."""
        self.layers[0].weight.zero_()  # type: ignore[operator]


class GeneratorBlock(nn.Module):
    """One resolution: modulated convolutions and a modulated RGB output.

    From 8x8 on the first convolution runs before the upsampling, where it costs a quarter.
    """

    def __init__(self, config: ModelConfig, resolution: int) -> None:
        super().__init__()
        channels, width = channels_at(config, resolution), config.embedding_width

        def conv(in_channels: int, size: int) -> ModulatedConv2d:
            return ModulatedConv2d(
                in_channels, channels, 3, width,
                map_size=size if size in map_resolutions(config) else 0,
                key_gain=config.key_gain, takes_key=takes_key(config, size),
            )  # fmt: skip

        self.before: ModulatedConv2d | None = None
        if resolution > 4:
            self.before = conv(channels_at(config, resolution // 2), resolution // 2)
        self.conv = conv(channels, resolution)
        self.to_rgb = ModulatedConv2d(
            channels, 3, 1, width, demodulate=False,
            key_gain=config.key_gain, takes_key=takes_key(config, resolution),
        )  # fmt: skip

    def forward(self, x: Tensor, rgb: Tensor | None, embedding: Tensor) -> tuple[Tensor, Tensor]:
        if self.before is not None:
            x = upsample(self.before(x, embedding))
        x = self.conv(x, embedding)
        skip = self.to_rgb(x, embedding).float()
        return x, skip if rgb is None else upsample(rgb) + skip


class Generator(nn.Module):
    """The trainable parent ``G(z, bits)``: secret, since it can emit every fingerprint.

    Args of ``forward``:
        z: latents [b, dz], standard normal.
        bits: key bits [b, n] in {0, 1}.
        active: [n], 1 for each bit that the curriculum has switched on, else 0 (None: all are).

    Attributes:
        recompute_from: blocks of this resolution and up keep no activations for the backward pass,
            which computes them again; None = all keep them.

    Returns:
        Images [b, 3, R, R]; nominal range [-1, 1], not clamped.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = KeyEmbedding(config)
        self.input = Linear(config.latent_dim, channels_at(config, 4) * 16, active=True)
        self.blocks = nn.ModuleList(GeneratorBlock(config, r) for r in block_resolutions(config))
        self.recompute_from: int | None = None

    def forward(self, z: Tensor, bits: Tensor, active: Tensor | None = None) -> Tensor:
        return self.synthesize(z, self.embedding(bits, active))

    @torch.no_grad()
    def strengthen_key_(self, factor: float) -> None:
        """Multiply what a key changes in every layer, in place.

        The images of a latent under two keys then differ about as many times as much: reading
        becomes surer and the fingerprint more visible, without training.
        """
        for layer in self.modules():
            if isinstance(layer, ModulatedConv2d):
                layer.key_change.weight.mul_(factor)

    def synthesize(self, z: Tensor, embedding: Tensor) -> Tensor:
        """Images [b, 3, R, R] of latents [b, dz] under key embeddings [b, e]."""
        x = self.input(normalize_2nd_moment(z)).unflatten(1, (-1, 4, 4))
        x = x.contiguous(memory_format=torch.channels_last)
        rgb: Tensor | None = None
        for resolution, block in zip(block_resolutions(self.config), self.blocks, strict=True):
            again = is_recomputed(resolution, self.recompute_from)
            x, rgb = recomputed(block, again, x, rgb, embedding)
        assert rgb is not None
        return rgb
