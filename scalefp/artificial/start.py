"""A start from which encoder and decoder understand each other at once.

The decoder begins as the receiver that is best among the linear ones: what neighbours predict of a
pixel is taken away (the image), and what is left is correlated with the carriers that the encoder
writes. Trained from noise, both would first have to find this.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefp.artificial.encoder import Encoder, halved
from scalefp.networks.decoder import Decoder
from scalefp.networks.layers import ACTIVATION_SLOPE, upsample

RIDGE = 1e-4  # added to the variances of pixels: what 8 bits hide, and flat images
# Noise at all frequencies beside noise up to half the highest, which lossy files keep. Alone, the
# latter drowns in the images and the former in the files.
FINE = 0.3
SCALE = 4.0  # of the first logits: those of a mark of 30 dB are then about 1


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
def start_fitted(encoder: Encoder, decoder: Decoder, images: Tensor, draw: torch.Generator) -> None:
    """Set both networks to carriers that they share and the receiver that fits ``images``.

    Args:
        images: some hundred training images [b, 3, R, R] in [-1, 1].
        draw: the carriers are drawn from it.
    """
    assert decoder.content is not None, "needs decoder_carriers"
    n, side = encoder.config.n_bits, encoder.grid
    fine = torch.randn(n, 3, side, side, generator=draw)
    coarse = upsample(torch.randn(n, 3, side // 2, side // 2, generator=draw))
    carriers = FINE * fine + coarse / coarse.std()
    encoder.carriers.weight.copy_(carriers.flatten(1).T)

    weights = predict_pixels(decoder.low_pass(images))
    left = halved(carriers) - F.conv2d(halved(carriers), weights, padding=1)
    decoder.carriers.weight.copy_(SCALE * (left / left.std()).flatten(1))

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
