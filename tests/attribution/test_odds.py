"""P-values in words."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalefp.attribution.odds import in_words, why_never
from scalefp.attribution.tails import matches_needed


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (1.0, "pure chance"),
        (0.51, "pure chance"),
        (0.3, "1 in 3"),
        (0.07, "1 in 14"),
        (1 / 999.5, "1 in 999"),
        (1 / 12_900, "1 in 10,000"),
        (2e-5, "1 in 50,000"),
        (1e-6, "1 in 10^6"),
        (1.0001e-6, "1 in 900,000"),
        (2.4e-13, "1 in 4 × 10^12"),
        (3 / 2**128, "1 in 10^38"),
    ],
)
def test_odds_in_words_are_rounded_down(p: float, words: str) -> None:
    assert in_words(p) == words


@given(st.floats(min_value=2.0**-512, max_value=0.5))
def test_words_never_claim_more_than_the_p_value(p: float) -> None:
    stated = re.fullmatch(r"1 in (?:(\d+(?:,\d{3})*)(?: × )?)?(?:10\^(\d+))?", in_words(p))
    assert stated is not None
    factor, power = stated.groups()
    claimed = float((factor or "1").replace(",", "")) * 10.0 ** int(power or 0)
    assert 0.5 - 1e-8 <= claimed * p <= 1 + 1e-8  # rounded down to one digit


@pytest.mark.parametrize(
    ("n_bits", "issued", "fpr", "never"),
    [
        (8, 1, 1e-6, True),
        (16, 1, 1e-6, True),
        (20, 1, 1e-6, False),  # 2^-20 is 9.5e-7
        (20, 2, 1e-6, True),  # too many keys for their length
        (128, 10**9, 1e-6, False),
        (16, 1, 1e-4, False),
    ],
)
def test_what_can_never_be_named_is_said(n_bits, issued, fpr, never):
    sentence = why_never(n_bits, issued, fpr)
    assert (sentence is not None) == never
    if never:
        assert f"of {n_bits} bits issued" in sentence and f"{issued * 2.0**-n_bits:.2g}" in sentence
    assert (matches_needed(n_bits, issued, fpr) is None) == never
