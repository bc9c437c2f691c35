"""Tampered instances against the untouched ones, on a release whose pictures mean nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import write_image
from scalefp.errors import UserError
from scalefp.evaluation import finetune
from scalefp.evaluation.removal import (
    FINE_TUNING,
    Attempt,
    Tampered,
    accuracy_at_loss,
    attempts,
    losses_met,
    tunings,
)
from scalefp.evaluation.samples import EvaluateConfig, Samples
from scalefp.evaluation.tamper import TAMPERINGS
from scalefp.release.model import Model


class Corners(nn.Module):
    """An extractor for tests: the mean colours of quarters."""

    def forward(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, images.shape[-1] // 2).flatten(1)


@pytest.fixture
def config(tmp_path: Path) -> EvaluateConfig:
    for i in range(20):
        write_image(tmp_path / f"{i}.png", seed=i)
    return EvaluateConfig(
        keys=4,
        images_per_key=2,
        tamper_keys=3,
        tamper_images=8,
        pools=[1, 4],
        issued=[1],
        data=str(tmp_path),
        feature_images=20,
        finetune_images=[32, 64],
        finetune_keys=2,
    )


def tampered(model: Model, config: EvaluateConfig, extractor: nn.Module | None) -> Tampered:
    return Tampered(model, Samples(model, config), extractor, config)


def test_every_strength_of_the_table_is_tried(model: Model, config: EvaluateConfig) -> None:
    found = attempts(config)
    assert len(found) == sum(len(entry.test_strengths) for entry in TAMPERINGS.values())
    assert len({attempt.name for attempt in found}) == len(found)
    assert tunings(model, config) == [FINE_TUNING]
    config.tamperings = ["prune"]
    assert {attempt.tampering for attempt in attempts(config)} == {"prune"}
    assert tunings(model, config) == []
    config.tamperings = [FINE_TUNING]
    assert attempts(config) == [] and tunings(model, config) == [FINE_TUNING]
    config.tamperings = ["melt"]
    with pytest.raises(UserError, match="'melt'.*fine-tuning"):
        attempts(config)


def test_nothing_done_costs_nothing(model: Model, config: EvaluateConfig) -> None:
    measured = tampered(model, config, Corners())
    untouched = measured.nothing()
    assert untouched["images"] == 24 and untouched["keys"] == 3
    assert untouched["psnr"] == 100
    assert untouched["loss"] == 0 and untouched["distance"] == untouched["distance_untouched"]
    assert untouched["distance_to_untouched"] == pytest.approx(0, abs=1e-9)
    assert untouched["attributed"]["4"]["sources"] == 6
    same = measured.attempt(Attempt("noise", 0.0))
    for name in ("mean", "psnr", "loss", "distance"):
        assert same[name] == untouched[name]


def test_stronger_changes_go_further(model: Model, config: EvaluateConfig) -> None:
    measured = tampered(model, config, Corners())
    weak, strong = (measured.attempt(Attempt("noise", strength)) for strength in (0.02, 0.5))
    assert weak["psnr"] > strong["psnr"] + 10
    assert strong["distance_to_untouched"] > 10 * weak["distance_to_untouched"] > 0
    assert strong["loss"] == strong["distance"] / strong["distance_untouched"] - 1
    again = tampered(model, config, Corners()).attempt(Attempt("noise", 0.5))
    assert again == strong  # chance comes from the seed


def test_averaging_takes_the_neighbours_weights(model: Model, config: EvaluateConfig) -> None:
    measured = tampered(model, config, None)
    row = measured.attempt(Attempt("average", 1.0))
    other = [measured.samples.instance((k - 1) % 3) for k in range(3)]
    assert row["psnr"] == measured.figures(Attempt("x", 0.0), other)["psnr"]
    assert "loss" not in row  # no extractor, no distance


def test_fine_tuning_starts_at_the_untouched(
    model: Model, config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "WARM_UP_IMAGES", 32)
    rows = tampered(model, config, Corners()).fine_tuning()
    assert [row["strength"] for row in rows] == [0, 32, 64]
    assert all(row["tampering"] == FINE_TUNING and row["keys"] == 2 for row in rows)
    assert all(row["images"] == 24 for row in rows)  # as many as of three keys otherwise
    assert rows[0]["psnr"] == 100 and rows[0]["loss"] == 0
    assert 100 > rows[1]["psnr"] > rows[2]["psnr"]


# Where pictures have lost so much.


def row(strength: float, loss: float, mean: float) -> dict:
    return {"tampering": "noise", "strength": strength, "loss": loss, "mean": mean}


def test_accuracy_at_a_loss_is_interpolated() -> None:
    untouched = row(0.0, 0.0, 1.0)
    rows = [row(0.1, 0.04, 0.99), row(0.2, 0.08, 0.97), row(0.3, 0.12, 0.93), row(0.4, 0.5, 0.6)]
    found = accuracy_at_loss(untouched, rows, 0.1)
    assert found["reached"] and found["loss"] == 0.1
    assert found["strength"] == pytest.approx(0.25) and found["accuracy"] == pytest.approx(0.95)
    first = accuracy_at_loss(untouched, rows[3:], 0.1)  # from nothing at once
    assert first["strength"] == pytest.approx(0.08) and first["accuracy"] == pytest.approx(0.92)


def test_a_loss_that_is_never_reached_is_said() -> None:
    # Some noise may even bring pictures nearer to the data.
    found = accuracy_at_loss(row(0, 0, 1), [row(0.1, -0.05, 0.9), row(0.2, 0.02, 0.8)], 0.1)
    assert found == {"strength": 0.2, "accuracy": 0.8, "loss": 0.02, "reached": False}


def test_only_rising_tamperings_with_losses_have_such_a_point() -> None:
    untouched = row(0, 0, 1)
    rows = [row(0.1, 0.2, 0.9), {**row(8, 0.3, 0.9), "tampering": "integer"}]
    no_loss = {"tampering": "prune", "strength": 0.1, "mean": 0.9}
    assert list(losses_met(untouched, [*rows, no_loss], 0.1)) == ["noise"]
    assert np.isclose(losses_met(untouched, rows, 0.1)["noise"]["accuracy"], 0.95)
