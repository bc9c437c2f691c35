"""Recipients who worked together: name one, take his part out of the reading, look for the next.

Shapes: n key bits, m keys named so far.

Averaging the outputs or the weights of c instances adds up their fingerprints, so each colluder's
score falls to about sqrt(n / c) standard deviations and :func:`scalefp.attribute` may
find some of them and miss the others. But once one key is named, its part of the logits is known
up to a factor: what is left is the reading of a coalition of c - 1. This is the successive
cancellation of multi-user detection (Patel & Holtzman, IEEE JSAC 12(5), 1994).

Why it stays exact. Let a round name the keys whose score reaches a threshold that depends on the
logits alone. While no innocent key has been named, the keys named so far, and with them what is
left of the reading, are functions of the reading and the guilty keys, of which an innocent key is
independent: it agrees with what is left by pure chance, as with the reading itself. So a round
names a first innocent with at most its share of ``fpr``, and the shares add up to ``fpr``.

Standard library and numpy only, like the evidence itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scalefp.attribution.evidence import Attribution, Form, KeySource, Reading, attribute
from scalefp.attribution.near import refuse_near
from scalefp.key import Key

# Share of what is left of fpr that each round leaves to those after it. The first round needs it
# most: where it names one, the others stand out.
LATER = 1 / 16
# Less than this, relative to the largest logit, is rounding.
ROUNDING = 1e-9


def without(reading: Reading, keys: Sequence[Key]) -> Reading:
    """What the logits [1, n] say beyond these keys: the residual of the least-squares fit.

    The logits are taken as a sum of the keys' signs [n, m], each by a factor of its own.
    """
    signs = np.stack([key.bits for key in keys], axis=1) * 2.0 - 1
    logits = reading.logits[0]
    factors = np.linalg.lstsq(signs, logits, rcond=None)[0]
    return Reading((logits - signs @ factors)[None], reading.model_digest)


def attribute_coalition(
    reading: Reading, registry: KeySource, fpr: float = 1e-6, *, form: Form = "soft"
) -> list[Attribution]:
    """Name the members of a coalition, one round after the other.

    At least as strict as ``attribute`` on whom it names first, since that round may spend 15/16 of
    ``fpr`` only; the members that ``attribute`` then misses are mostly found.

    Args:
        reading: of one or more images of one source.
        registry: the keys issued for the release that made the reading.
        fpr: in (0, 1): the probability accepted of naming anybody who is innocent, all rounds
            together.
        form: as for ``attribute``.

    Returns:
        In the order of naming; empty means nobody. A p-value is corrected for its round's share as
        well: it is at most ``fpr``. Matches count agreement with what the round had before it.

    Raises:
        UserError: as ``attribute`` does.
    """
    rest = source = reading.pooled()
    named: list[Attribution] = []
    share = 1 - LATER
    while True:
        found = attribute(rest, registry, fpr * share, form=form)
        known = {one.key for one in named}
        new = [one for one in found if one.key not in known]
        named += [replace(one, p_value=one.p_value / share) for one in new]
        if not new:
            return named
        together = np.stack([np.frombuffer(one.key.bytes, np.uint8) for one in named])
        refuse_near(together, source.n_bits, len(registry.keys_and_holders().packed))
        rest = without(source, [one.key for one in named])
        if np.abs(rest.logits).max() <= ROUNDING * np.abs(source.logits).max():
            return named
        share *= LATER
