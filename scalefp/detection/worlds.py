"""Accuracy of detection and attribution in the closed and in the open world.

Closed world: images of issued keys (detection: and images without any). Open world: also images of
keys that were never issued, and images without any; the right answer for those is nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scalefp.attribution.evidence import attribute_each
from scalefp.attribution.reading import Reading
from scalefp.experiment import wilson
from scalefp.registry.registry import Registry

NOBODY = ""


def named(reading: Reading, registry: Registry, fpr: float) -> list[str]:
    """Who is named for each image; nobody, if it is not exactly one."""
    answers = attribute_each(list(reading), registry, fpr)
    return [answer[0].holder if len(answer) == 1 else NOBODY for answer in answers]


def share(right: Sequence[bool]) -> dict[str, Any]:
    """Accuracy of equally weighted answers."""
    count = int(sum(right))
    interval = wilson(count, len(right))
    return {"images": len(right), "accuracy": count / len(right), "ci95": interval}


def world_figures(
    own: Sequence[str], truth: Sequence[str], clean: Sequence[str], stranger: Sequence[str]
) -> dict[str, Any]:
    """Accuracies in both worlds from what was named.

    Args:
        own, truth: for images of issued keys: who was named, and whose they are.
        clean, stranger: who was named for images without a key and for those of keys never issued.
    """
    n = min(len(own), len(clean), len(stranger))  # as many of each kind
    found = [who == whose for who, whose in zip(own, truth, strict=True)]
    seen = [who != NOBODY for who in own]
    silent = [who == NOBODY for who in clean]
    strangers = [who == NOBODY for who in stranger]
    return {
        "detection": {
            "closed": share(seen[:n] + silent[:n]),
            # In the open world a fingerprint that nobody was issued is nobody's.
            "open": share(seen[:n] + silent[: n // 2] + strangers[: n // 2]),
        },
        "attribution": {
            "closed": share(found),
            "open": share(found[:n] + silent[: n // 2] + strangers[: n // 2]),
        },
        "wrongly_named": sum(
            who not in (NOBODY, whose) for who, whose in zip(own, truth, strict=True)
        )
        + sum(who != NOBODY for who in [*clean, *stranger]),
    }
