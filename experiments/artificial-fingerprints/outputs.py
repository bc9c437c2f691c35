"""What generators made: the owner's, and those that an adversary trained himself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scalefp.data.dataset import ImageSet
from scalefp.detection.examples import Examples

CLEAN, MARKED, CONTROL = "clean", "marked", "control"


class Outputs:
    """Samples of generators.

    The owner's, each a set of images uint8 [n, 3, R, R] or missing: of a generator trained on
    clean data, of the same trained on marked data, and of a second one trained on clean data.
    An adversary's own: for each threat, pairs of a clean and a marked generator.
    """

    def __init__(
        self,
        owner: dict[str, str | None],
        own_clean: Sequence[str],
        own_marked: dict[str, Sequence[str]],
        resolution: int,
    ) -> None:
        """Read the sets of :data:`CLEAN`, :data:`MARKED` and :data:`CONTROL`, each a folder or
        zip, and by threat those of the adversary's marked generators, of which each goes with the
        clean one at its place."""

        def read(path: str) -> Tensor:
            return torch.from_numpy(ImageSet(path, resolution).pixels)

        self.sets = {name: read(path) for name, path in owner.items() if path is not None}
        clean = [read(path) for path in own_clean]
        self.own = {
            threat: [
                Examples(first, read(path), paired=False)
                for first, path in zip(clean, paths, strict=False)
            ]
            for threat, paths in own_marked.items()
            if paths
        }

    def has(self, *names: str) -> bool:
        """Whether all these sets of the owner are there."""
        return {*names} <= {*self.sets}

    def labelled(self, second: str) -> Examples:
        """Clean samples and those of another set, the first half of each."""
        return Examples(self._half(CLEAN, 0), self._half(second, 0), paired=False)

    def kept_back(self, name: str) -> Tensor:
        """The second half of a set."""
        return self._half(name, 1)

    def _half(self, name: str, which: int) -> Tensor:
        return self.sets[name].chunk(2)[which]
