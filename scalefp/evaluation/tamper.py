"""What a recipient may do to the weights of a generator: one table of model-level perturbations.

Strengths of noise and of step quantization are relative to each tensor's own standard deviation,
since the tensors of an instance differ in scale by orders of magnitude; a noise of 0.1 means the
same for all of them. Training on is in :mod:`scalefp.evaluation.finetune`.

An instance's tensors are weights, biases and offsets: constant maps that some layers add to their
input. Other networks have no offsets; what they keep besides parameters is left as it is.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from scalefp.errors import UserError
from scalefp.evaluation.realign import realigned

Network = TypeVar("Network", bound=nn.Module)
Weights = Mapping[str, Tensor]
# (the copies at hand, of which the first is tampered with; strength; source of chance) -> weights
# of the same names and shapes.
Operation = Callable[[Sequence[Weights], float, torch.Generator], Weights]


@dataclass(frozen=True)
class Tampering:
    """One kind of change to a generator's weights.

    Attributes:
        apply: the operation; its arguments are left as they are.
        unit: what the strength means, to label an axis.
        identity: the strength at which nothing changes, None where there is none.
        test_strengths: strengths evaluated, from the mildest on.
        copies: generators of different keys that it needs.
    """

    apply: Operation
    unit: str
    identity: float | None
    test_strengths: tuple[float, ...]
    copies: int = 1


def each(change: Callable[[Tensor, float, torch.Generator], Tensor]) -> Operation:
    """The operation that changes every tensor of the first copy by itself."""

    def apply(copies: Sequence[Weights], strength: float, draw: torch.Generator) -> Weights:
        return {name: change(tensor, strength, draw) for name, tensor in copies[0].items()}

    return apply


def deviation(tensor: Tensor) -> Tensor:
    """Standard deviation of a tensor's values (0 for a single value)."""
    return tensor.std(correction=0)


def noise(tensor: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    """Gaussian noise of ``strength`` standard deviations of the tensor is added."""
    unit = torch.randn(tensor.shape, generator=draw).to(tensor)
    return tensor + strength * deviation(tensor) * unit


def step(tensor: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    """Rounded to multiples of ``strength`` standard deviations of the tensor."""
    width = strength * deviation(tensor)
    return (tensor / width).round() * width if width > 0 else tensor.clone()


def integer(tensor: Tensor, bits: float, draw: torch.Generator) -> Tensor:
    """Rounded to signed integers of so many bits, with one scale for each tensor.

    The scale is the largest magnitude / (2^(bits - 1) - 1), so 8 bits are the usual int8.
    """
    width = tensor.abs().max() / (2 ** (round(bits) - 1) - 1)
    return (tensor / width).round() * width if width > 0 else tensor.clone()


def cast(dtype: torch.dtype) -> Operation:
    """Rounded to another floating-point type and back; the strength means nothing."""
    return each(lambda tensor, strength, draw: tensor.to(dtype).to(tensor.dtype))


def prune(copies: Sequence[Weights], share: float, draw: torch.Generator) -> Weights:
    """The smallest ``share`` of each weight tensor, by magnitude, is set to 0; the rest stays.

    Gains of a normalization, which some networks name so, are vectors and stay, too.
    """

    def pruned(tensor: Tensor) -> Tensor:
        count = round(share * tensor.numel())
        if count == 0:
            return tensor.clone()
        limit = tensor.abs().flatten().kthvalue(count).values
        return tensor.where(tensor.abs() > limit, 0.0)

    return {
        name: pruned(tensor) if name.endswith("weight") and tensor.ndim > 1 else tensor
        for name, tensor in copies[0].items()
    }


def is_map(name: str, tensor: Tensor) -> bool:
    """Whether a parameter is a constant map [1, C, h, w] that a layer adds to its input."""
    return name.endswith("offset") and tensor.ndim == 4


def flatten(copies: Sequence[Weights], share: float, draw: torch.Generator) -> Weights:
    """Constant maps are moved by ``share`` of the way to their mean: at 1 nothing of them is left.

    A key may write through such maps, and whoever knows the method knows where they are.
    """
    return {
        name: tensor.lerp(tensor.mean(dim=(2, 3), keepdim=True), share)
        if is_map(name, tensor)
        else tensor
        for name, tensor in copies[0].items()
    }


def average(copies: Sequence[Weights], share: float, draw: torch.Generator) -> Weights:
    """``share`` of another copy's weights is mixed in: two recipients who work together.

    They know that each copy has its channels in an order of its own, and undo it; who does not
    gets no picture.
    """
    mine, other = copies[0], realigned(*copies[:2])
    return {name: tensor.lerp(other[name], share) for name, tensor in mine.items()}


TAMPERINGS: dict[str, Tampering] = {
    "noise": Tampering(
        each(noise), "standard deviations", 0, (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
    ),
    "fp16": Tampering(cast(torch.float16), "", None, (1,)),
    "bf16": Tampering(cast(torch.bfloat16), "", None, (1,)),
    "integer": Tampering(each(integer), "bits", None, (8, 6, 5, 4, 3)),
    "step": Tampering(each(step), "standard deviations", None, (0.1, 0.25, 0.5, 1.0, 1.5)),
    "prune": Tampering(prune, "share set to 0", 0, (0.1, 0.2, 0.3, 0.5, 0.7)),
    "flatten": Tampering(flatten, "share of the maps removed", 0, (0.25, 0.5, 0.75, 1.0)),
    "average": Tampering(average, "share of another copy", 0, (0.1, 0.2, 0.3, 0.4, 0.5), copies=2),
}


def tamper(
    copies: Sequence[Network], name: str, strength: float, generator: torch.Generator
) -> Network:
    """A new network: the first of ``copies`` after the tampering; the copies stay as they are.

    Args:
        copies: instances of one release, or other networks of one shape; only ``average`` looks at
            the second.
        name: an entry of ``TAMPERINGS``.
        strength: in the entry's unit.
        generator: CPU source of randomness.

    Raises:
        UserError: unknown name, or too few copies.
    """
    if name not in TAMPERINGS:
        raise UserError(f"unknown tampering {name!r}; known are {', '.join(TAMPERINGS)}")
    entry = TAMPERINGS[name]
    if len(copies) < entry.copies:
        raise UserError(f"{name} needs {entry.copies} generators, not {len(copies)}")
    with torch.no_grad():
        changed = entry.apply([dict(x.named_parameters()) for x in copies], strength, generator)
        result = copy.deepcopy(copies[0])
        for weight_name, parameter in result.named_parameters():
            parameter.copy_(changed[weight_name])
    return result
