"""Every instance has the channels inside its blocks in an order of its own: turned by some places.

Without this, whoever has two instances of a release averages their weights, or takes some layers
from each, and has a third that works. A channel between two convolutions may have any place as
long as both agree on it. So the pictures stay what they are, and a mean of channels that do not
belong together draws nothing. Who knows this can look for the channels that match.

To shuffle them, or to move those between blocks as well, spoils no more and would make a key take
twice the time instead of half as much again. Nor would it help to scale them, which lrelu(s x) =
s lrelu(x) would allow: whoever rounds weights to 8 bits loses 5 dB if half of them are doubled.
"""

import hashlib
import hmac
from collections.abc import Sequence

from torch import Tensor

from scalefp.key import Key
from scalefp.networks.generator import Generator
from scalefp.release.container import halved


def order_secret(generator: Generator) -> bytes:
    """The secret of a release that orders follow from: a hash of what turns keys into scales.

    No instance holds those weights, and no file names the hash. They count as a release file
    keeps them, in half precision, so that a training and the file that it wrote agree.
    """
    content = hashlib.sha256()
    for name, weight in sorted(generator.state_dict().items()):
        if name.startswith("embedding.") or "key_change" in name:
            content.update(halved(weight).cpu().numpy().tobytes())
    return content.digest()


def draw_turns(secret: bytes, key: Key, widths: Sequence[int]) -> list[int]:
    """By how many places the channels of each block are turned, always the same for a key.

    Args:
        widths: channels of each block from 8x8 on, 8 blocks at most.
    """
    drawn = hmac.digest(secret, key.bytes, "sha256")
    words = (drawn[4 * i : 4 * i + 4] for i in range(len(widths)))
    return [int.from_bytes(word) % width for word, width in zip(words, widths, strict=True)]


def turn_channels_(tensors: dict[str, Tensor], turns: Sequence[int]) -> None:
    """Replace the tensors of an instance whose channels are moved, so that it draws the same."""
    for i, turn in enumerate(turns, start=1):
        for name, axis in (
            (f"block{i}_before_weight", 0),
            (f"block{i}_before_bias", 0),
            (f"block{i}_conv_weight", 1),
            (f"block{i}_conv_offset", 1),
        ):
            if name in tensors:
                tensors[name] = tensors[name].roll(turn, axis)
