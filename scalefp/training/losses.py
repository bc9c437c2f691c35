"""The named loss terms. Pure functions of tensors; nothing here calls backward.

b images, n key bits, dz latent width. Images come in pairs: rows
2i and 2i + 1 share a latent and differ in their keys.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefp.networks.frames import distance
from scalefp.networks.layers import downsample

WINDOW = 7  # pixels over which a picture's own variation is looked at
SCALES = 3  # at which gradients are compared: the full size, half of it and a quarter
CONTRAST = 0.1  # standard deviation in that window that hides half of what a flat place shows


def discriminator_terms(real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
    """Logistic loss of the discriminator on logits [b] (Goodfellow et al. 2014)."""
    return {
        "real": F.softplus(-real_logits.float()).mean(),
        "fake": F.softplus(fake_logits.float()).mean(),
    }


def r1_penalty(real_logits: Tensor, real: Tensor) -> Tensor:
    """Half the mean squared gradient norm at real images (Mescheder et al. 2018, eq. 9).

    ``real`` [b, 3, H, W] must require gradients and have produced ``real_logits`` [b].
    """
    (gradient,) = torch.autograd.grad(real_logits.float().sum(), real, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean() / 2


def adversarial(fake_logits: Tensor) -> Tensor:
    """Non-saturating logistic loss of the generator on logits [b] (Goodfellow et al. 2014)."""
    return F.softplus(-fake_logits.float()).mean()


def out_of_range(images: Tensor) -> Tensor:
    """Mean square of how far pixels of images [b, 3, H, W] are outside black and white, [-1, 1].

    The decoder's gradients pass through the clipping as if it were not there, so they push pixels
    outwards without end where that once brought something.
    """
    return (images.float().abs() - 1).clamp_min(0).square().mean()


def window_means(x: Tensor) -> Tensor:
    """Mean over the window about each place of x [..., H, W], as far as the window reaches.

    By one matrix for each direction: a tenth of the time of pooling on a CPU.
    """
    means = []
    for size in x.shape[-2:]:
        place = torch.arange(size, device=x.device)
        near = ((place[:, None] - place).abs() <= WINDOW // 2).to(x.dtype)
        means.append(near / near.sum(dim=1, keepdim=True))
    rows, columns = means
    return rows @ x @ columns.T


def change_weights(grey: Tensor) -> Tensor:
    """How much a change shows in each place of grey pictures [b, H, W]: [b, H, W], mean 1 each.

    Where a picture varies, it hides what is changed (masking); where it is flat, all is seen. So a
    place weighs 1 / (c + d), d the standard deviation of the picture about it and c the contrast
    that hides half.
    """
    variance = window_means(grey.square()) - window_means(grey).square()
    weights = 1 / (CONTRAST + variance.clamp_min(0).sqrt())
    return weights / weights.mean(dim=(1, 2), keepdim=True)


def consistency_terms(images: Tensor) -> dict[str, Tensor]:
    """Squared difference of the two images of each latent; images [b, 3, H, W] in pairs.

    ``consistency`` is its mean over all pixels, ``visible`` the mean in which each place counts as
    much as a change shows there, in a picture half-way between the two.
    """
    first, second = images[0::2].float(), images[1::2].float()
    grey = images.detach().float().mean(dim=1).unflatten(0, (-1, 2)).mean(dim=1)
    squares = F.mse_loss(first, second, reduction="none").mean(dim=1)
    visible = (change_weights(grey) * squares).mean()
    return {"consistency": F.mse_loss(first, second), "visible": visible}


def gradient_difference(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared difference of the gradients of two images [b, 3, H, W], over three scales.

    A gradient is the difference of neighbouring pixels, of those above and beside each other. What
    a key changes smoothly costs little here at the full size, and more where pixels are averaged.
    """
    change, terms = first.float() - second.float(), []
    for scale in range(SCALES):
        change = downsample(change) if scale else change
        terms += [change.diff(dim=2).square().mean(), change.diff(dim=3).square().mean()]
    return torch.stack(terms).mean()


def difference(terms: Mapping[str, float], visibility: float) -> float:
    """How far apart two keys' images are, from the terms of :func:`consistency_terms`.

    Args:
        visibility: share that the visible term has; 0 is the mean over all pixels.
    """
    return (1 - visibility) * terms["consistency"] + visibility * terms["visible"]


def over_active(values: Tensor, active: Tensor | None) -> Tensor:
    """Mean of values [b, n] over the bits whose ``active`` [n] is 1, not 0; None = over all."""
    if active is None:
        return values.float().mean()
    counted = torch.where(active > 0, values.float().mean(dim=0), 0.0)
    return counted.sum() / active.sum().clamp_min(1)


def key_bits(logits: Tensor, bits: Tensor, active: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of the active bits; logits [b, n], bits [b, n] in {0, 1}.

    Args:
        active: see :func:`over_active`.
    """
    return over_active(
        F.binary_cross_entropy_with_logits(logits.float(), bits.float(), reduction="none"), active
    )


def picture_terms(fake_logits: Tensor, images: Tensor) -> dict[str, Tensor]:
    """The terms of a generator by which its images become pictures, with keys or without.

    Args:
        fake_logits: discriminator on the images [b].
        images: generated images [b, 3, H, W].
    """
    return {"adversarial": adversarial(fake_logits), "range": out_of_range(images)}


def generator_terms(
    *,
    fake_logits: Tensor,
    key_logits: Tensor,
    bits: Tensor,
    active: Tensor | None = None,
    recovered: Tensor,
    z: Tensor,
    images: Tensor,
    frame: Tensor | None = None,
    located: Tensor | None = None,
) -> dict[str, Tensor]:
    """Terms of generator and decoder (Yu et al., ICLR 2022, eqs. 1-4), unweighted.

    Args:
        fake_logits: discriminator on the images [b].
        key_logits: decoder's logits [b, n].
        bits: the keys' bits [b, n].
        active: 1 for each bit that counts, else 0 [n]; None = all count.
        recovered: decoder's latent [b, dz].
        z: the latents [b, dz].
        images: generated images in pairs [b, 3, H, W].
        frame: which part of its image the decoder was shown [b, 2, 3]; with it comes ``located``,
            the decoder's estimate, and the term ``geometry``, their distance in half images.
    """
    terms = {
        **picture_terms(fake_logits, images),
        "latent": F.mse_loss(recovered.float(), z.float()),
        "bits": key_bits(key_logits, bits, active),
        **consistency_terms(images),
    }
    if frame is not None and located is not None:
        terms["geometry"] = distance(located, frame).mean()
    return terms


def path_lengths(images: Tensor, embedding: Tensor, noise: Tensor) -> Tensor:
    """|J^T y| for each image (Karras et al. 2020, eq. 4): how fast it moves with the embedding.

    Args:
        images: [b, 3, H, W], produced from ``embedding``.
        embedding: key embedding [b, e], requiring gradients.
        noise: standard normal, shaped as the images.

    Returns:
        [b], differentiable.
    """
    scaled = noise / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images.float() * scaled).sum(), embedding, create_graph=True)
    return gradient.square().sum(dim=1).sqrt()


def total(terms: Mapping[str, Tensor], weights: Mapping[str, float | Tensor]) -> Tensor:
    """Weighted sum of the terms named in ``weights``; a number 0 leaves its term out."""
    used = [
        weight * terms[name]
        for name, weight in weights.items()
        if isinstance(weight, Tensor) or weight
    ]
    return torch.stack(used).sum()
