"""What the experiment asks of a generator in training; nothing of it knows of fingerprints."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from scalefp.config import RunConfig
from scalefp.data.dataset import ImageSet, sample_indices
from scalefp.data.images import to_float
from scalefp.training.precision import pick_precision

CPU = torch.device("cpu")


class Learner(Protocol):
    """A generator in training on ``data``, for ``total`` images in all.

    All randomness comes from the seed and the count of images seen, so that a training that was
    stopped goes on as if it had not been.
    """

    batch: ClassVar[int]  # images a step
    data: ImageSet
    average: nn.Module  # the averaged weights: what the training is for

    def __init__(self, data: ImageSet, total: int, seed: int) -> None: ...

    def step(self, seen: int) -> dict[str, float]:
        """Learn from the batch that begins at image ``seen``; the loss terms."""
        ...

    def sample(self, count: int, seed: int) -> Tensor:
        """Images of the averaged weights, float [count, 3, R, R], nominally in [-1, 1]."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changed."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        ...


def real_batch(data: ImageSet, seed: int, seen: int, batch: int) -> Tensor:
    """Training images at position ``seen`` of the endless shuffled sequence, in [-1, 1]."""
    images = to_float(data.batch(sample_indices(len(data), seed, seen, batch)))
    return images.contiguous(memory_format=torch.channels_last)


@contextmanager
def fast_precision() -> Iterator[None]:
    """bfloat16 inside networks where the processor gains from it."""
    precision = pick_precision(RunConfig(), CPU)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        yield


@torch.no_grad()
def average_(average: nn.Module, current: nn.Module, seen: int, batch: int, total: int) -> None:
    """Move averaged weights on by one step; half-life a twentieth of what was seen, at most a
    fortieth of the training."""
    half_life = min(0.05 * (seen + batch), total / 40)
    weight = 1 - 0.5 ** (batch / half_life)
    theirs = [value.detach() for value in current.parameters()]
    torch._foreach_lerp_(list[Tensor](average.parameters()), theirs, weight)
    for mine, latest in zip(average.buffers(), current.buffers(), strict=True):
        mine.copy_(latest)


def rate(highest: float, seen: int, total: int) -> float:
    """The learning rate: constant, falling linearly to 0 over the last quarter."""
    return highest * min(1.0, 4 * (total - seen) / total)
