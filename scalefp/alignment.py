"""Reading an image that was cropped, turned or mirrored: try where it came from, keep the clearest.

The decoder is trained to be unsure where it looks in the wrong place (the term ``elsewhere``), so
the clearest reading is the one to believe. Trying is free of harm to the evidence: no key is looked
at, and an innocent key agrees with *any* reading by pure chance (see attribution.py), the clearest
of many included.
"""

import torch
from torch import Tensor

from scalefp.decoder import Decoder
from scalefp.geometry import compose, inverse, orientations, similarity, warp

# Confidence (see `clarity`) at which a first reading is believed without looking further. Copies
# that nobody moved, JPEG 50 included, read above it; where they do not, looking costs only time.
CLEAR = 0.9
# What people do to pictures, tried beside the localizer's estimate: crops about the middle, turns.
SIDES = (0.95, 0.9, 0.84, 0.78, 0.72, 0.66, 0.6, 0.54, 0.48, 0.42)
ANGLES = (-30, -26, -22, -18, -14, -10, -7, -4, 4, 7, 10, 14, 18, 22, 26, 30)
STARTS = 3  # frames refined for each image
ROUNDS = 5  # of refinement, each with half the step of the one before
STEP = 0.06  # of the first round, in half images


def clarity(logits: Tensor) -> Tensor:
    """How decided readings [..., n] are: mean of |2 sigmoid(logit) - 1|, in [0, 1]."""
    return (logits / 2).tanh().abs().mean(dim=-1)


def usual_frames() -> Tensor:
    """Frames [f, 2, 3] of crops about the middle and of turns."""
    sides, angles = torch.tensor(SIDES), torch.tensor(ANGLES, dtype=torch.float32)
    crops = similarity(sides, *torch.zeros(3, len(SIDES)))
    turns = similarity(torch.ones(len(ANGLES)), angles, *torch.zeros(2, len(ANGLES)))
    return torch.cat([crops, turns])


def read_at(decoder: Decoder, image: Tensor, frames: Tensor, batch_size: int = 32) -> Tensor:
    """Logits [f, n] of one image [3, R, R] read at each of ``frames`` [f, 2, 3]."""
    parts = frames.split(batch_size)
    return torch.cat([decoder(image.expand(len(part), -1, -1, -1), part)[0] for part in parts])


def neighbours(frame: Tensor, step: float) -> Tensor:
    """Frames [8, 2, 3] a step to each side of one [2, 3]: place, size and angle."""
    degrees = step * 180 / torch.pi
    sides = torch.tensor([1 + step, 1 / (1 + step), 1, 1, 1, 1, 1, 1])
    angles = torch.tensor([0, 0, degrees, -degrees, 0, 0, 0, 0])
    x = torch.tensor([0, 0, 0, 0, step, -step, 0, 0])
    y = torch.tensor([0, 0, 0, 0, 0, 0, step, -step])
    return compose(frame.expand(8, -1, -1), similarity(sides, angles, x, y).to(frame))


def first_frames(decoder: Decoder, image: Tensor) -> Tensor:
    """Frames [f, 2, 3] to try first for one image [3, R, R]: however it may have been turned, the
    localizer's estimate for each of these, and what people usually do."""
    turned = orientations().to(image)
    upright = warp(image.expand(8, -1, -1, -1), inverse(turned))
    located = compose(decoder.locate(upright), turned)
    return torch.cat([turned, located, usual_frames().to(image)])


def search(decoder: Decoder, image: Tensor) -> Tensor:
    """The clearest logits [n] of one image [3, R, R], wherever it came from."""
    frames = first_frames(decoder, image)
    logits = read_at(decoder, image, frames)
    best = clarity(logits).topk(STARTS).indices
    frames, logits = frames[best], logits[best]
    step = STEP
    for _ in range(ROUNDS):
        around = torch.cat([neighbours(frame, step) for frame in frames])
        tried = read_at(decoder, image, around).unflatten(0, (len(frames), -1))
        around = around.unflatten(0, (len(frames), -1))
        for i, clear in enumerate(clarity(tried)):
            if clear.max() > clarity(logits[i]):
                frames[i], logits[i] = around[i, clear.argmax()], tried[i, clear.argmax()]
        step /= 2
    return logits[clarity(logits).argmax()]


def read(decoder: Decoder, images: Tensor) -> Tensor:
    """Logits [b, n] of images [b, 3, R, R], each read where it is clearest.

    Images that read clearly as they are cost one pass of the decoder; each other one costs
    about a hundred. A decoder without localizer reads all as they are.
    """
    logits = decoder(images)[0]
    if decoder.localizer is None:
        return logits
    for i in torch.nonzero(clarity(logits) < CLEAR).flatten().tolist():
        found = search(decoder, images[i])
        if clarity(found) > clarity(logits[i]):
            logits[i] = found
    return logits
