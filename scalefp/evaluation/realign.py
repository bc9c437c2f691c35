"""What recipients do who know that the channels of each copy are in an order of its own.

The order is that of release/channels.py. Two copies of a release differ by little but that, so the
layers that write channels tell which of them belong together.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor


def matches(mine: Tensor, other: Tensor) -> list[int]:
    """For each row of ``mine`` [c, d] the row of ``other`` most like it, each taken once.

    Greedy: the surest pair first, by the cosine of the angle between them.
    """
    likeness = F.normalize(mine) @ F.normalize(other).T
    places = [0] * len(mine)
    for _ in places:
        row, column = divmod(int(likeness.argmax()), len(mine))
        places[row] = column
        likeness[row], likeness[:, column] = -2, -2
    return places


def realigned(mine: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of another copy with the channels inside its blocks where mine has them.

    Networks that are no instances of this package's generators stay as they are.
    """
    result, i = dict(other), 1
    while (writer := f"block{i}_before_weight") in result:
        places = matches(mine[writer].flatten(1), other[writer].flatten(1))
        for name in (writer, f"block{i}_before_bias"):
            result[name] = other[name][places]
        for name in (f"block{i}_conv_weight", f"block{i}_conv_offset"):
            if name in other:
                result[name] = other[name][:, places]
        i += 1
    return result
