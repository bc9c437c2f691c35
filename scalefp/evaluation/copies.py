"""A recipient's copy, whoever trained its generator: what can be changed of it, what feeds it."""

import copy
from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from scalefp.evaluation.tamper import tamper
from scalefp.pretrained.instance import PretrainedInstance
from scalefp.release.instance import Instance

Copy = Instance | PretrainedInstance
C = TypeVar("C", bound=Copy)


def network_of(instance: Copy) -> nn.Module:
    """What its recipient has the weights of."""
    return instance.network if isinstance(instance, PretrainedInstance) else instance


def around(instance: C, network: nn.Module) -> C:
    """A copy like another one, with a changed network."""
    if isinstance(instance, PretrainedInstance):
        return cast(C, instance.around(network))
    return cast(C, network)


def tampered(instances: Sequence[C], name: str, strength: float, generator: torch.Generator) -> C:
    """The first of ``instances`` after :func:`scalefp.evaluation.tamper.tamper` of its network."""
    networks = [network_of(instance) for instance in instances]
    return around(instances[0], tamper(networks, name, strength, generator))


def trainable_copy(instance: C) -> C:
    """The same network with weights of its own that can be trained."""
    if isinstance(instance, PretrainedInstance):
        return around(instance, copy.deepcopy(instance.network).requires_grad_(True))
    tensors = {name: tensor.detach().clone() for name, tensor in instance.named_parameters()}
    return around(instance, Instance(instance.config, tensors).requires_grad_(True))


def draw_inputs(instance: Copy, count: int, source: torch.Generator) -> Tensor:
    """``count`` inputs of its network, as they are drawn in use."""
    if isinstance(instance, PretrainedInstance):
        return instance.inputs(count, source)
    return torch.randn(count, instance.config.latent_dim, generator=source)
