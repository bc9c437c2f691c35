"""Attacks on a fingerprint that is a sum of carriers, for which what they reach is known."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from parity import make_folder
from scalefp.config import ModelConfig
from scalefp.data.images import to_float, to_tensor
from scalefp.errors import UserError
from scalefp.evaluation import estimators, lifting
from scalefp.evaluation.attacks import lifting_parts, lifting_results
from scalefp.evaluation.estimators import ESTIMATORS, Knowledge, fine, knowledges
from scalefp.evaluation.lifting import Lifting
from scalefp.evaluation.lifting_page import blends_table, lifting_page
from scalefp.evaluation.method import OtherMethod
from scalefp.evaluation.redrawing import redrawn, why_not
from scalefp.evaluation.samples import EvaluateConfig, LiftingConfig, Samples
from scalefp.key import Key

SIZE, N_BITS, STRENGTH = 16, 32, 0.02


def carriers() -> Tensor:
    """Orthogonal waves that blurring takes away, [n, 3, R, R] of unit variance."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(N_BITS, 3, SIZE, SIZE, generator=draw)
    checks = noise * (-1.0) ** (torch.arange(SIZE)[:, None] + torch.arange(SIZE))
    basis, _ = torch.linalg.qr((checks - checks.mean((2, 3), keepdim=True)).flatten(1).T)
    return basis.T.reshape(N_BITS, 3, SIZE, SIZE) * math.sqrt(3 * SIZE * SIZE)


class SpreadInstance:
    """Smooth pictures plus the carriers, each with the sign of its bit."""

    config = SimpleNamespace(latent_dim=12)

    def __init__(self, key: Key) -> None:
        signs = torch.from_numpy(2.0 * key.bits - 1).float()
        self.pattern = STRENGTH * (signs[:, None, None, None] * carriers()).sum(0)

    def sample(self, n: int, *, seed: int = 0, batch_size: int = 32) -> Tensor:
        draw = torch.Generator().manual_seed(seed)
        return self(torch.rand(n, 12, generator=draw) - 0.5)

    def __call__(self, z: Tensor) -> Tensor:
        coarse = z.view(-1, 3, 2, 2)
        return torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear") + self.pattern


class SpreadModel:
    """Reads a bit by its carrier."""

    digest = "cd" * 32
    config = ModelConfig(resolution=SIZE, n_bits=N_BITS)

    def instantiate(self, key: Key) -> SpreadInstance:
        return SpreadInstance(key)

    def decode(self, images: list, *, batch_size: int = 32, search: bool = True) -> object:
        pixels = to_float(to_tensor(images, SIZE))
        logits = torch.einsum("bchw,nchw->bn", pixels, carriers()).numpy()
        return type("Read", (), {"logits": logits})()


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimators, "STEPS", 20)


@pytest.fixture
def config(tmp_path) -> EvaluateConfig:
    return EvaluateConfig(
        keys=4,
        issued=[1, 1_000_000],
        pools=[1, 4],
        data=make_folder(tmp_path / "data", 24, seed=0),
        unrelated_images=24,
        lifting=LiftingConfig(
            victims=2, images=[4, 64], strengths=[1.0, 2.0], pictures=8, queries=40, redrawn=4
        ),
    )


@pytest.fixture
def attacks(config: EvaluateConfig) -> Lifting:
    model = SpreadModel()
    return Lifting(model, Samples(model, config), config)


@pytest.mark.parametrize("estimator", ["mean", "median"])
def test_with_a_copy_the_difference_of_the_keys_is_lifted(attacks: Lifting, estimator: str) -> None:
    rows = attacks.attack(Knowledge(estimator, 64, True))
    found = {(row["attack"], row["onto"], row["strength"]): row for row in rows}
    bits = attacks.samples.bits
    same = [float((bits[k] == bits[2 + k]).mean()) for k in range(2)]
    # Onto his own pictures once: her pattern whole, his gone, but where both agree all stays.
    once = found["lift", "own pictures", 1.0]
    assert once["mean"] == pytest.approx(1.0, abs=0.02)
    assert once["own"]["mean"] == pytest.approx(np.mean(same), abs=0.02)
    # Washed once, her bits are his; washed twice, those in which they differ are reversed.
    assert found["wash", "her pictures", 1.0]["mean"] == pytest.approx(np.mean(same), abs=0.02)
    assert found["wash", "her pictures", 2.0]["mean"] == pytest.approx(np.mean(same), abs=0.02)
    # What is added twice is 6 dB louder.
    psnr = [found["lift", "own pictures", strength]["psnr"] for strength in (1.0, 2.0)]
    assert psnr[0] - psnr[1] == pytest.approx(20 * math.log10(2), abs=0.3)


