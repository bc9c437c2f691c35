"""Giving a release bound bits, in closed form: nothing is trained, and it takes a minute or two.

What they change of the weights goes along directions of the features of some pictures, of several
keys: see directions.py. The release that comes out is another one, with instances of its own.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from scalefp.config import ModelConfig
from scalefp.key import Key
from scalefp.metrics import psnr_of
from scalefp.options import check_between
from scalefp.pretrained.directions import (
    FAINT,
    Features,
    factors,
    keyed_convolution,
    settle_strength,
)
from scalefp.pretrained.plain import Generator
from scalefp.release.binding import Binding, BindingSizes, keyed_weight
from scalefp.release.instance import sizes_of, tensor_shapes
from scalefp.release.model import Model, save_release

KEYS, EACH = 16, 8  # whose features count, and pictures of each
TRIED = 4  # keys and bits by which the strength is settled
LEAST_PSNR, MOST_PSNR = 20, 60  # below, pictures are spoilt; above, 8-bit files hold nothing of it


def without_bound_bits(model: Model, key: Key) -> Generator:
    """The network of a key, with layers, as it would be if it carried no bound bits."""
    sizes = model.folding.sizes
    network = Generator(sizes.resolution, sizes.latent_dim, sizes.channels, sizes.maps)
    network.load_state_dict(model.folding.tensors(key))
    return network.eval().requires_grad_(False)


def default_layer(config: ModelConfig) -> str:
    """The last convolution at half of the picture's size, which JPEG spares most."""
    return f"block{int(np.log2(config.resolution)) - 3}_conv"


class Binder:
    """Finds what bound bits change of a release's instances."""

    def __init__(self, model: Model, sizes: BindingSizes, seed: int) -> None:
        self.model, self.sizes = model, sizes
        self.chance, self.source = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        shapes = tensor_shapes(sizes_of(model.generator))
        self.found = Binding(sizes, keyed_weight(sizes.layer, shapes))

    def _bits(self, count: int) -> NDArray[np.uint8]:
        return self.chance.integers(0, 2, count, dtype=np.uint8)

    def _networks(self, count: int, what: str) -> Iterator[tuple[Generator, Tensor]]:
        """Networks of keys drawn at random, and latents for each."""
        config = self.model.config
        for _ in tqdm(range(count), desc=what, unit="key", delay=2, leave=False):
            network = without_bound_bits(self.model, Key.from_bits(self._bits(config.n_bits)))
            yield network, torch.randn(EACH, config.latent_dim, generator=self.source)

    def features(self) -> Features:
        """What the convolution sees, of pictures of several keys."""
        found = Features.none(self.found.others.shape[1], torch.device("cpu"))
        for network, latents in self._networks(KEYS, "features"):
            layer = keyed_convolution(network, [self.sizes.layer])
            with found.watching(layer):
                network(latents)
        return found

    def changed(self) -> tuple[float, float]:
        """PSNR of pictures with random bound bits to those without, and share of the weights."""
        kept, shares = [], []
        for network, latents in self._networks(TRIED, "strength"):
            weight = keyed_convolution(network, [self.sizes.layer]).weight
            was = network(latents)
            change = self.found.change(self._bits(self.sizes.n_bits), weight)
            shares.append(float(change.norm() / weight.norm()))
            weight += change
            kept.append(psnr_of(float((network(latents) - was).square().mean())))
        return fmean(kept), fmean(shares)

    def find(self, psnr: float) -> Binding:
        """Bits that change pictures by so much: their mean PSNR."""
        used = self.features().directions(encoded=False)
        layer = keyed_convolution(
            without_bound_bits(self.model, Key.from_bits(self._bits(self.model.config.n_bits))),
            [self.sizes.layer],
        )
        pair = factors(used, layer, self.sizes.n_bits, self.source)
        # Of one size, so that half precision, in which files hold them, suits both.
        sizes = [float(one.square().mean().sqrt()) for one in pair]
        for factor, values, size in zip(
            (self.found.outputs, self.found.others), pair, sizes, strict=True
        ):
            factor.copy_(values / size)
        self._times(FAINT / self.changed()[1])
        settle_strength(lambda: self.changed()[0], self._times, psnr)
        return self.found

    def _times(self, strength: float) -> None:
        for factor in (self.found.outputs, self.found.others):
            factor.mul_(strength**0.5)


@torch.no_grad()
def bind(model: Model, out: str | Path, sizes: BindingSizes, *, psnr: float, seed: int = 0) -> None:
    """Write the release with bound bits beside the key, in place of those that it may have had.

    Args:
        psnr: in dB, of pictures with bound bits to those without, both as the same key makes them.

    Raises:
        UserError: a PSNR out of range, instances that have no such layer, or one that sees too
            little for so many bits.
    """
    sizes.check()
    check_between("the PSNR of pictures with bound bits", psnr, LEAST_PSNR, MOST_PSNR)
    binding = Binder(model, sizes, seed).find(psnr)
    training = {**model.training, "bound": {"psnr": psnr, "seed": seed}}
    save_release(
        out, model.config, model.generator, model.decoder, training=training, binding=binding
    )
