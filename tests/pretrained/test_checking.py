"""Lift checks: a holder's own pictures pass, those with what her key changed laid on do not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import Run, assert_mistake
from scalefp.attribution.reading import Reading
from scalefp.config import ModelConfig
from scalefp.data.images import save_png, to_pil, to_uint8
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.loading import load_model
from scalefp.metrics import psnr
from scalefp.networks.decoder import Decoder
from scalefp.networks.generator import Generator
from scalefp.perturb import PERTURBATIONS
from scalefp.pretrained.binding import bind, default_layer, without_bound_bits
from scalefp.pretrained.checking import TICKS, lift_check
from scalefp.registry import Registry
from scalefp.release.binding import BindingSizes
from scalefp.release.model import Model
from scalefp.release.reader import Reader

BITS, PSNR = 20, 30.0
HERS, HIS = (Key.from_bits(np.random.default_rng(i).integers(0, 2, 128)) for i in (1, 2))


@pytest.fixture(scope="module")
def bound(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny release with bound bits, as its file."""
    path = tmp_path_factory.mktemp("bound") / "bound.safetensors"
    bind(model, path, BindingSizes(default_layer(model.config), BITS), psnr=PSNR)
    return path


@pytest.fixture(scope="module")
def release_(bound: Path) -> Model:
    return load_model(bound)


def drawn(model: Model, key: Key, count: int = 1, seed: int = 0) -> Tensor:
    """8-bit pictures [count, 3, 16, 16] of the copy of a key."""
    return to_uint8(model.instantiate(key).sample(count, seed=seed))


