"""Giving a release bound bits, in closed form: nothing is trained, and it takes a minute or two.

What they change of the weights goes along directions of the features of some pictures, of several
keys: see directions.py. The release that comes out is another one, with instances of its own.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from scalefp.config import ModelConfig
from scalefp.key import Key
from scalefp.metrics import psnr_of
from scalefp.options import check_between
from scalefp.pretrained.directions import (
    FAINT,
    Features,
    check_enough,
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
        self.secret = model.folding.secret
        shapes = tensor_shapes(sizes_of(model.generator))
        self.found = Binding(sizes, keyed_weight(sizes.layer, shapes))

    def _networks(self, count: int, what: str) -> Iterator[tuple[Key, Generator, Tensor]]:
        """Keys drawn at random, the network of each, and latents."""
        config = self.model.config
        for _ in tqdm(range(count), desc=what, unit="key", delay=2, leave=False):
            key = Key.from_bits(self.chance.integers(0, 2, config.n_bits, dtype=np.uint8))
            latents = torch.randn(EACH, config.latent_dim, generator=self.source)
            yield key, without_bound_bits(self.model, key), latents

    def features(self) -> Features:
        """What the convolution sees, of pictures of several keys."""
        found = Features.none(self.found.directions.shape[1], torch.device("cpu"))
        for _, network, latents in self._networks(KEYS, "features"):
            layer = keyed_convolution(network, [self.sizes.layer])
            with found.watching(layer):
                network(latents)
        return found

    def changed(self) -> tuple[float, float]:
        """PSNR of pictures with bound bits to those without, and share of the weights."""
        kept, shares = [], []
        for key, network, latents in self._networks(TRIED, "strength"):
            weight = keyed_convolution(network, [self.sizes.layer]).weight
            was = network(latents)
            change = self.found.change(self.secret, key, weight)
            shares.append(float(change.norm() / weight.norm()))
            weight += change
            kept.append(psnr_of(float((network(latents) - was).square().mean())))
        return fmean(kept), fmean(shares)

    def find(self, psnr: float) -> Binding:
        """Bits that change pictures by so much: their mean PSNR."""
        directions, used = self.found.directions, self.features().directions(encoded=False)
        check_enough(used, self.found.channels, self.sizes.n_bits)
        directions.copy_(used[: len(directions)] / used.square().mean().sqrt())
        directions.mul_(FAINT / self.changed()[1])
        settle_strength(lambda: self.changed()[0], directions.mul_, psnr)
        return self.found


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
