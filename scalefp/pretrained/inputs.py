"""What feeds a generator in training and sampling: any class with ``draw``."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Inputs(Protocol):
    """What ``inputs._target_`` must offer."""

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        """``count`` inputs [count, ...] of the generator, drawn from ``source`` alone."""


class Normal:
    """Latents drawn from the standard normal distribution.

    Args:
        shape: of one latent, without the batch.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        return torch.randn(count, *self.shape, generator=source)


class Uniform:
    """Latents drawn evenly from a range.

    Args:
        shape: of one latent, without the batch.
        low, high: ends of the range.
    """

    def __init__(self, shape: Sequence[int], low: float = -1.0, high: float = 1.0) -> None:
        self.shape, self.low, self.high = tuple(shape), low, high

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        return torch.rand(count, *self.shape, generator=source) * (self.high - self.low) + self.low
