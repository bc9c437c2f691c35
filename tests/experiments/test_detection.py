"""experiments/detection: whose image is which, and what is said of it."""

import argparse

import pytest
import torch

pytest.importorskip("matplotlib")

import trial
from experiment_scripts import pictures
from scalefp.release.model import Model


@pytest.fixture
def few(model: Model) -> trial.Trial:
    options = argparse.Namespace(training=9, test=8)
    real = pictures(20)[..., : model.config.resolution, : model.config.resolution]
    return trial.Trial(model, real, 3, 0, options)


def test_images_of_instances_come_by_turns(few: trial.Trial, model: Model) -> None:
    images, names = few.made("own", 8, 1)
    assert len(images) == 9 and names == ["own 0", "own 1", "own 2"] * 3
    again, _ = few.made("own", 8, 1)
    assert torch.equal(images, again)
    others, _ = few.made("own", 8, 2)
    assert not torch.equal(images, others)
    assert [len(part) for part in few.training] == [3, 3, 3, 10]
    # Each class holds the images of one instance: those that another call makes under its name.
    training, _ = few.made("own", 9, 0)
    assert torch.equal(few.training[1], training[1::3])


def test_nobody_made_the_others(few: trial.Trial) -> None:
    found = few.test
    assert {kind: {*names} for kind, (_, names) in found.items()} == {
        "own": {"own 0", "own 1", "own 2"},
        "new": {"new 0", "new 1", "new 2"},
        "strangers": {trial.NOBODY},
        "real": {trial.NOBODY},
    }
    everybody = [str(key) for keys in few.keys.values() for key in keys]
    assert len({*everybody}) == 3 + 3 + trial.STRANGERS


def test_what_is_said_is_counted() -> None:
    said = trial.tally(["a", "b", "", "a", ""], ["a", "a", "a", "", ""])
    assert said == {"right": 1, "wrong": 2, "nobody": 2}


def test_a_classifier_cannot_name_who_came_later(
    few: trial.Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    few.options.steps = {3: 128}
    monkeypatch.setattr(trial, "TWO_CLASSES", 128)
    for method in (trial.CNN, trial.GENERIC):
        found = few.measure(method)
        assert found["JPEG 80"]["said"]["new"]["right"] == 0
        assert (found["PNG"]["attribution"] is None) == (method == trial.GENERIC)
    read = few.measure(trial.OURS)  # of a release that was not trained: nobody is named
    assert read["PNG"]["said"]["own"] == {"right": 0, "wrong": 0, "nobody": 9}
    assert read["PNG"]["attribution"]["closed"]["accuracy"] == 0
