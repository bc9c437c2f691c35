"""The table of targets: every row judged by its own number."""

from typing import Any

import pytest

from scalefp.evaluation.targets import READING_TARGETS, target_rows

UNTOUCHED = {"images": 256}


def results(**changes: Any) -> dict[str, Any]:
    """Results in which every target is just met."""
    reading = [
        {
            "perturbation": target.perturbation,
            "strength": float(target.strength),
            "images": 100,
            "mean": target.least,
            "ci95": [target.least, target.least],
        }
        for target in READING_TARGETS
    ]
    at_noise = {"strength": 0.2, "accuracy": 0.98, "loss": 0.1, "reached": True}
    return {
        "reading": reading,
        "features": {"distance": 10.4, "twin_distance": 10.0, "images_each": 1600},
        "tampering": {"at_loss": {"noise": at_noise}, "untouched": UNTOUCHED},
        "unrelated": {
            "attributed": {"hard": 0, "soft": 0},
            "images": 10_000,
            "searched": 1000,
        },
        "config": {"fpr": 1e-6},
    } | changes


def verdicts(**changes: Any) -> dict[str, Any]:
    return {row["what"]: row["met"] for row in target_rows(results(**changes))}


def only_missed(**changes: Any) -> str:
    (missed,) = [what for what, met in verdicts(**changes).items() if not met]
    return missed


def test_all_met() -> None:
    assert all(verdicts().values())
    assert len(verdicts()) == len(READING_TARGETS) + 3


@pytest.mark.parametrize("number", range(len(READING_TARGETS)))
def test_each_reading_has_its_own_row(number: int) -> None:
    reading = results()["reading"]
    reading[number]["mean"] -= 1e-6
    assert only_missed(reading=reading).endswith(READING_TARGETS[number].what)


def test_cost_noise_and_unrelated_are_judged() -> None:
    assert "cost" in only_missed(features=results()["features"] | {"distance": 10.6})
    noise = {"strength": 0.2, "accuracy": 0.97, "loss": 0.1, "reached": True}
    missed = {"at_loss": {"noise": noise}, "untouched": UNTOUCHED}
    assert "noise" in only_missed(tampering=missed)
    unrelated = results()["unrelated"]
    one_named = unrelated | {"attributed": {"hard": 0, "soft": 1}}
    assert "unrelated" in only_missed(unrelated=one_named)
    assert "unrelated" in only_missed(unrelated=unrelated | {"images": 9_999})


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    rows = target_rows(results(reading=[], features=None, tampering={"at_loss": {}}))
    unmeasured = [row for row in rows if row["met"] is None]
    assert len(unmeasured) == len(READING_TARGETS) + 2
    assert all(row["reached"].startswith("not measured") for row in unmeasured)
    without_twin = verdicts(features={"distance": 10.0})
    assert [what for what, met in without_twin.items() if met is None][0].startswith("relative")


def test_few_images_are_not_judged() -> None:
    few = results()
    for point in few["reading"]:
        point["images"] = 99
    few["tampering"]["untouched"] = {"images": 99}
    few["features"]["images_each"] = 99
    few["unrelated"]["images"] = 9_999
    rows = target_rows(few)
    assert all(row["met"] is None and row["few"] for row in rows)
    few["unrelated"]["attributed"] = {"hard": 0, "soft": 1}  # enough to miss it
    last = target_rows(few)[-1]
    assert last["met"] is False and not last["few"]


def test_a_loss_that_was_not_reached_is_told() -> None:
    noise = {"strength": 1.0, "accuracy": 0.99, "loss": 0.04, "reached": False}
    tampering = {"at_loss": {"noise": noise}, "untouched": UNTOUCHED}
    row = target_rows(results(tampering=tampering))[-2]
    assert row["met"] is True and "+4% only" in row["reached"]


def test_published_figures_are_shown() -> None:
    rows = {row["what"]: row["published"] for row in target_rows(results())}
    assert rows["bit accuracy: JPEG 50"] == "0.7"
    assert rows["bit accuracy: mirrored"] == "not published"
