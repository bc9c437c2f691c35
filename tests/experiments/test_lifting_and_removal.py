"""What experiments on attacks compute themselves, where the outcome is known."""

import argparse
import json
from pathlib import Path
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("matplotlib")

import lift
import lift_taef2
import redrawing
import remaking
import remove_taef2
from reencoding import Reencoded
from scalefp.errors import UserError
from scalefp.evaluation.single_files import drawn_key
from scalefp.key import Key
from scalefp.loading import load_generating
from scalefp.pretrained.release import InvertingModel
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


@pytest.fixture(scope="module")
def taef2() -> InvertingModel:
    """The bundled release."""
    return cast(InvertingModel, load_generating("taef2"))


def scenes(count: int) -> list[Tensor]:
    """Smooth pictures, each [1, 3, 32, 32] in [-1, 1]."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 4, 4, generator=draw) * 2 - 1
    return list(F.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(-1, 1)[:, None])


def test_noise_in_one_layer_leaves_all_others(taef2: InvertingModel) -> None:
    instance, layer = taef2.instantiate(Key.random()), taef2.parent.names[0]
    before = {name: tensor.clone() for name, tensor in instance.network.state_dict().items()}
    away = []
    for strength, changed in remove_taef2.keyed_noise(instance, layer, 0):
        for name, tensor in changed.network.state_dict().items():
            assert torch.equal(tensor, before[name]) != name.startswith(layer), name
        weight = f"{layer}.weight"
        noise = changed.network.state_dict()[weight] - before[weight]
        away.append(float(noise.std() / before[weight].std()))
        assert away[-1] == pytest.approx(strength, rel=0.05)
    assert away == sorted(away)
    assert all(torch.equal(t, before[n]) for n, t in instance.network.state_dict().items())


def test_a_decoder_trained_on_comes_nearer_to_its_pictures(
    taef2: InvertingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remove_taef2, "SEEN", (0, 8))
    monkeypatch.setattr(remove_taef2, "BATCH", 2)
    instance, photos = taef2.instantiate(drawn_key(taef2.n_bits, 0)), scenes(2)
    whole = torch.cat(photos)
    for own, wanted in ((False, whole), (True, instance.reconstruct(whole))):
        (_, pupil), (_, trained) = (
            (seen, [pupil.reconstruct(one) for one in wanted[:, None]])
            for seen, pupil in remove_taef2.trained_on(instance, photos, 1e-5, own, 0)
        )
        before, after = ((torch.cat(made) - wanted).square().mean() for made in (pupil, trained))
        assert after < 0.9 * before


def test_what_is_laid_on_pictures_of_a_decoder_is_what_its_key_changed(
    taef2: InvertingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lift_taef2, "KNOWN", 2)
    photos = torch.cat(scenes(4))
    hers = taef2.instantiate(Key.random())
    rows = lift_taef2.attacks(hers, taef2.original, taef2.original, photos, 2)
    theirs, _ = rows["hers, as they are"]
    exact = theirs - lift_taef2.files_of(taef2.original, photos[:2])
    own, laid = rows["his, with what her key changed of another picture, exactly, 3 times"]
    assert torch.equal(own, lift_taef2.files_of(taef2.original, photos[2:]))
    torch.testing.assert_close(laid - own, 3 * exact)
    # Of her picture encoded and decoded again nothing is left when it is taken off and put back.
    _, again = rows["hers, encoded and decoded by his copy"]
    own, laid = rows["his, with one picture of hers less what his copy makes of it, 1 times"]
    torch.testing.assert_close(again + laid - own, theirs)
    clean, laid = rows[
        "photographs, with one picture of hers less what his copy makes of it, 3 times"
    ]
    assert torch.equal(clean, photos[2:])
    torch.testing.assert_close(laid - clean, 3 * (theirs - again))
