"""A p-value in words, for readers who have to act on it."""

import math

from scalefp.attribution.tails import p_value
from scalefp.files import counted


def in_words(p: float) -> str:
    """A p-value as odds, rounded down so that it never claims too much: "1 in 4 × 10^12"."""
    if p > 0.5:
        return "pure chance"
    odds = 1 / p
    if odds < 1000:
        return f"1 in {math.floor(odds + 1e-9)}"  # the margins keep what is exact but for rounding
    exponent = math.floor(math.log10(odds) + 1e-9)
    mantissa = math.floor(odds / 10**exponent + 1e-9)
    if exponent < 6:
        return f"1 in {mantissa * 10**exponent:,}"
    return f"1 in {mantissa} × 10^{exponent}" if mantissa > 1 else f"1 in 10^{exponent}"


def why_never(n_bits: int, issued: int, fpr: float) -> str | None:
    """Why nobody can be named at ``fpr``, whatever is read; None if somebody can.

    The least p-value there is belongs to a key that agrees in every bit: issued * 2^-n_bits.
    """
    least = p_value(n_bits, issued, n_bits)
    if least <= fpr:
        return None
    return (
        f"nobody can ever be named at an fpr of {fpr:g}: with {counted(issued, 'key')} of {n_bits} "
        f"bits issued, even an image in which every bit is right has p = {least:.2g} "
        "(train with longer keys)"
    )
