"""Reading a moved image where the localizer sees it, for decoders without carriers.

Each place costs a pass of the decoder, so few are tried: the localizer's estimates, and what it
cannot tell, which is how a picture was turned by quarters, mirrored or squeezed, and where it lies
within flat margins. Only where one of them looks right is it looked at more closely. Where there
are carriers, matching.py tries thousands for as much; how places are weighed is said there.
"""

import torch
from torch import Tensor

from scalefp.networks.decoder import Decoder
from scalefp.networks.frames import compose, inverse, orientations, warp
from scalefp.release.evenness import SURE, above_noise
from scalefp.release.margins import margin_frames
from scalefp.release.matching import Places, as_it_is, is_changed, refine, score
from scalefp.release.places import squeezed_frames

# The score below which nothing is looked at closely: what an estimate of the localizer has that
# reads one standard deviation more evenly than noise.
GIVE_UP = 3.5


def estimates(decoder: Decoder, image: Tensor) -> Tensor:
    """Where the localizer sees one image [3, R, R] as it is, mirrored, and, as it is, when the
    estimate is undone and it looks again, which helps where a picture lies within a larger one:
    frames [3, 2, 3]."""
    both = orientations().to(image)[[0, 4]]
    once = compose(decoder.locate(warp(image.expand(2, -1, -1, -1), inverse(both))), both)
    again = compose(decoder.locate(warp(image[None], inverse(once[:1]))), once[:1])
    return torch.cat([once, again])


def read_at(decoder: Decoder, image: Tensor, frames: Tensor) -> Tensor:
    """Logits [f, n] of one image [3, R, R] in each frame [f, 2, 3]."""
    logits: Tensor = decoder(image.expand(len(frames), -1, -1, -1), frames)[0]
    return logits


def look(decoder: Decoder, image: Tensor) -> tuple[Places, bool]:
    """The places where one image [3, R, R] may have come from, and whether it seems changed."""
    seen = estimates(decoder, image)
    changed = is_changed(seen[:1])
    places = Places(seen[:1] if changed else None, 2 / decoder.resolution)
    families = [seen[:1], seen[1:2], seen[2:], orientations().to(image)[1:]]
    families.append(squeezed_frames().to(image))
    framed = margin_frames(image)
    if framed is not None:
        families.append(framed)
    logits = read_at(decoder, image, torch.cat(families))
    for frames, own in zip(families, logits.split([len(f) for f in families]), strict=True):
        places.add(frames, own)
    return places, changed


def read_moved(decoder: Decoder, image: Tensor, logits: Tensor) -> Tensor:
    """Logits [n] of one image [3, R, R] where it came from; else those given, as it is."""
    places, changed = look(decoder, image)
    frame, evenness, cost = places.best(1, apart=0.0)
    if evenness < SURE and score(evenness, cost) >= GIVE_UP:
        frame = refine(lambda frames: read_at(decoder, image, frames), frame, evenness)
    elif score(evenness, cost) <= as_it_is(logits, changed):
        return logits
    (moved,) = read_at(decoder, image, frame)
    better = score(above_noise(moved), cost[0]) > as_it_is(logits, changed)
    return moved if better else logits
