"""From what a decoder read to issued keys with exact p-values, or to nobody.

``evidence`` tests, with the distributions of ``tails`` and the key search of ``search``; ``near``
finds keys that were planted; ``reading`` is what the decoder read; ``coalition`` names several who
worked together; ``odds`` puts it in words.
Standard library and numpy only: evidence must not depend on a network being importable.
"""

from scalefp.attribution.coalition import attribute_coalition
from scalefp.attribution.evidence import (
    FORMS,
    Attribution,
    Form,
    IssuedKeys,
    KeySource,
    attribute,
    attribute_each,
    log_p_hard,
    log_p_soft,
    soft_weights,
)
from scalefp.attribution.odds import in_words, why_never
from scalefp.attribution.reading import Reading, group_by_agreement
from scalefp.attribution.search import count_matches
from scalefp.attribution.tails import log_binomial_tail, matches_needed, p_value, weighted_tail

__all__ = [
    "Attribution",
    "FORMS",
    "Form",
    "IssuedKeys",
    "KeySource",
    "Reading",
    "attribute",
    "attribute_coalition",
    "attribute_each",
    "count_matches",
    "group_by_agreement",
    "in_words",
    "log_binomial_tail",
    "log_p_hard",
    "log_p_soft",
    "matches_needed",
    "p_value",
    "soft_weights",
    "weighted_tail",
    "why_never",
]
