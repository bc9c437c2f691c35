"""The images of the owner and of his adversaries, as 8-bit files.

The plain generator is the release with no key bit switched on: the same weights, maps and latents,
and nothing written. What is told apart is the fingerprint, not two trainings. Or it is a twin of
the release, which was trained in the same way without keys.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from scalefp.data.images import to_uint8
from scalefp.detection.examples import Examples
from scalefp.key import Key
from scalefp.networks.generator import Generator
from scalefp.release.instance import instantiate
from scalefp.release.model import Model

THREATS = ("shadow", "informed", "the key")
VICTIMS = 4  # instances in the test; of the very key there is one
COPIES = 8  # other instances whose images the informed adversary has
BATCH = 64


@torch.inference_mode()
def without_key(generator: Generator, latents: Tensor) -> Tensor:
    """What a generator draws with no key bit switched on, uint8 [b, 3, R, R]."""
    n = generator.config.n_bits
    off = torch.zeros(n)
    images = [
        to_uint8(generator(z, torch.zeros(len(z), n), off).clamp(-1, 1))
        for z in latents.split(BATCH)
    ]
    return torch.cat(images)


class Party:
    """A release, and what its plain generator and its instances draw.

    Its fingerprints may be weaker than it was trained to write them: ``strength`` times what a key
    changes in every layer. The plain generator stays the same.

    Args:
        twin: a release that was trained without keys, whose pictures are the clean ones; None = the
            plain generator's are.
    """

    def __init__(
        self, model: Model, seed: int, strength: float = 1.0, twin: Model | None = None
    ) -> None:
        self.model, self.seed, self.strength, self.twin = model, seed, strength, twin
        self.generator = copy.deepcopy(model.generator)
        self.generator.strengthen_key_(strength)

    def draw(self, *which: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *which])

    def keys(self, count: int, which: int) -> list[Key]:
        n, draw = self.model.config.n_bits, self.draw(0, which)
        return [Key.from_hex(draw.bytes(n // 8).hex(), n) for _ in range(count)]

    def latents(self, count: int, which: int) -> Tensor:
        shape = (count, self.model.config.latent_dim)
        return torch.from_numpy(self.draw(1, which).standard_normal(shape, np.float32))

    def plain(self, latents: Tensor) -> Tensor:
        """What the generator draws with no key bit switched on, uint8 [b, 3, R, R]."""
        return without_key(self.generator, latents)

    def clean(self, latents: Tensor) -> Tensor:
        """Pictures without a fingerprint, uint8 [b, 3, R, R]: the twin's if there is one."""
        return (
            self.plain(latents) if self.twin is None else without_key(self.twin.generator, latents)
        )

    @torch.inference_mode()
    def fingerprinted(self, latents: Tensor, keys: list[Key]) -> Tensor:
        """The same of instances, one part of the latents for each key, uint8 [b, 3, R, R]."""
        images = []
        for part, key in zip(latents.chunk(len(keys)), keys, strict=True):
            instance = instantiate(self.generator, key)
            images += [to_uint8(instance(z).clamp(-1, 1)) for z in part.split(BATCH)]
        return torch.cat(images)

    def examples(self, count: int) -> Examples:
        """So many clean images, and as many of COPIES other instances."""
        latents = self.latents(count, 2)
        # In turn over the latents, so that any part of the examples shows all copies.
        order = torch.arange(count).reshape(-1, COPIES).T.flatten()
        marked = torch.empty_like(pictures := self.clean(latents))
        marked[order] = self.fingerprinted(latents[order], self.keys(COPIES, 1))
        return Examples(pictures, marked, paired=self.twin is None)

    def without_twin(self) -> Party:
        """The same, whose clean images are its own without a key."""
        return Party(self.model, self.seed, self.strength)


class Scene:
    """One owner, one adversary, and latents that no two sets of images share.

    Args:
        shadows: the adversary's own releases; empty if he has none.
        twin: of the owner's release, trained without keys.
        shadow_twins: of the shadows, in their order; empty if they have none.

    Attributes:
        clean, marked: the test, uint8 [n, 3, R, R]: of the plain generator, and of each of
            ``victims`` as many, one after the other.
    """

    def __init__(
        self,
        owner: Model,
        shadows: Sequence[Model] = (),
        *,
        images: int,
        seed: int,
        strength: float = 1.0,
        twin: Model | None = None,
        shadow_twins: Sequence[Model] = (),
    ) -> None:
        self.owner, self.images = Party(owner, seed, strength, twin), images
        self.shadows = [
            Party(one, seed, strength, of_one) for one, of_one in zip_longest(shadows, shadow_twins)
        ]
        self.victims = self.owner.keys(VICTIMS, 0)
        self.clean = self.owner.clean(self.owner.latents(images, 0))
        self.marked = self.owner.fingerprinted(self.owner.latents(images, 1), self.victims)

    def examples(self, threat: str, count: int) -> list[Examples]:
        """So many images of each class of every release from which one adversary learns."""
        if threat == "shadow":
            return [shadow.examples(count) for shadow in self.shadows]
        if threat == "informed":
            return [self.owner.examples(count)]
        marked = self.owner.fingerprinted(self.owner.latents(count, 3), self.victims[:1])
        return [Examples(self.owner.clean(self.owner.latents(count, 2)), marked, paired=False)]

    def tested(self, threat: str) -> tuple[Tensor, Tensor]:
        """Plain images and as many fingerprinted ones that this adversary has to judge."""
        marked = self.marked.chunk(VICTIMS)[0] if threat == "the key" else self.marked
        return self.clean[: len(marked)], marked
