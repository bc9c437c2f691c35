"""experiments/fidelity/tradeoff.py."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("matplotlib")

import tradeoff
from scalefp.experiment import save_figure
from scalefp.release.model import Model

OPTIONS = {
    "fingerprint": True,
    "seed": 0,
    "schedule.hide_psnr": 28.0,
    "schedule.total_images": 1,
    "perturb.jpeg": 0.2,
}


class Colours(nn.Module):
    """Features of a picture: its mean colour."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


def test_an_untrained_release_is_hidden_by_chance_and_unreadable(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "training", {"options": OPTIONS})
    monkeypatch.setattr(tradeoff, "KEYS", 4)
    colours = torch.rand(64, 3, dtype=torch.float64).numpy()
    row = tradeoff.measure_run(model, colours, Colours(), seed=0)
    assert row["distance"] > 0
    assert 0 < row["psnr"] <= 100
    assert set(row["accuracy"]) == set(tradeoff.READ)
    for found in row["accuracy"].values():
        assert found["mean"] == pytest.approx(0.5, abs=0.15)


def test_names_of_runs(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for changed, name in {
        "": "28 dB, seed 0",
        "perturb.jpeg": "28 dB, seed 0, not immunized",
        "fingerprint": "no keys, seed 0",
    }.items():
        options = OPTIONS | ({changed: 0} if changed else {})
        monkeypatch.setattr(model, "training", {"options": options})
        assert tradeoff.label(model) == name


def test_table_and_plot(tmp_path: Path) -> None:
    read = {name: {"mean": 0.75, "ci95": [0.7, 0.8]} for name in tradeoff.READ}
    keyed: dict[str, Any] = {"distance": 120.0, "psnr": 28.1, "accuracy": read, "immunized": True}
    keyed["options"] = {"seed": 0}
    rows = {"no keys, seed 0": {"distance": 100.0, "immunized": False}, "28 dB, seed 0": keyed}
    results = {"runs": rows, "floor": 17.0}
    text = tradeoff.table(results)
    assert "| 28 dB, seed 0 | 28.1 dB | 120.0 | +20.0% | 0.750 |" in text
    (figure,) = tradeoff.plots(results).values()
    save_figure(figure, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
