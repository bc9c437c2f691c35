"""What experiments on attacks compute themselves, where the outcome is known."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("matplotlib")

import lift
import redrawing
import remaking
from reencoding import Reencoded
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.release.model import Model


@pytest.mark.parametrize("enlarged", [1, 2, 4])
def test_an_autoencoder_that_loses_nothing_changes_little(model: Model, enlarged: int) -> None:
    seen = []

    class Whole(nn.Module):
        def forward(self, pictures: Tensor) -> Tensor:
            seen.append(pictures)
            return pictures

    instance = model.instantiate(Key.random())
    again = Reencoded(instance, (Whole(), Whole()), enlarged)
    before, after = instance.sample(4, seed=1), again.sample(4, seed=1)
    assert seen[0].shape == (4, 3, 16 * enlarged, 16 * enlarged)
    assert seen[0].min() > -0.2 and seen[0].max() < 1.2  # such pictures as it takes, overshoot too
    assert (after - before).abs().mean() < (1e-6 if enlarged == 1 else 0.1)
    grey = Reencoded(instance, (Whole(), nn.Threshold(2.0, 0.5)), enlarged).sample(4, seed=1)
    assert grey.abs().max() < 1e-5  # what the decoder gives is what is seen


def test_only_what_an_instance_draws_is_remade(model: Model) -> None:
    class Guess(nn.Module):
        def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
            return torch.empty(0), near

    instance = model.instantiate(Key.random())
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(4, 8, generator=draw)
    near = z + 0.1 * torch.randn(4, 8, generator=draw)
    pictures = instance(z).clamp(-1, 1)
    other = torch.rand(4, 3, 16, 16, generator=draw) * 2 - 1
    drawn = remaking.remade(instance, Guess(), pictures)
    assert drawn.min() > 20 and drawn.min() > remaking.remade(instance, Guess(), other).max() + 10
    assert remaking.told_apart([2.0, 3.0], [1.0, 1.5]) == 1
    assert remaking.told_apart([1.0, 3.0], [1.0, 3.0]) == 0.5


def test_estimators_measured_alone_stand_beside_the_others(tmp_path: Path) -> None:
    def row(estimator: str, mean: float) -> dict[str, object]:
        return {"estimator": estimator, "mean": mean}

    before = {
        "release": "d1", "seed": 0, "victims": 2, "pictures": 32, "command": "a", "blends": [1],
        "cpu_seconds": 5, "rows": [row("mean", 0.5), row("learned", 0.6)],
    }  # fmt: skip
    alone = {"release": "d1", "command": "b", "cpu_seconds": 2, "rows": [row("learned", 0.7)]}
    merged = lift.beside_other_estimators({"x": before}, "x", alone)["x"]
    assert merged["rows"] == [row("mean", 0.5), row("learned", 0.7)]
    assert (merged["blends"], merged["command"], merged["cpu_seconds"]) == ([1], "a; b", 7)
    with pytest.raises(UserError, match="another release"):
        lift.beside_other_estimators({"x": before}, "x", alone | {"release": "d2"})

    options = argparse.Namespace(
        estimates_only=True, out=tmp_path, name="x", seed=0, victims=2, pictures=32
    )
    with pytest.raises(UserError, match="measure x whole first"):
        lift.check_earlier(options)
    (tmp_path / "results.json").write_text(json.dumps({"x": before}))
    lift.check_earlier(options)
    options.victims = 3
    with pytest.raises(UserError, match="as before, with the same seed, victims"):
        lift.check_earlier(options)


def test_one_image_is_measured_and_the_table_says_it(release: Path, tmp_path: Path) -> None:
    words = ["redrawing.py", "--model", str(release), "--pairs", "1", "--pictures", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [*words, "--steps", "2", "--name", "x", "--out", str(tmp_path)])
        redrawing.main()
    found = json.loads((tmp_path / "redrawing.json").read_text())["x"]
    assert [row["strength"] for row in found["rows"]] == 3 * redrawing.STRENGTHS
    page = (tmp_path / "redrawing.md").read_text()
    assert page.count("| added to his own |") == page.count("| taken off hers |") == 3
