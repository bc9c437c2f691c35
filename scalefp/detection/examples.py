"""What an adversary learns from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Examples:
    """What the adversary learns from: images uint8 [m, 3, R, R] of both classes.

    ``paired``: marked image i was made from clean image i, and by many keys; else both are other
    pictures, and all marks are of one key.
    """

    clean: Tensor
    marked: Tensor
    paired: bool

    def split(self, share: float) -> tuple[Examples, Examples]:
        """Without, and only the last ``share`` of each class."""
        cut = [len(x) - max(1, round(share * len(x))) for x in (self.clean, self.marked)]
        first = Examples(self.clean[: cut[0]], self.marked[: cut[1]], self.paired)
        return first, Examples(self.clean[cut[0] :], self.marked[cut[1] :], self.paired)