def test_without_a_copy_the_whole_pattern_is_lifted(attacks: Lifting) -> None:
    rows = attacks.attack(Knowledge("mean", 64, False))
    found = {(row["onto"], row["strength"]): row for row in rows}
    assert found["own pictures", 2.0]["mean"] > 0.97
    assert found["own pictures", 2.0]["attributed"]["1"]["soft"]["1"] > 0.9
    assert found["her pictures", 2.0]["mean"] < 0.03  # reversed


def test_one_image_is_enough_for_who_draws_it_again(attacks: Lifting) -> None:
    found = attacks.redrawn()
    rows = {(row["attack"], row["onto"], row["strength"]): row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) == 6
    assert {(r["estimator"], r["known_images"], r["own_copy"]) for r in rows.values()} == {
        ("redrawn", 1, True)
    }
    bits = attacks.samples.bits
    same = np.mean([float((bits[k] == bits[2 + k]).mean()) for k in range(2)])
    # His copy comes as near as the patterns let it, which are orthogonal to all smooth pictures.
    left = [attacks.samples.instance(k).pattern for k in range(4)]
    far = np.mean([float((left[k] - left[2 + k]).square().mean()) for k in range(2)])
    assert found["psnr"] == pytest.approx(-10 * math.log10(far / 4), abs=0.3)
    # Laid on his pictures once, her pattern takes the place of his; taken off hers, his of hers.
    once = rows["lift", "own pictures", 1.0]
    assert once["images"] == 2 * 4 and once["mean"] == pytest.approx(1.0, abs=0.02)
    assert once["own"]["mean"] == pytest.approx(same, abs=0.02)
    assert once["attributed"]["1"]["soft"]["1"] > 0.9 > once["own"]["attributed"]["1"]["soft"]["1"]
    assert rows["wash", "her pictures", 1.0]["mean"] == pytest.approx(same, abs=0.02)
    assert rows["lift", "data", 2.0]["mean"] > 0.7


def test_how_near_a_picture_is_drawn_again_depends_on_no_other(attacks: Lifting) -> None:
    hers, his = attacks.samples.instance(0), attacks.samples.instance(2)
    pictures, inputs = hers.sample(3, seed=1), torch.zeros(3, 12)
    together = redrawn(his, pictures, inputs, steps=40)
    for k in range(3):
        alone = redrawn(his, pictures[k : k + 1], inputs[:1], steps=40)
        torch.testing.assert_close(together[k : k + 1], alone, rtol=0, atol=1e-6)
    assert inputs.eq(0).all()  # stay as they were


def test_who_can_draw_again_is_said(attacks: Lifting, config: EvaluateConfig) -> None:
    class Pictures:
        n_bits, resolution = N_BITS, SIZE
        sample = decode = None

    parts = {"lifting, redrawn"}
    assert parts < lifting_parts(attacks.model, attacks.samples, config).keys()
    other = OtherMethod(Pictures())  # type: ignore[arg-type]
    assert "images alone" in str(why_not(other))
    assert not parts & lifting_parts(other, attacks.samples, config).keys()
    config.lifting.redrawn = 0
    assert not parts & lifting_parts(attacks.model, attacks.samples, config).keys()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimate_points_at_the_pattern(estimator: str) -> None:
    """The mean over pictures of what is added correlates with what the key adds."""
    key = Key.from_bits(np.random.default_rng(5).integers(0, 2, N_BITS, dtype=np.uint8))
    instance = SpreadInstance(key)
    victim, pictures = instance.sample(96, seed=1), instance.sample(16, seed=2) - instance.pattern
    added = ESTIMATORS[estimator](victim, None, 0)(pictures).mean(0)
    agreement = torch.corrcoef(
        torch.stack([added.flatten(), fine(instance.pattern[None]).flatten()])
    )
    assert agreement[0, 1] > 0.6