def test_bound_bits_cost_what_was_asked_for(release_: Model) -> None:
    latents = torch.randn(64, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        pair = release_.instantiate(HERS)(latents), without_bound_bits(release_, HERS)(latents)
    found = psnr(*(pictures.clamp(-1, 1) for pictures in pair)).mean()
    assert PSNR - 2 < float(found) < PSNR + 3
    assert release_.training["bound"] == {"psnr": PSNR, "seed": 0}


def test_her_own_pictures_pass_and_other_copies_do_not(release_: Model) -> None:
    steps: list[int] = []
    for picture in drawn(release_, HERS, 3):
        found = lift_check(release_, HERS, picture, fpr=1e-3, tick=lambda: steps.append(1))
        assert found.passed and found.p_value <= 1e-3
        assert 17 <= found.agree <= found.bits == BITS
    assert len(steps) == 3 * TICKS
    for picture in drawn(release_, HIS, 3, seed=5):
        found = lift_check(release_, HERS, picture, fpr=1e-3)
        assert not found.passed and found.p_value > 1e-3


@pytest.mark.parametrize(("name", "strength"), [("crop", 0.75), ("rotation", 10)])
def test_her_cropped_and_turned_pictures_pass(release_: Model, name: str, strength: float) -> None:
    files = to_pil(drawn(release_, HERS, 3, seed=6))
    moved = [PERTURBATIONS[name].apply(file, strength, np.random.default_rng(0)) for file in files]
    found = [lift_check(release_, HERS, picture, fpr=1e-3) for picture in moved]
    assert sum(one.passed for one in found) >= 2, found


def test_what_her_key_changed_of_a_picture_does_not_make_another_pass(release_: Model) -> None:
    latents = torch.randn(3, 8, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        changes = release_.instantiate(HERS)(latents) - release_.instantiate(HIS)(latents)
        his = release_.instantiate(HIS)(latents.flip(1))
    for laid in to_uint8((his + changes).clamp(-1, 1)):
        assert not lift_check(release_, HERS, laid, fpr=1e-3).passed


def test_a_release_without_bound_bits_is_told_what_to_do(model: Model) -> None:
    picture = torch.zeros(3, 16, 16, dtype=torch.uint8)
    with pytest.raises(UserError, match="bound bits: `scalefp release bind` makes one"):
        lift_check(model, HERS, picture)


def test_a_check_takes_one_picture(release_: Model) -> None:
    with pytest.raises(UserError, match="one image at a time, not 2"):
        lift_check(release_, HERS, drawn(release_, HERS, 2))
    with pytest.raises(UserError, match="64"):
        lift_check(release_, Key.random(64), drawn(release_, HERS)[0])


# On the command line.


@pytest.fixture
def case(
    tmp_path: Path, release_: Model, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path, Path]:
    """A registry with her key, which is read from whatever picture; one of hers, and one of his."""
    monkeypatch.setattr(Key, "random", classmethod(lambda cls, n_bits=128: HERS))
    Registry(tmp_path / "keys.db").issue("alice", release_)
    logits = HERS.bits * 2.0 - 1

    def decode(self: Reader, images: list[object], **options: object) -> Reading:
        return Reading(np.stack([logits] * len(images)), self.digest)

    monkeypatch.setattr(Reader, "decode", decode)
    for name, key in (("hers", HERS), ("his", HIS)):
        save_png(tmp_path / f"{name}.png", to_pil(drawn(release_, key))[0])
    return tmp_path / "keys.db", tmp_path / "hers.png", tmp_path / "his.png"


def test_attribute_says_of_each_picture_whether_it_passed(
    run: Run, bound: Path, case: tuple[Path, Path, Path]
) -> None:
    registry, hers, his = case
    common = ["attribute", "--model", bound, "--registry", registry, "--fpr", "1e-3"]
    text = run(*common, "--lift-check", 1, hers, his)
    first, second = text.out.splitlines()
    assert text.code == 0
    assert "alice (p = " in first and "; lift check passed (" in first
    assert "alice (p = " in second and "; lift check NOT passed (" in second
    assert f" of {BITS} bound bits, p = " in first and f" of {BITS} bound bits, p = " in second
    assert "--lift-check" not in text.err and "--lift-check 1 looks" in run(*common, hers).err
    entries = run(*common, "--json", "--lift-check", 1, hers, his).json
    checks = [entry["attributed"][0]["lift_checks"] for entry in entries]
    assert [[one["passed"] for one in found] for found in checks] == [[True], [False]]
    assert checks[0][0].keys() == {"image", "agree", "bits", "p_value", "passed"}
    table = run(*common, "--csv", "--lift-check", 1, hers, his).out.splitlines()
    assert table[0].endswith(",key,lift_check,lift_p_value,error")
    assert ",passed," in table[1] and ",not passed," in table[2]
    assert run(*common, "--csv", hers).out.splitlines()[0].endswith(",key,error")


def test_keys_whose_digits_hold_more_bits_than_they_have(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 bits take eight digits, of which 32 bits would be read."""
    torch.manual_seed(0)
    config = ModelConfig(
        resolution=16, n_bits=30, latent_dim=8, channel_base=64, channel_max=8,
        embedding_width=16, decoder_resolution=16, decoder_base=64, decoder_max=8,
    )  # fmt: skip
    plain = Model(config, Generator(config), Decoder(config), training={}, digest="0" * 64)
    path = tmp_path / "short.safetensors"
    bind(plain, path, BindingSizes(default_layer(config), BITS), psnr=PSNR)
    model, key = load_model(path), Key.from_bits(np.arange(30) % 2)
    monkeypatch.setattr(Key, "random", classmethod(lambda cls, n_bits: key))
    Registry(tmp_path / "short.db").issue("alice", model)

    def decode(self: Reader, images: list[object], **options: object) -> Reading:
        return Reading(np.stack([key.bits * 2.0 - 1] * len(images)), self.digest)

    monkeypatch.setattr(Reader, "decode", decode)
    save_png(tmp_path / "hers.png", to_pil(drawn(model, key))[0])
    common = ["attribute", "--model", path, "--registry", tmp_path / "short.db", "--fpr", "1e-3"]
    result = run(*common, "--lift-check", 1, tmp_path / "hers.png")
    assert result.code == 0 and "; lift check passed (" in result.out


def test_of_a_source_so_many_images_are_looked_at(
    run: Run, bound: Path, case: tuple[Path, Path, Path]
) -> None:
    registry, hers, his = case
    common = ["attribute", "--model", bound, "--registry", registry, "--fpr", "1e-3"]
    result = run(*common, "--same-source", "--lift-check", 2, hers, his, his)
    assert result.out.endswith("; lift check passed by 1 of 2 images\n")
    entry = run(*common, "--same-source", "--lift-check", 1, hers, his, "--json").json[0]
    (check,) = entry["attributed"][0]["lift_checks"]
    assert check["image"] == str(hers) and len(entry["images"]) == 2


def test_what_cannot_be_checked_is_said_before_anything_is_read(
    run: Run, release: Path, marker_file: Path, images: list[Path]
) -> None:
    for model, words in ((release, "`scalefp release bind`"), (marker_file, "takes a release of")):
        options = ["--registry", "none.db", "--lift-check", 1]
        assert_mistake(run("attribute", "--model", model, *options, images[0]), words)
    options = ["--registry", "none.db", "--lift-check", 0]
    assert_mistake(run("attribute", "--model", release, *options, images[0]), "whole number")


def test_bind_makes_a_release_with_copies_of_its_own(run: Run, release: Path) -> None:
    common = ["release", "bind", release, "--bits", BITS, "--psnr", 30]
    made = run(*common, "--out", "bound.safetensors", "--json")
    assert made.code == 0
    model = load_model("bound.safetensors")
    assert made.json == {"out": "bound.safetensors", "model_digest": model.digest}
    assert "a registry and copies of its own" in run(*common, "--out", "text.safetensors").err
    assert model.binding is not None
    assert (model.binding.sizes.layer, model.binding.sizes.n_bits) == ("block1_conv", BITS)
    assert model.digest != load_model(release).digest
    again = run(*common, "--out", "again.safetensors", "--json").json
    assert again["model_digest"] == model.digest  # nothing but the seed decides
    # What is made of it goes on carrying them.
    assert run("release", "make", "bound.safetensors", "--out", "c.safetensors").code == 0
    assert load_model("c.safetensors").binding is not None
    assert json.dumps(load_model("c.safetensors").training["bound"])


def test_what_cannot_be_bound_is_one_sentence(run: Run, release: Path, marker_file: Path) -> None:
    common = ["release", "bind", release, "--out", "b.safetensors"]
    assert_mistake(run(*common, "--layer", "block7_conv"), "has no convolution 'block7_conv'")
    assert_mistake(run(*common, "--bits", 8), "bound bits must lie between 20 and 256")
    for decibels in (-5, 19, 61):
        words = "PSNR of pictures with bound bits must lie between 20 and 60"
        assert_mistake(run(*common, "--psnr", decibels), words)
    assert_mistake(run(*common, "--bits", 256), "too few for 256 bits")
    assert_mistake(run(*common, "--psnr", "loud"), "decibels")
    assert_mistake(run("release", "bind", marker_file, "--out", "b.safetensors"), "is a marker")
    assert not Path("b.safetensors").exists()
