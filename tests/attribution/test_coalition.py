"""Naming in rounds: whom one test alone misses, and that it accuses innocents no more often."""

from dataclasses import dataclass

import numpy as np
import pytest

from scalefp.attribution.coalition import LATER, attribute_coalition, without
from scalefp.attribution.evidence import FORMS, IssuedKeys, Reading, attribute
from scalefp.errors import UserError
from scalefp.key import Key

FPR, ISSUED, N_BITS = 1e-4, 2000, 128


@dataclass
class FakeRegistry:
    """Issued keys in memory; key i belongs to holder i."""

    keys: np.ndarray  # bits [N, n]
    model_digest: str | None = None

    @property
    def n_bits(self):
        return self.keys.shape[1]

    def keys_and_holders(self):
        holders = [str(index) for index in range(len(self.keys))]
        return IssuedKeys(np.packbits(self.keys, axis=1), holders)

    def confirm(self, issued, indices):
        """There is no log to compare with."""


@pytest.fixture(scope="module")
def registry():
    keys = np.random.default_rng(0).integers(0, 2, (ISSUED, N_BITS), dtype=np.uint8)
    return FakeRegistry(keys)


def mixture(registry, members, *, noise=0.0, seed=0):
    """The reading of a decoder to which these holders' fingerprints simply add up."""
    signs = registry.keys[list(members)] * 2.0 - 1
    error = np.random.default_rng(seed).normal(size=N_BITS)
    return Reading((signs.mean(axis=0) + noise * error)[None])


def names(found):
    return {int(one.holder) for one in found}


def test_rounds_name_all_three_where_one_test_misses_some(registry):
    trios = np.random.default_rng(1).permutation(ISSUED)[:60].reshape(20, 3)
    readings = [mixture(registry, trio, noise=0.3, seed=i) for i, trio in enumerate(trios)]
    alone = [names(attribute(reading, registry, FPR)) for reading in readings]
    rounds = [names(attribute_coalition(reading, registry, FPR)) for reading in readings]
    members = [set(trio.tolist()) for trio in trios]
    assert all(named <= guilty for named, guilty in zip(alone + rounds, members * 2, strict=True))
    found_all_alone = sum(map(set.__eq__, alone, members))
    found_all_in_rounds = sum(map(set.__eq__, rounds, members))
    assert found_all_alone < found_all_in_rounds
    assert found_all_in_rounds >= 15
    # Once one is named, so are the others.
    assert all(len(named) in (0, 3) for named in rounds)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_innocents_are_named_with_at_most_the_accepted_probability(form, seed):
    # Exactly, over all innocent keys there are, beside a guilty key that the first round names.
    n_bits, fpr = 8, 0.5
    rng = np.random.default_rng(seed)
    guilty = rng.integers(0, 2, n_bits, dtype=np.uint8)
    reading = Reading((guilty * 2.0 - 1 + rng.normal(size=n_bits) / 3)[None])
    everybody = (np.arange(2**n_bits)[:, None] >> np.arange(n_bits) & 1).astype(np.uint8)
    accused = later = 0
    for innocent in everybody:
        if (innocent == guilty).all():
            continue
        registry = FakeRegistry(np.stack([guilty, innocent]))
        named = names(attribute_coalition(reading, registry, fpr, form=form))
        assert 0 in named
        accused += 1 in named
        later += 1 in named - names(attribute(reading, registry, fpr, form=form))
    # Of the two issued keys that fpr is shared by, one is innocent.
    assert accused <= fpr / 2 * len(everybody)
    assert later > 0  # or the later rounds would not have been tested


def test_a_single_source_is_named_alone_at_the_price_of_the_later_rounds(registry):
    reading = mixture(registry, [7], noise=0.4)
    (alone,) = attribute(reading, registry, FPR)
    (found,) = attribute_coalition(reading, registry, FPR)
    assert (found.key, found.matches) == (alone.key, alone.matches)
    assert found.p_value == pytest.approx(alone.p_value / (1 - LATER), rel=1e-12)


def test_nobody_is_named_for_noise(registry):
    logits = np.random.default_rng(0).standard_t(2, (20, N_BITS))
    assert [attribute_coalition(Reading(row[None]), registry, FPR) for row in logits] == [[]] * 20


def test_p_values_carry_the_share_of_their_round(registry):
    found = attribute_coalition(mixture(registry, [3, 4, 5], noise=0.2), registry, FPR)
    assert names(found) == {3, 4, 5}
    assert all(0 < one.p_value <= FPR for one in found)


def test_it_ends_when_nothing_is_left_of_the_reading(registry):
    assert names(attribute_coalition(mixture(registry, [1, 2]), registry, FPR)) == {1, 2}
    assert names(attribute_coalition(mixture(registry, [1]), registry, FPR)) == {1}


def test_images_of_one_source_are_added_first(registry):
    readings = [mixture(registry, [8, 9], noise=3, seed=seed).logits[0] for seed in range(60)]
    together = Reading(np.stack(readings))
    assert names(attribute_coalition(together, registry, FPR)) == {8, 9}
    assert attribute_coalition(together[0], registry, FPR) == []


def test_what_is_left_says_nothing_about_the_keys_taken_out(registry):
    reading = mixture(registry, [1, 2], noise=0.5)
    keys = [Key.from_bits(registry.keys[index]) for index in (1, 2)]
    rest = without(reading, keys)
    signs = registry.keys[[1, 2]] * 2.0 - 1
    np.testing.assert_allclose(signs @ rest.logits[0], 0, atol=1e-12)
    # Whatever part they had in the logits, the rest is the same.
    more = Reading(reading.logits + 5 * signs[:1] - 2 * signs[1:])
    np.testing.assert_allclose(without(more, keys).logits, rest.logits, atol=1e-12)


def test_mistakes_are_attributes(registry):
    with pytest.raises(UserError, match="128-bit keys"):
        attribute_coalition(Reading(np.ones((1, 64))), registry)
    with pytest.raises(UserError, match="fpr"):
        attribute_coalition(mixture(registry, [1]), registry, 2)
