"""A start from which encoder and decoder understand each other at once.

The decoder begins as the receiver that is best among the linear ones: what neighbours predict of a
pixel is taken away (the image), and what is left is correlated with the carriers that the encoder
writes. Trained from noise, both would first have to find this.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefp.artificial.encoder import Encoder
from scalefp.networks.decoder import Decoder
from scalefp.networks.layers import upsample
from scalefp.networks.receiver import fit_content, halved

# Noise at all frequencies beside noise up to half the highest, which lossy files keep. Alone, the
# latter drowns in the images and the former in the files.
FINE = 0.3
SCALE = 4.0  # of the first logits: those of a mark of 30 dB are then about 1


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

    weights = fit_content(decoder, images)
    left = halved(carriers) - F.conv2d(halved(carriers), weights, padding=1)
    decoder.carriers.weight.copy_(SCALE * (left / left.std()).flatten(1))
