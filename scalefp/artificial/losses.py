"""The marker's named loss terms. Pure functions of tensors; nothing here calls backward."""

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefp.networks.frames import distance
from scalefp.training.losses import key_bits

PIXELS_PER_DEGREE = 32.0  # of visual angle: a screen's pixel at arm's length
PEAK = 8.0  # cycles per degree that are seen best
# What a colour difference of the same size counts beside one of lightness. The eye resolves colour
# at about a third of the frequencies (Mullen 1985).
CHROMA = 0.3
CONTRAST = 0.1  # local standard deviation of an image that hides half of what a flat one shows


def contrast_sensitivity(side: int) -> Tensor:
    """The eye's sensitivity to the frequencies of ``rfft2``, [side, side // 2 + 1], peak 1.

    Mannos & Sakrison 1974, eq. 32, without the fall below its peak: nobody says from how far a
    picture is looked at.
    """
    rows = torch.fft.fftfreq(side)[:, None]
    columns = torch.fft.rfftfreq(side)[None]
    frequency = (rows.square() + columns.square()).sqrt() * PIXELS_PER_DEGREE

    def curve(f: Tensor) -> Tensor:
        return 2.6 * (0.0192 + 0.114 * f) * torch.exp(-(0.114 * f).pow(1.1))

    return curve(frequency.clamp_min(PEAK)) / curve(torch.tensor(PEAK))


def visibility(residual: Tensor, images: Tensor) -> Tensor:
    """How visible a residual is beside white grey noise of its power on a flat image, 0..1.

    The residual's lightness and colours are filtered by :func:`contrast_sensitivity`, and what
    falls where the image itself varies is discounted (masking).

    Args:
        residual: marked image less image [b, 3, H, W].
        images: [b, 3, H, W] in [-1, 1].

    Returns:
        Mean over the batch of filtered, masked power by power.
    """
    luma = residual.mean(dim=1, keepdim=True)
    parts = torch.cat([luma, CHROMA * (residual - luma)], dim=1)
    sensitivity = contrast_sensitivity(residual.shape[-1]).to(residual.device)
    seen = torch.fft.irfft2(torch.fft.rfft2(parts) * sensitivity, s=residual.shape[-2:])
    grey = images.mean(dim=1, keepdim=True)
    mean, square = (F.avg_pool2d(x, 5, 1, 2, count_include_pad=False) for x in (grey, grey**2))
    hidden = 1 + (square - mean.square()).clamp_min(0).add(1e-8).sqrt() / CONTRAST
    power = 3 * seen[:, :1].square() + seen[:, 1:].square().sum(dim=1, keepdim=True)
    visible = (power / hidden.square()).mean(dim=(1, 2, 3))
    share: Tensor = visible / residual.square().sum(dim=1).mean(dim=(1, 2)).clamp_min(1e-8)
    return share.mean()


def terms(
    *,
    logits: Tensor,
    bits: Tensor,
    images: Tensor,
    marked: Tensor,
    frame: Tensor,
    located: Tensor | None,
) -> dict[str, Tensor]:
    """Terms of encoder and decoder (Yu et al., ICCV 2021, eqs. 1-3), unweighted.

    Args:
        logits: decoder's logits [b, n].
        bits: the keys' bits [b, n].
        images: [b, 3, H, W].
        marked: the images with their residuals [b, 3, H, W].
        frame: which part of its image the decoder was shown [b, 2, 3].
        located: the localizer's estimate of that, for the term ``geometry``: their distance in
            half images.
    """
    residual = marked - images
    result = {
        "bits": key_bits(logits, bits),
        "pixels": F.mse_loss(marked, images),
        "visibility": visibility(residual, images),
    }
    if located is not None:
        result["geometry"] = distance(located, frame).mean()
    return result
