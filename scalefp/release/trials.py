"""Reading a moved image where the localizer sees it, for decoders without carriers.

Each place costs a pass of the decoder, and a look of the localizer a quarter of one. So what the
localizer cannot tell by itself, which is how a picture was turned by quarters, mirrored or squeezed
and where it lies within flat margins, is shown to it first: put back to where it came from, a
picture looks to it as it was. Only places where it does are read, and only where one of them looks
right is it looked at more closely. Where there are carriers, matching.py tries thousands for as
much; how places are weighed is said there.
"""

import torch
from torch import Tensor

from scalefp.networks.decoder import Decoder
from scalefp.networks.frames import compose, distance, identity_frame, inverse, orientations, warp
from scalefp.release.evenness import SURE, above_noise
from scalefp.release.margins import margin_frames
from scalefp.release.matching import Places, as_it_is, is_changed, refine, score
from scalefp.release.places import squeezed_frames

# The score below which nothing is looked at closely: what an estimate of the localizer has that
# reads one standard deviation more evenly than noise.
GIVE_UP = 3.5
# How far from as it was the localizer may see a picture that is put back to where it came from, in
# half images, if it is to be read there. Of the release `emoji` pictures that were turned by
# quarters, and some cut to nine tenths as well, were up to .12 off, such within margins .03, such
# squeezed in width .04; squeezed in height .25, nearly all of them .2.
TURNED, WITHIN, NARROWER, LOWER = 0.15, 0.05, 0.05, 0.2
SURELY = 0.02  # where it sees a picture turned, less far off, its estimate is trusted there


def see(decoder: Decoder, image: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Show one image [3, R, R] to the localizer, put back to where it came from by each of
    ``places`` [f, 2, 3].

    Returns:
        Where it sees the image then, [f, 2, 3], and how far that is from the place [f].
    """
    change = decoder.locate(warp(image.expand(len(places), -1, -1, -1), inverse(places)))
    return compose(change, places), distance(change, identity_frame(1, image.device))


def read_at(decoder: Decoder, image: Tensor, frames: Tensor) -> Tensor:
    """Logits [f, n] of one image [3, R, R] in each frame [f, 2, 3]."""
    logits: Tensor = decoder(image.expand(len(frames), -1, -1, -1), frames)[0]
    return logits


def families(decoder: Decoder, image: Tensor) -> tuple[list[tuple[Tensor, int]], Tensor]:
    """Where one image [3, R, R] is read: families of frames [f, 2, 3], each with the number of
    places that they were chosen from. First where the localizer sees it as it is, mirrored, and, as
    it is, when the estimate is undone and it looks again, which helps where a picture lies within a
    larger one. And which of these estimates to trust, [1, 2, 3]."""
    turned, squeezed = orientations().to(image), squeezed_frames().to(image)
    framed = margin_frames(image)
    margins = squeezed[:0] if framed is None else framed
    # One of the four shapes of each side shows for all whether it was that side.
    seen, off = see(decoder, image, torch.cat([turned, squeezed[[2, 6]], margins]))
    again, _ = see(decoder, image, seen[:1])
    others = torch.tensor([1, 2, 3, 5, 6, 7], device=image.device)
    sides = off[8:10] < off.new_tensor([LOWER, NARROWER])
    found = [
        (seen[others][off[others] < TURNED], 7),
        (squeezed[sides.repeat_interleave(4)], 8),
        (margins[off[10:] < WITHIN], len(margins)),
    ]
    surest = int(off[:8].argmin())
    trusted = surest if off[surest] < SURELY else 0
    tried = [(seen[:1], 1), (seen[4:5], 1), (again, 1), *(each for each in found if len(each[0]))]
    return tried, seen[trusted : trusted + 1]


def look(decoder: Decoder, image: Tensor) -> tuple[Places, bool]:
    """The places where one image [3, R, R] may have come from, and whether it seems changed."""
    tried, trusted = families(decoder, image)
    changed = is_changed(tried[0][0])
    places = Places(trusted if changed else None, 2 / decoder.resolution)
    logits = read_at(decoder, image, torch.cat([frames for frames, _ in tried]))
    for (frames, of), own in zip(tried, logits.split([len(f) for f, _ in tried]), strict=True):
        places.add(frames, own, of=of)
    return places, changed


def read_moved(decoder: Decoder, image: Tensor, logits: Tensor) -> Tensor:
    """Logits [n] of one image [3, R, R] where it came from; else those given, as it is."""
    places, changed = look(decoder, image)
    frame, evenness, cost, moved = places.best(1, apart=0.0)
    if evenness < SURE and score(evenness, cost) >= GIVE_UP:
        frame = refine(lambda frames: read_at(decoder, image, frames), frame, evenness)
        moved = read_at(decoder, image, frame)
    better = score(above_noise(moved[0]), cost[0]) > as_it_is(logits, changed)
    return moved[0] if better else logits
