"""Reading an image that was cropped, turned, mirrored or squeezed: look for the place it came from.

Trying places does no harm to the evidence: no key is looked at, and an innocent key agrees with
*any* reading by pure chance (see scalefp/attribution/evidence.py), the best of many included.
"""

import torch
from torch import Tensor

from scalefp.networks.decoder import Decoder
from scalefp.release import matching, trials
from scalefp.release.evenness import SURE, above_noise
from scalefp.release.matched import MatchedFilter


def read(decoder: Decoder, images: Tensor, filter: MatchedFilter | None = None) -> Tensor:
    """Logits [b, n] of images [b, 3, R, R], each read where it came from.

    Images that read evenly as they are cost one pass of the decoder, a batch at a time. Each other
    one costs as much as about twenty-five of them, thirty if something is found. Without carriers
    it is eleven looks of the localizer, a quarter of a pass each, and some five passes for an
    image that is unrelated; twenty-five more where something may be found. Decoders without
    localizer read all as they are.

    Args:
        filter: the decoder's matched filter, if it was made before.
    """
    logits: Tensor = decoder(images)[0]
    if decoder.localizer is None:
        return logits
    filter = filter or MatchedFilter(decoder)
    for i in torch.nonzero(above_noise(logits) < SURE).flatten().tolist():
        if decoder.content is None:
            logits[i] = trials.read_moved(decoder, images[i], logits[i])
        else:
            logits[i] = matching.read_moved(decoder, filter, images[i], logits[i])
    return logits
