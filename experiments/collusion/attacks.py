"""What a coalition of recipients can make of its instances."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scalefp.data.images import to_uint8
from scalefp.evaluation.realign import realigned
from scalefp.evaluation.tamper import tamper
from scalefp.release.instance import Instance, channels_last


def naively_averaged(instances: Sequence[Instance]) -> Instance:
    """The mean of the weights as they are in the files, each in an order of its own."""
    copies = [dict(instance.named_parameters()) for instance in instances]
    mean = {name: torch.stack([copy[name] for copy in copies]).mean(0) for name in copies[0]}
    return Instance(instances[0].config, channels_last(mean))


def averaged(instances: Sequence[Instance]) -> Instance:
    """The mean of the weights, after matching the channels of each copy with the first one's.

    Each copy is mixed in by its share of those taken so far.
    """
    mean = instances[0]
    for taken, instance in enumerate(instances[1:], start=2):
        mean = tamper([mean, instance], "average", 1 / taken, torch.Generator())
    return mean


def patchwork(instances: Sequence[Instance], rng: np.random.Generator) -> Instance:
    """Every layer from one of the copies, from each as many layers as from the others.

    The channels of the copies are matched first.
    """
    weights_of = [dict(instance.named_parameters()) for instance in instances]
    copies = [realigned(weights_of[0], weights) for weights in weights_of]
    layer = {name: name.rsplit("_", 1)[0] for name in copies[0]}
    layers = list(dict.fromkeys(layer.values()))
    owner = dict(zip(layers, rng.permutation(np.arange(len(layers)) % len(copies)), strict=True))
    weights = {name: copies[owner[layer[name]]][name].detach() for name in copies[0]}
    return Instance(instances[0].config, weights)


def pictures(
    instances: Sequence[Instance], count: int, rng: np.random.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures of the same ``count`` latents, as 8-bit files hold them.

    Returns:
        Everybody's own, uint8 [c, count, 3, R, R], and those of each attack [count, 3, R, R].
    """
    seed = int(rng.integers(2**31))
    own = torch.stack([instance.sample(count, seed=seed) for instance in instances])
    return to_uint8(own.flatten(0, 1)).unflatten(0, own.shape[:2]), {
        "outputs averaged": to_uint8(own.mean(dim=0)),
        "weights averaged as they are": to_uint8(
            naively_averaged(instances).sample(count, seed=seed)
        ),
        "weights averaged": to_uint8(averaged(instances).sample(count, seed=seed)),
        "layers mixed": to_uint8(patchwork(instances, rng).sample(count, seed=seed)),
    }
