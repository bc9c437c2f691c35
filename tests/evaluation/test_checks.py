"""Lift checks in an evaluation: hers pass, what was laid on another's picture does not."""

from pathlib import Path

import numpy as np
import pytest

from parity import make_folder
from scalefp.attribution.reading import Reading
from scalefp.evaluation.attacks import attacks_left_out, lifting_parts, lifting_results
from scalefp.evaluation.lifting_page import checks_table, lifting_page
from scalefp.evaluation.samples import EvaluateConfig, LiftingConfig, Samples
from scalefp.loading import load_model
from scalefp.pretrained.binding import bind, default_layer
from scalefp.release.binding import BindingSizes
from scalefp.release.model import Model
from scalefp.release.reader import Reader

BITS, CHECKED = 20, 3


@pytest.fixture(scope="module")
def bound(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The tiny release with bound bits."""
    path = tmp_path_factory.mktemp("bound") / "bound.safetensors"
    bind(model, path, BindingSizes(default_layer(model.config), BITS), psnr=30)
    return load_model(path)


@pytest.fixture
def config(tmp_path: Path) -> EvaluateConfig:
    """Small: one wrong pass in a thousand is accepted, as 20 bits can confirm no more."""
    return EvaluateConfig(
        keys=2, fpr=1e-3, pools=[1], unrelated_images=8,
        data=make_folder(tmp_path / "data", 8, seed=0),
        lifting=LiftingConfig(
            victims=1, estimators=["mean"], images=[2], strengths=[1.0], pictures=4, queries=2,
            redrawn=0, checked=CHECKED,
        ),
    )  # fmt: skip


def read_as(monkeypatch: pytest.MonkeyPatch, samples: Samples, key: int) -> None:
    """Let a decoder, which was never trained, read that key in whatever picture."""
    logits = samples.bits[key] * 2.0 - 1

    def decode(self: Reader, images: list[object], **options: object) -> Reading:
        return Reading(np.stack([logits] * len(images)), self.digest)

    monkeypatch.setattr(Reader, "decode", decode)


def test_hers_pass_and_what_is_laid_on_does_not(
    bound: Model, config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = Samples(bound, config)
    read_as(monkeypatch, samples, 0)
    found = {name: part() for name, part in lifting_parts(bound, samples, config).items()}
    results = lifting_results(found, config)
    assert results is not None
    hers, jpeg, laid = rows = results["checks"]
    assert [row["pictures"] for row in rows] == [
        "hers, as they are", "hers, JPEG 50", "another's, with hers laid on",
    ]  # fmt: skip
    assert all(row["images"] == row["named"] == CHECKED and row["bits"] == BITS for row in rows)
    assert hers["passed"] == CHECKED and hers["agree"] >= 18 and laid["passed"] == 0
    assert hers["agree"] > laid["agree"]  # half of them by chance
    assert hers["psnr"] == 100 > jpeg["psnr"] > 15  # nothing was done to the first
    public = {"lifting": vars(config.lifting), "pools": config.pools}
    page = "\n".join(lifting_page({"lifting": results, "config": public}))
    assert f"| hers, as they are | 3 of 3 | 3 of 3 | {hers['agree']:.1f} of 20 | 100.0 |" in page
    assert "(100 steps). A check passes at the fpr" in page
    results["checks"] = None
    assert "A check passes" not in "\n".join(lifting_page({"lifting": results, "config": public}))


def test_pictures_that_do_not_name_her_are_not_checked(
    bound: Model, config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.lifting.redrawing_steps = 1
    samples = Samples(bound, config)
    read_as(monkeypatch, samples, 1)
    rows = lifting_parts(bound, samples, config)["lifting, checks"]()
    assert [(row["images"], row["named"], row["passed"], row["agree"]) for row in rows] == [
        (CHECKED, 0, 0, None)
    ] * 3
    assert "| hers, as they are | 0 of 3 |  |  | 100.0 |" in checks_table(rows)


def test_what_has_no_bound_bits_is_left_out_in_a_line(
    model: Model, bound: Model, config: EvaluateConfig
) -> None:
    def asked(release: Model) -> bool:
        return "lifting, checks" in lifting_parts(release, Samples(release, config), config)

    assert asked(bound) and not asked(model)
    (line,) = attacks_left_out(model, config)
    assert "lift checks" in line and "`scalefp release bind`" in line
    assert attacks_left_out(bound, config) == []
    config.lifting.checked = 0
    assert not asked(bound) and attacks_left_out(model, config) == []
