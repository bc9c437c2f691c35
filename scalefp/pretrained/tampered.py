"""Instances of an adopted generator whose weights were changed, read in training.

A recipient may add noise to what he got, or train it on. So every few steps the keys of some
instances are folded in, their weights are changed as he would do it, and what they then make is
read: once with noise, once after the step by which the key is read worst (as flat minima are looked
for by sharpness-aware minimization, Foret et al. 2021).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from scalefp.config import TrainConfig
from scalefp.pretrained.adopted import Adopted
from scalefp.pretrained.modulation import Parent
from scalefp.pretrained.state import AdoptedState
from scalefp.training.losses import key_bits
from scalefp.training.perturbed import Chance, decode_perturbed
from scalefp.training.precision import Computing
from scalefp.training.tampered import KEYS, disturbed

Tensors = Mapping[str, Tensor]
TERMS = "weight_noise", "weight_step"  # of the loss


class _Called(nn.Module):
    """A parent's network, called by the method that makes its images."""

    def __init__(self, parent: Parent) -> None:
        super().__init__()
        self.network, self.method = parent.network, parent.method

    def forward(self, *inputs: Any) -> Any:
        return getattr(self.network, self.method)(*inputs)


def out_of(parent: Parent, tensors: Tensors, inputs: Tensor) -> Any:
    """What a parent's network makes of inputs [b, ...] with other parameters."""
    named = {f"network.{name}": tensor for name, tensor in tensors.items()}
    return functional_call(_Called(parent), named, (inputs,))


def stepped(tensors: Tensors, loss: Tensor, strength: float) -> dict[str, Tensor]:
    """Tensors one step further to where a loss is larger.

    Args:
        loss: what was computed of them.
        strength: root mean square of each tensor's step, in its own standard deviations, as noise
            of that strength has it.
    """
    gradients = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
    found = dict(tensors)
    for (name, tensor), gradient in zip(tensors.items(), gradients, strict=True):
        if gradient is not None:
            size = gradient.square().mean().sqrt().clamp_min(1e-30)
            found[name] = tensor + strength * tensor.detach().std(correction=0) * gradient / size
    return found


@dataclass(frozen=True)
class Reading:
    """How keys are read from images of instances in a training step."""

    adopted: Adopted
    state: AdoptedState
    chance: Chance
    computing: Computing

    def lost(self, tensors: Tensors, inputs: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of an instance's key, bits [n], from its images of inputs; and the share
        of the bits read right."""
        with self.computing():
            made = self.adopted.pictures.of(out_of(self.state.parent, tensors, inputs))
        rows = self.chance.of(slice(0, len(made)))
        decoded = decode_perturbed(self.state.decoder, made, {}, 0.0, rows, self.computing)
        wanted = bits.expand(len(made), -1)
        right = ((decoded.logits > 0) == (wanted > 0)).float().mean()
        return key_bits(decoded.logits, wanted), right

    def changed(
        self, name: str, most: float, inputs: Tensor, bits: Tensor, source: torch.Generator
    ) -> dict[str, Tensor]:
        """The parameters of one key's instance, bits [n], changed as a term of the loss has it.

        Args:
            most: strength of the change, drawn between 0 and this.
        """
        parent = self.state.parent
        tensors = parent.folded(parent.signs(bits[None]))
        strength = most * float(torch.rand((), generator=source, device=source.device))
        if name == "weight_noise":
            return disturbed(tensors, strength, source)
        # Of weights apart, so that no gradient of the direction is asked for.
        own = {n: tensor.detach().requires_grad_() for n, tensor in tensors.items()}
        worse = stepped(own, self.lost(own, inputs, bits)[0], strength)
        return {n: tensor + (worse[n] - own[n]).detach() for n, tensor in tensors.items()}


def add_gradients(
    config: TrainConfig,
    reading: Reading,
    inputs: Tensor,
    bits: Tensor,
    source: torch.Generator,
) -> dict[str, Tensor]:
    """Add the gradients from reading a few instances with changed weights.

    Args:
        inputs: of the step [b, ...].
        bits: of its keys [share, n], of which the first are taken.
        source: of randomness, where the networks are.

    Returns:
        The unweighted terms, and the share of the bits read right, ``..._bits``.
    """
    loss, keys = config.loss, min(KEYS, len(bits))
    inputs = inputs[: max(1, len(bits) // keys)]
    most = loss.weight_noise_strength * reading.state.progress.ramp(config)
    found: dict[str, Tensor] = {}
    for name in TERMS:
        if not (weight := getattr(loss, name)):
            continue
        terms, right = [], []
        for each in bits[:keys]:
            tensors = reading.changed(name, most, inputs, each, source)
            term, read = reading.lost(tensors, inputs, each)
            (term * weight * loss.weight_noise_interval / keys).backward()
            terms.append(term.detach())
            right.append(read)
        found |= {name: torch.stack(terms).mean(), f"{name}_bits": torch.stack(right).mean()}
    return found