def test_the_estimate_is_the_same_for_the_same_seed() -> None:
    images = SpreadInstance(Key(b"\x0f" * 4, N_BITS)).sample(16, seed=3)
    first, second = (ESTIMATORS["learned"](images, None, 7)(images) for _ in range(2))
    assert torch.equal(first, second)


def test_blends_show_both(attacks: Lifting) -> None:
    averaged, pasted = attacks.blends()
    for row in (averaged, pasted):
        # The bits in which the two agree are read; the others are cancelled or torn.
        assert row["first"]["mean"] > 0.7 and row["second"]["mean"] > 0.7
    assert averaged["blend"] == "averaged" and pasted["blend"] == "cut and pasted"
    # The mean of two is a quarter of their squared difference from each, a cut one half of it.
    assert averaged["first"]["psnr"] == pytest.approx(averaged["second"]["psnr"], abs=0.1)
    cut = (pasted["first"]["psnr"] + pasted["second"]["psnr"]) / 2  # the halves differ
    assert averaged["first"]["psnr"] - cut == pytest.approx(10 * math.log10(2), abs=0.7)
    text = blends_table([averaged, pasted])
    assert f"{averaged['first']['psnr']:.1f} / {averaged['second']['psnr']:.1f}" in text
    del averaged["first"]["psnr"], pasted["first"]["psnr"]
    assert "PSNR" not in blends_table([averaged, pasted])  # as of results that were kept before


def test_pictures_of_no_generator_are_accused_too(config: EvaluateConfig, tmp_path: Path) -> None:
    config.unrelated = [make_folder(tmp_path / "others", 3, seed=7)]
    model = SpreadModel()
    attacks = Lifting(model, Samples(model, config), config)
    for rows in (attacks.attack(Knowledge("mean", 64, False)), attacks.redrawn()["rows"]):
        found = {(row["onto"], row["strength"]): row for row in rows}
        assert found["unrelated", 2.0]["images"] == 2 * 3  # as many as there are
        assert found["unrelated", 2.0]["mean"] > found["unrelated", 1.0]["mean"] > 0.6


def test_picked_pictures_lean_where_random_ones_do_not(
    attacks: Lifting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifting, "PICKED", 6)
    monkeypatch.setattr(lifting, "ISSUED", 1)
    for row in attacks.picked():
        assert row["picked"] < row["random"] - 1


def test_asking_helps_only_where_p_values_are_told(
    attacks: Lifting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifting, "ISSUED", 1)
    for row in attacks.queried(1.0):
        assert row["log10_p"] < row["before"]
    for row in attacks.queried(1e-300):
        assert row["log10_p"] == row["before"]


def test_all_parts_make_the_page(config: EvaluateConfig) -> None:
    config.lifting = LiftingConfig(
        victims=1, estimators=["mean"], images=[4], strengths=[2.0], pictures=4, queries=2,
        redrawn=4, redrawing_steps=5,
    )  # fmt: skip
    model = SpreadModel()
    parts = lifting_parts(model, Samples(model, config), config)
    found = {name: measure() for name, measure in parts.items()}
    results = {
        "lifting": lifting_results(found, config),
        "config": {"lifting": vars(config.lifting), "pools": config.pools},
    }
    text = "\n".join(lifting_page(results))
    assert text.count("| data | mean |") == text.count("| her pictures | mean |") == 2
    assert text.count("| redrawn | 1 and a copy | 2 |") == 3 and "(5 steps, " in text
    assert "4 and a copy" in text and "cut and pasted" in text and "10^" in text
    config.lifting.estimators = []
    assert lifting_parts(model, Samples(model, config), config) == {}
    assert (
        lifting_results({}, config) is None and lifting_page({"lifting": None, "config": {}}) == []
    )


def test_mistakes(config: EvaluateConfig) -> None:
    config.lifting.estimators = ["mena"]
    with pytest.raises(UserError, match="'mena'.*mean, median"):
        knowledges(config)
    for change, word in (
        ({"victims": 0}, "victims"), ({"images": []}, "images"), ({"images": [4, 4]}, "images"),
        ({"strengths": [0.0]}, "strengths"), ({"pictures": 0}, "pictures"),
        ({"redrawn": -1}, "redrawn"), ({"redrawing_steps": 0}, "redrawing_steps"),
    ):  # fmt: skip
        config.lifting = LiftingConfig(**change)
        with pytest.raises(UserError, match=word):
            config.check()
