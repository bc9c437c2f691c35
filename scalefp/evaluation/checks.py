"""Lift checks: which pass, of a victim's own pictures and of those that her key was laid on?

Where copies carry bound bits (scalefp/release/binding.py), pictures that name a holder are drawn
again with that holder's copy. Of every kind of pictures those are checked that name the victim, as
an investigator would do it. What is laid on is what works best with one image of hers: the
difference to how another's copy draws it (redrawing.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from scalefp.data.images import to_float, to_pil, to_tensor
from scalefp.evaluation.lifting import ISSUED, Lifting, eight_bit, mean_psnr
from scalefp.evaluation.samples import FORMS, EvaluateConfig, stream
from scalefp.key import Key
from scalefp.perturb import PERTURBATIONS
from scalefp.pretrained.checking import TICKS, lift_check
from scalefp.release.model import Model

if TYPE_CHECKING:
    from scalefp.evaluation.method import Measured

JPEG = 50  # quality of the files of hers that are checked, too


def has_bound_bits(model: Measured) -> bool:
    """Whether there is something to check."""
    return isinstance(model, Model) and model.binding is not None


def jpegs(pictures: Tensor, chance: np.random.Generator) -> Tensor:
    """Pictures [b, 3, R, R] in [-1, 1] as they come back from JPEG files."""
    files = [PERTURBATIONS["jpeg"].apply(file, JPEG, chance) for file in to_pil(pictures)]
    return to_float(to_tensor(files, pictures.shape[-1]))


def measure_checks(attacks: Lifting, config: EvaluateConfig) -> list[dict[str, Any]]:
    """Checks of the victims' pictures as they are and as JPEG files, and of pictures of another's
    copy with their fingerprint laid on.

    Returns:
        A row of each kind: :func:`_row`.
    """
    victims, chance = range(attacks.victims), stream(config, "checks")
    count = min(config.lifting.checked, config.lifting.pictures)
    hers = [attacks.images(k, 2, count) for k in victims]
    his = [attacks.images(attacks.victims + k, 3, count) for k in victims]
    again = attacks.drawn_again(hers)
    laid = [eight_bit(his[k] + hers[k] - again[k]) for k in victims]
    kinds = {
        "hers, as they are": (hers, hers),
        f"hers, JPEG {JPEG}": ([jpegs(one, chance) for one in hers], hers),
        "another's, with hers laid on": (laid, his),
    }
    return [_row(attacks, config, what, *pair) for what, pair in kinds.items()]


def _row(
    attacks: Lifting,
    config: EvaluateConfig,
    what: str,
    pictures: Sequence[Tensor],
    before: Sequence[Tensor],
) -> dict[str, Any]:
    """One kind of pictures, [b, 3, R, R] for each victim.

    Returns:
        ``pictures`` (their kind), ``images`` (how many there are), ``named`` (how many name the
        victim among :data:`ISSUED` keys: these are checked), ``passed``, ``bits`` (bound bits of a
        copy), ``agree`` (how many are read, in the mean; None if no picture is checked) and
        ``psnr`` in dB to what the pictures were before.
    """
    model, found, least = attacks.model, [], math.log(config.fpr / ISSUED)
    assert isinstance(model, Model) and model.binding is not None
    for k, some in enumerate(pictures):
        bits = attacks.samples.bits[k]
        logs = FORMS["soft"](attacks.read(some, what), bits[None])
        named = [one for one, log_p in zip(to_pil(some), logs, strict=True) if log_p <= least]
        with tqdm(total=len(named) * TICKS, desc=f"checks, {what}", delay=2, leave=False) as bar:
            for one in named:
                key = Key.from_bits(bits)
                found.append(lift_check(model, key, one, fpr=config.fpr, tick=bar.update))
    return {
        "pictures": what,
        "images": sum(map(len, pictures)),
        "named": len(found),
        "passed": sum(one.passed for one in found),
        "bits": model.binding.sizes.n_bits,
        "agree": float(np.mean([one.agree for one in found])) if found else None,
        "psnr": mean_psnr(pictures, before),
    }
