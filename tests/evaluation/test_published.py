"""The published figures: whole, in our units, and with their sources."""

import pytest

from scalefp.evaluation.published import curves, sources, tampered_curves
from scalefp.evaluation.tamper import TAMPERINGS
from scalefp.evaluation.targets import READING_TARGETS
from scalefp.perturb import PERTURBATIONS

NAMES = ("crop", "blur", "jpeg", "noise", "combined")


@pytest.mark.parametrize("name", NAMES)
def test_curves_are_whole_and_within_our_axis(name: str) -> None:
    found = curves(name)
    assert [curve.name for curve in found][:2] == ["2022", "2022, immunized"]
    for curve in found:
        assert len(curve.strengths) == len(curve.accuracies) == 10
        assert all(0.45 <= accuracy <= 1 for accuracy in curve.accuracies)
        entry = PERTURBATIONS[name]
        # From the mildest on, towards our own strongest and no further.
        away = [abs(strength - entry.identity) for strength in curve.strengths]
        assert away == sorted(away)
        assert away[-1] <= max(abs(s - entry.identity) for s in entry.test_strengths) + 1e-9


def test_targets_stand_on_these_curves() -> None:
    checked = 0
    for target in READING_TARGETS:
        for curve in curves(target.perturbation):
            points = dict(zip(curve.strengths, curve.accuracies, strict=True))
            if curve.name == "2022, immunized" and target.strength in points:
                assert points[target.strength] == pytest.approx(target.published, abs=0.01)
                checked += 1
    assert checked >= 11


def test_weight_noise_has_a_loss_of_quality() -> None:
    (curve,) = tampered_curves("noise")
    assert curve.losses[0] == 0 and curve.losses[1] == pytest.approx(1 / 14)
    assert list(curve.losses) == sorted(curve.losses)
    assert len(curve.strengths) == len(curve.accuracies) == len(curve.losses)
    assert "noise" in TAMPERINGS


def test_what_was_not_published_has_no_curve() -> None:
    assert curves("rotation") == [] and tampered_curves("prune") == []


def test_every_curve_has_its_source() -> None:
    years = {curve.name[:4] for name in NAMES for curve in curves(name)}
    years |= {curve.name[:4] for curve in tampered_curves("noise")}
    assert years == set(sources())
    assert all("arXiv" in text for text in sources().values())
