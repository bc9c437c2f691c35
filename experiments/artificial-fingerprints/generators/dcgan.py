"""A DCGAN (Radford et al., ICLR 2016): transposed convolutions, batch norm, cross-entropy."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.learner import average_, fast_precision, rate, real_batch
from scalefp.data.dataset import ImageSet
from scalefp.training.schedule import step_generator

BATCH = 32
LATENT, WIDTH = 64, 64  # width of the latent; channels at half the image's resolution
LEARNING_RATE, BETAS = 1e-3, (0.5, 0.999)


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)


def widths(resolution: int) -> list[int]:
    """Channels at R/2, R/4, ... 4 pixels: doubled at every halving, 4 x WIDTH at most."""
    levels = (resolution // 4).bit_length() - 1
    return [WIDTH * min(2**level, 4) for level in range(levels)]


class Generator(nn.Sequential):
    """``G(z [b, LATENT, 1, 1]) -> [b, 3, R, R]`` in [-1, 1]."""

    def __init__(self, resolution: int) -> None:
        channels = widths(resolution)[::-1]
        layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT, channels[0], 4, bias=False)]
        for a, b in zip(channels, [*channels[1:], 0], strict=True):
            layers += [nn.BatchNorm2d(a), nn.ReLU()]
            layers += [nn.ConvTranspose2d(a, b or 3, 4, 2, 1, bias=not b)]
        super().__init__(*layers, nn.Tanh())

    @torch.inference_mode()
    def sample(self, count: int, seed: int) -> Tensor:
        """Images of latents drawn from ``seed``, [count, 3, R, R] in [-1, 1]."""
        chance = torch.Generator().manual_seed(seed)
        z = torch.randn(count, LATENT, 1, 1, generator=chance)
        self.eval()
        return torch.cat([self(part) for part in z.split(BATCH)])


def make_discriminator(resolution: int) -> nn.Sequential:
    """``D(images [b, 3, R, R]) -> logits [b, 1, 1, 1]``, positive for real."""
    channels = widths(resolution)
    layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 4, 2, 1), nn.LeakyReLU(0.2)]
    for a, b in zip(channels, channels[1:], strict=False):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 4))


class Dcgan:
    """See :class:`generators.learner.Learner`."""

    batch: ClassVar[int] = BATCH

    def __init__(self, data: ImageSet, total: int, seed: int) -> None:
        self.data, self.total, self.seed = data, total, seed
        torch.manual_seed(seed)
        self.generator = self.make_generator()
        self.discriminator = make_discriminator(data.resolution).apply(_init)
        for network in (self.generator, self.discriminator):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.generator_optimizer = torch.optim.Adam(
            self.generator.parameters(), LEARNING_RATE, BETAS, fused=True
        )
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), LEARNING_RATE, BETAS, fused=True
        )

    def make_generator(self) -> nn.Module:
        """The generator before its first image."""
        return Generator(self.data.resolution).apply(_init)

    def draw(self, generator: nn.Module, count: int, chance: torch.Generator) -> Tensor:
        """So many images of random latents, [count, 3, R, R], with gradients."""
        made: Tensor = generator(torch.randn(count, LATENT, 1, 1, generator=chance))
        return made

    def step_discriminator(self, seen: int) -> tuple[Tensor, float]:
        """The first half of a step: the generated batch, and the discriminator's loss."""
        chance = step_generator(self.seed, 0, seen)
        real = real_batch(self.data, self.seed, seen, self.batch)
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = rate(LEARNING_RATE, seen, self.total)
            optimizer.zero_grad(set_to_none=True)

        self.discriminator.requires_grad_(True)
        with fast_precision():
            fake = self.draw(self.generator, self.batch, chance)
            # Real and generated images are normalised by statistics of their own.
            on_real = self.discriminator(real).float()
            on_fake = self.discriminator(fake.detach()).float()
        loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        loss.backward()
        self.discriminator_optimizer.step()
        return fake, loss.item()

    def step(self, seen: int) -> dict[str, float]:
        fake, discriminator_loss = self.step_discriminator(seen)
        self.discriminator.requires_grad_(False)
        with fast_precision():
            logits = self.discriminator(fake).float()
        generator_loss = F.softplus(-logits).mean()
        generator_loss.backward()
        self.generator_optimizer.step()
        average_(self.average, self.generator, seen, self.batch, self.total)
        return {"discriminator": discriminator_loss, "generator": generator_loss.item()}

    def sample(self, count: int, seed: int) -> Tensor:
        assert isinstance(self.average, Generator)
        return self.average.sample(count, seed)

    def _parts(self) -> dict[str, Any]:
        names = ["generator", "discriminator", "average"]
        names += ["generator_optimizer", "discriminator_optimizer"]
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
