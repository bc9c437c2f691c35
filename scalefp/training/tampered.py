"""Noise in the weights of instances: a perturbation of the network instead of its images.

A recipient may add noise to what he got until its images suffer (evaluation/tamper.py measures it).
So every few steps the keys of some instances are folded in, their weights are disturbed as he would
do it, and what they then generate is read.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from scalefp.networks.generator import Generator
from scalefp.release.instance import Instance, folded_tensors, sizes_of

KEYS = 4  # instances disturbed at a time


def disturbed(
    tensors: Mapping[str, Tensor], strength: float | Tensor, source: torch.Generator
) -> dict[str, Tensor]:
    """Tensors with Gaussian noise of so many of their own standard deviations.

    Args:
        source: of the noise, on the tensors' device.
    """
    return {
        name: tensor
        + strength
        * tensor.detach().std(correction=0)
        * torch.randn(tensor.shape, generator=source, device=tensor.device)
        for name, tensor in tensors.items()
    }


def disturbed_images(
    generator: Generator,
    z: Tensor,
    embedding: Tensor,
    strength: float | Tensor,
    source: torch.Generator,
) -> Tensor:
    """Images of instances whose weights have noise, in which gradients reach the generator.

    Args:
        z: latents [k, m, dz], m of each of k instances.
        embedding: of their keys [k, e].
        strength: of the noise, drawn between 0 and this for each instance.
        source: of randomness, on the generator's device.

    Returns:
        [k * m, 3, R, R], float32.
    """
    images = []
    for latents, one in zip(z, embedding, strict=True):
        own = strength * torch.rand((), generator=source, device=z.device)
        tensors = disturbed(folded_tensors(generator, one[None]), own, source)
        instance = Instance(sizes_of(generator), tensors)
        images.append(functional_call(instance, tensors, (latents,)))
    return torch.cat(images)
