"""Which attacks on pictures are measured of a release, by name, and their figures together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from scalefp.evaluation.checks import has_bound_bits, measure_checks
from scalefp.evaluation.estimators import knowledges
from scalefp.evaluation.lifting import TOLD, Lifting
from scalefp.evaluation.redrawing import why_not
from scalefp.evaluation.samples import EvaluateConfig, Samples

if TYPE_CHECKING:
    from scalefp.evaluation.method import Measured


def lifting_parts(
    model: Measured, samples: Samples, config: EvaluateConfig
) -> dict[str, Callable[[], Any]]:
    """What is to be measured, by name: each attacker's knowledge, then the other attacks."""
    lifting, known = Lifting(model, samples, config), knowledges(config)
    if not known:
        return {}
    parts: dict[str, Callable[[], Any]] = {
        f"lifting, {one.name}": partial(lifting.attack, one) for one in known
    }
    if config.lifting.redrawn and why_not(model) is None:
        parts["lifting, redrawn"] = lifting.redrawn
    if config.lifting.checked and has_bound_bits(model):
        parts["lifting, checks"] = partial(measure_checks, lifting, config)
    return parts | {
        "lifting, blends": lifting.blends,
        "lifting, picked": lifting.picked,
        "lifting, asking": partial(lifting.queried, 1.0),
        "lifting, asking of the service": partial(lifting.queried, TOLD),
    }


def lifting_results(found: Mapping[str, Any], config: EvaluateConfig) -> dict[str, Any] | None:
    """The measured parts together; None if no attack was wanted."""
    known = knowledges(config)
    if not known:
        return None
    again = found.get("lifting, redrawn", {"rows": [], "psnr": None})
    return {
        "rows": [row for one in known for row in found[f"lifting, {one.name}"]] + again["rows"],
        "redrawn_psnr": again["psnr"],
        "checks": found.get("lifting, checks"),
        "blends": found["lifting, blends"],
        "picked": found["lifting, picked"],
        "asking": found["lifting, asking"],
        "asking_service": found["lifting, asking of the service"],
    }


def attacks_left_out(model: Measured, config: EvaluateConfig) -> list[str]:
    """A sentence for every attack that this release or method does not allow."""
    sentences, kept_from = [], why_not(model)
    if not knowledges(config):
        return []
    if config.lifting.redrawn and kept_from:
        sentences.append(f"Left out: lifting from images drawn again, since {kept_from}.")
    if config.lifting.checked and not has_bound_bits(model):
        sentences.append(
            "Left out: lift checks, since no bound bits are in the pictures "
            "(`scalefp release bind`)."
        )
    return sentences
