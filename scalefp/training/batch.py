"""What a training step is drawn from: images, latents, keys, and what chance does to them.

All of it is drawn for the whole batch of a process at once, so that it is an image's own however
the batch is split.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from scalefp.config import TrainConfig
from scalefp.training.augment import Augmentation
from scalefp.training.perturbed import Chance


@lru_cache(maxsize=1)
def training_keys(count: int, n_bits: int, seed: int, device: torch.device) -> Tensor:
    """The keys of a training that knows only so many: uint8 [count, n]."""
    source = torch.Generator().manual_seed(seed)
    keys = torch.randint(0, 2, (count, n_bits), generator=source, dtype=torch.uint8)
    return keys.to(device)


def draw_bits(config: TrainConfig, count: int, source: torch.Generator) -> Tensor:
    """The bits of a key for each of ``count`` images: int64 [count, n], where ``source`` is."""
    n_bits, device = config.model.n_bits, source.device
    if config.training_keys is None:
        return torch.randint(0, 2, (count, n_bits), generator=source, device=device)
    known = training_keys(config.training_keys, n_bits, config.seed, device)
    return known[torch.randint(0, len(known), (count,), generator=source, device=device)].long()


@dataclass(frozen=True)
class Batch:
    """What one process trains on in a step. Rows are images; rows 2i and 2i + 1 share a latent.

    Without keys the networks are the same, but no bit is active and no latent comes twice.
    """

    real: Tensor  # of the data set [b, 3, R, R]
    z: Tensor  # [b, dz]
    bits: Tensor  # of a key for each image [b, n]
    chance: Chance
    # What the discriminator sees of real and of generated images; None = the images as they are.
    changes: tuple[Augmentation, Augmentation] | None = None

    @classmethod
    def draw(cls, config: TrainConfig, real: Tensor, source: torch.Generator) -> "Batch":
        """What goes with the images [b, 3, R, R] of one process, drawn on their device."""
        share, device = len(real), source.device
        keys_each = 2 if config.fingerprint else 1
        shape = (share // keys_each, config.model.latent_dim)
        z = torch.randn(shape, generator=source, device=device)
        bits = draw_bits(config, share, source)
        chance = Chance.draw(share, config.perturb, config.model.resolution, source)
        changes = None
        if config.loss.augment:
            of_real, of_fake = (
                Augmentation.draw(share, config.model.resolution, config.loss.augment, source)
                for _ in range(2)
            )
            changes = of_real, of_fake
        return cls(real, z.repeat_interleave(keys_each, dim=0), bits, chance, changes)

    def of(self, rows: Tensor | slice) -> "Batch":
        """Some of its images."""
        changes = self.changes
        if changes is not None:
            changes = changes[0].of(rows), changes[1].of(rows)
        return Batch(self.real[rows], self.z[rows], self.bits[rows], self.chance.of(rows), changes)

    def shown_real(self) -> Tensor:
        """The real images as the discriminator sees them."""
        return self.real if self.changes is None else self.changes[0](self.real)

    def shown(self, fake: Tensor) -> Tensor:
        """Generated images [b, 3, R, R] as the discriminator sees them."""
        return fake if self.changes is None else self.changes[1](fake)


def split(count: int, parts: int, device: torch.device | str = "cpu") -> list[Tensor | slice]:
    """Rows of the parts of a batch of ``count``, as many in each.

    Every part takes the same share of each quarter of the batch, and neighbours stay together:
    then the groups whose deviation the discriminator sees and the pairs of one latent are in the
    parts what they are in the whole, and the losses of the parts have the mean that the whole has.
    """
    if parts == 1:
        return [slice(None)]
    quarters = torch.arange(count, device=device).view(4, parts, -1)
    return [quarters[:, part].flatten() for part in range(parts)]
