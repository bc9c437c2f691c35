"""Giving a release bound bits, in closed form: nothing is trained, and it takes a minute or two.

What they change of the weights goes along directions of the features of some pictures, of several
keys: see directions.py. The release that comes out is another one, with instances of its own.
"""

from collections.abc import Iterator
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from scalefp.config import ModelConfig
from scalefp.key import Key
from scalefp.metrics import psnr_of
from scalefp.pretrained.directions import (
    Convolution,
    Features,
    factors,
    keyed_convolution,
    seen,
    sees,
    unbound,
    whitened,
)
from scalefp.pretrained.plain import Generator
from scalefp.release.binding import Binding, BindingSizes, keyed_weight
from scalefp.release.instance import sizes_of, tensor_shapes
from scalefp.release.model import Model

KEYS, EACH = 16, 8  # whose features count, and pictures of each
TRIED = 4  # keys and bits by which the strength is settled
FAINT = 1e-2  # a change of weights, beside these, of which pictures are nearly linear


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
            assert sees(layer) == self.found.others.shape[1]

            def add(module: Convolution, inputs: tuple[Tensor, ...]) -> None:
                found.add(seen(module, inputs[0]))

            layer.register_forward_pre_hook(add)
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
        features = self.features()
        moment, mean, places = (
            sums / features.pictures for sums in (features.moment, features.mean, features.places)
        )
        used = unbound(whitened(moment, mean), places).float()
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
        for _ in range(2):  # the second time from nearby, as pictures are no linear function of it
            self._times(10 ** ((self.changed()[0] - psnr) / 20))
        return self.found

    def _times(self, strength: float) -> None:
        for factor in (self.found.outputs, self.found.others):
            factor.mul_(strength**0.5)


@torch.no_grad()
def bind(model: Model, sizes: BindingSizes, *, psnr: float, seed: int = 0) -> Model:
    """The release with bound bits beside the key, in place of those that it may have had.

    Args:
        psnr: in dB, of pictures with bound bits to those without, both as the same key makes them.

    Returns:
        A release in memory without a digest of its own: save and read it.

    Raises:
        UserError: instances have no such layer, or it sees too little for so many bits.
    """
    sizes.check()
    binding = Binder(model, sizes, seed).find(psnr)
    note = {"bound": {"psnr": psnr, "seed": seed}}
    return Model(
        model.config, model.generator, model.decoder, training={**model.training, **note},
        digest=model.digest, binding=binding,
    )  # fmt: skip
