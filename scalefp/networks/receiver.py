"""The best linear receiver for pictures of one kind, as a decoder's start.

What neighbours predict of a pixel is taken away (the picture), and what is left is correlated with
carriers. Trained from noise, a decoder would first have to find this.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefp.networks.decoder import Decoder
from scalefp.networks.layers import ACTIVATION_SLOPE

RIDGE = 1e-4  # added to the variances of pixels: what 8 bits hide, and flat images


def halved(x: Tensor) -> Tensor:
    """[b, 3, H, W] as 12 planes of half the size: every pixel is kept."""
    return F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)


def predict_pixels(images: Tensor) -> Tensor:
    """Weights [12, 12, 3, 3] that predict each pixel from the others of the 6x6 about it.

    Least squares over images [b, 3, r, r], as a convolution on :func:`halved` images. A pixel's
    other colours are among the others.
    """
    planes = halved(images.double())
    windows = F.unfold(planes, 3).transpose(1, 2).flatten(0, 1)  # [N, 108]
    targets = planes[:, :, 1:-1, 1:-1].permute(0, 2, 3, 1).flatten(0, 2)  # [N, 12]
    moments = windows.T @ windows / len(windows) + RIDGE * torch.eye(108, dtype=torch.float64)
    cross = windows.T @ targets / len(windows)
    weights = torch.zeros(12, 108, dtype=torch.float64)
    for plane in range(12):
        others = torch.arange(108) != 9 * plane + 4  # all but the pixel itself
        weights[plane, others] = torch.linalg.solve(
            moments[others][:, others], cross[others, plane]
        )
    return weights.view(12, 12, 3, 3).float()


@torch.no_grad()
def fit_content(decoder: Decoder, images: Tensor) -> Tensor:
    """Set what a decoder takes away from pictures to what their neighbourhoods predict.

    Args:
        images: some hundred pictures [b, 3, R, R] in [-1, 1].

    Returns:
        The weights of :func:`predict_pixels`.
    """
    assert decoder.content is not None, "needs decoder_carriers"
    weights = predict_pixels(decoder.low_pass(images))
    # The pixels pass the stem's activation once as they are and once negated: their difference is
    # linear again.
    stem, content = decoder.stem, decoder.content
    slope = 1 + ACTIVATION_SLOPE
    eye = torch.eye(12) / stem.weight_gain
    stem.weight[:24] = 0
    stem.weight[:12, :, 1, 1] = eye
    stem.weight[12:24, :, 1, 1] = -eye
    content.weight.zero_()
    content.weight[:, :12] = weights / (slope * content.weight_gain)
    content.weight[:, 12:24] = -weights / (slope * content.weight_gain)
    return weights
