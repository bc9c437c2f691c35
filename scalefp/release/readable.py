"""Whether a release's images can be attributed: what its training reached, as its file says."""

import math
from collections.abc import Mapping
from typing import Any

from scalefp.files import counted

NEEDED = -math.log2(1e-6)  # bits of evidence: the default threshold, for one key and one image


class UnreadableRelease(UserWarning):
    """A release whose images will be attributed to nobody, because it was not trained enough."""


def shortfall(reached: object, n_bits: int) -> str | None:
    """What keeps the images of a release from being attributed, as the end of a sentence.

    Args:
        reached: of the release's training: ``active_bits``, key bits switched on, and
            ``evidence``, mean -log2 of the p-value of the true key from one image. Releases of
            earlier versions do not say it.
        n_bits: length of its keys.

    Returns:
        None if nothing does, or nothing is known.
    """
    if not isinstance(reached, Mapping):
        return None
    active, evidence = reached.get("active_bits"), reached.get("evidence")
    if not isinstance(active, int) or not isinstance(evidence, int | float):
        return None
    needed = min(NEEDED, n_bits / 2)  # no image can carry more than n_bits
    if active == 0:
        return "it was trained without keys"
    if active < n_bits:
        return f"only {active} of its {n_bits} key bits were ever switched on in training"
    if evidence < needed:
        return (
            f"one image carries {counted(evidence, 'bit')} of evidence in training, "
            f"where about {needed:.0f} are needed"
        )
    return None


def unreadable(training: Mapping[str, Any], n_bits: int) -> str | None:
    """The sentence of :func:`shortfall`, from a release's note on its training."""
    why = shortfall(training.get("reached"), n_bits)
    if why is None:
        return None
    return f"the images of this release will be attributed to nobody: {why}"
