"""What attribution says of one source, as every door gives it out: command line, service, files."""

from collections.abc import Sequence
from typing import Any

from scalefp.attribution.evidence import Attribution, Form
from scalefp.attribution.odds import why_never


def verdict(
    images: Sequence[str],
    found: Sequence[Attribution],
    *,
    fpr: float,
    form: Form,
    issued: int,
    n_bits: int,
    with_keys: bool = True,
) -> dict[str, Any]:
    """The entry of a source: its images, whom attribution named, and by what test.

    Args:
        images: names of the images of the source.
        found: attributions, best first; empty means nobody.
        fpr: accepted probability of naming anybody wrongly.
        issued: number of keys that were compared.
        n_bits: their length. Where such keys are too short for anybody ever to be named, the entry
            says so in a field ``never``.
        with_keys: give out the keys of those named.
    """
    # The key goes out as text, in its place: vars() keeps the order of the fields.
    named = [vars(one) | {"key": str(one.key)} for one in found]
    if not with_keys:
        for one in named:
            del one["key"]
    never = why_never(n_bits, issued, fpr)
    return {
        "images": list(images),
        "attributed": named,
        "fpr": fpr,
        "issued": issued,
        "form": form,
        **({"never": never} if never else {}),
    }
