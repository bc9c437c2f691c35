"""One owner, one adversary, and images that neither of them shares with the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scalefp.artificial.encoder import mark
from scalefp.artificial.marker import BATCH, WEAKEST, Marker
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_float, to_uint8
from scalefp.detection.examples import Examples
from scalefp.detection.scores import GROUP
from scalefp.evaluation.samples import EvaluateConfig, reading_figures
from scalefp.key import Key

THREATS = ("shadow", "informed", "the key")
VICTIMS = 4  # keys of the owner in the test; of the very key there is one
# Of all images: the adversary's own, those that the owner publishes, and the test's.
SHARES = (0.4, 0.3, 0.3)
POOLS = {1, GROUP, 4 * GROUP}  # images of one key that the owner reads together; and all of them
ISSUED = 1_000_000  # keys among which he attributes


@torch.inference_mode()
def write(marker: Marker, images: Tensor, bits: Tensor, psnr: float | None) -> Tensor:
    """:meth:`Marker.mark`, also at strengths that it refuses because rounding to 8 bits takes most
    of the mark: how much of it is left is the question here."""
    if psnr is None or psnr <= WEAKEST:
        return marker.mark(images, bits, psnr=psnr)
    marked = []
    every = bits.expand(len(images), -1)
    for part, keys in zip(images.split(BATCH), every.split(BATCH), strict=True):
        pixels = to_float(part)
        marked.append(to_uint8(mark(pixels, marker.encoder(pixels, keys, psnr=psnr))))
    return torch.cat(marked)


class Scene:
    """The images of all parties and their marks.

    Attributes:
        own, published, clean, other: uint8 [., 3, R, R]: the adversary's; those that the owner
            marks by the victim's key; and the test's, of which ``other`` will be marked.
        victims: the owner's keys, [VICTIMS, n].
    """

    def __init__(
        self,
        owner: Marker,
        shadow: Marker | None,
        data: str,
        *,
        images: int,
        key: str | None,
        seed: int,
    ) -> None:
        self.owner, self.shadow, self.seed = owner, shadow, seed
        pixels = ImageSet(data, owner.config.resolution).pixels
        order = np.random.default_rng([seed, 1]).permutation(len(pixels))
        chosen = torch.from_numpy(pixels[order[:images]])
        sizes = [int(share * len(chosen)) for share in SHARES[:2]]
        sizes.append(len(chosen) - sum(sizes))
        self.own, self.published, test = chosen.split(sizes)
        block = VICTIMS * GROUP
        half = len(test) // 2 // block * block
        self.clean, self.other = test[:half], test[half : 2 * half]
        n_bits = owner.config.n_bits
        draw = np.random.default_rng([seed, 2])
        self.victims = torch.from_numpy(draw.integers(0, 2, (VICTIMS, n_bits), dtype=np.uint8))
        if key:
            self.victims[0] = torch.from_numpy(Key.from_hex(key, n_bits).bits)

    def examples(self, threat: str, psnr: float | None) -> Examples:
        """What one adversary learns from."""
        if threat == "the key":
            marked = write(self.owner, self.published, self.victims[0], psnr)
            return Examples(self.own[: len(marked)], marked, paired=False)
        marker = self.shadow if threat == "shadow" else self.owner
        assert marker is not None
        draw = np.random.default_rng([self.seed, 3])
        shape = (len(self.own), marker.config.n_bits)
        keys = torch.from_numpy(draw.integers(0, 2, shape, dtype=np.uint8))
        return Examples(self.own, write(marker, self.own, keys, psnr), paired=True)

    def marked(self, threat: str, psnr: float | None) -> Tensor:
        """The marked images of the test, uint8, those of one key one after the other."""
        keys = self.victims[:1] if threat == "the key" else self.victims
        every = keys.repeat_interleave(len(self.other) // len(keys), dim=0)
        return write(self.owner, self.other, every, psnr)

    def reading(self, psnr: float | None) -> dict[str, Any]:
        """What the owner himself reads from the test's images, and their PSNR: of the mean error of
        all, for weak marks leave images as they were."""
        marked = self.marked("informed", psnr)
        logits = self.owner.decode(marked, search=False).logits
        logits = logits.reshape(VICTIMS, -1, logits.shape[1])
        pools = sorted(POOLS | {logits.shape[1]})
        config = EvaluateConfig(seed=self.seed, issued=[1, ISSUED], pools=pools)
        figures = reading_figures(logits, self.bits, config)
        error = (marked.double() - self.other.double()).square().mean().clamp_min(1e-9)
        return {**figures, "psnr": float(10 * (255**2 / error).log10())}

    @property
    def bits(self) -> NDArray[np.uint8]:
        return np.asarray(self.victims)
