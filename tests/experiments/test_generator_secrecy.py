"""experiments/secrecy: images with and without a key, and whose they are."""

import argparse
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")

import generator_secrecy
import parties
from scalefp.data.images import to_uint8
from scalefp.detection.adversary import Training
from scalefp.errors import UserError
from scalefp.loading import load_model
from scalefp.release.model import Model


def test_pairs_are_of_one_latent_and_all_copies_are_in_any_part(model: Model) -> None:
    scene = parties.Scene(model, [model], images=64, seed=0)
    (pairs,) = scene.examples("informed", 24)
    keys, latents = scene.owner.keys(parties.COPIES, 1), scene.owner.latents(24, 2)
    assert pairs.paired
    for i in (0, 3, 21):
        image = to_uint8(model.instantiate(keys[i % parties.COPIES])(latents[i : i + 1]))
        assert (image.int() - pairs.marked[i].int()).abs().max() <= 1
    # The shadow's are of his own release, here the same one.
    assert torch.equal(scene.examples("shadow", 24)[0].clean, pairs.clean)


def test_the_plain_generator_has_no_key(model: Model) -> None:
    """Without bits every key gives the same picture, the middle of opposite ones."""
    party = parties.Party(model, 0)
    latents = party.latents(2, 0)
    images = party.plain(latents)
    off = torch.zeros(model.config.n_bits)
    for bits in (torch.zeros(2, model.config.n_bits), torch.ones(2, model.config.n_bits)):
        assert torch.equal(to_uint8(model.generator(latents, bits, off).clamp(-1, 1)), images)


def test_the_very_key_is_judged_on_its_own_images(model: Model) -> None:
    scene = parties.Scene(model, images=64, seed=0)
    clean, marked = scene.tested("the key")
    assert len(clean) == len(marked) == 64 // parties.VICTIMS
    wanted = scene.owner.fingerprinted(scene.owner.latents(64, 1)[: len(marked)], scene.victims[:1])
    assert torch.equal(marked, wanted)
    assert len(scene.tested("informed")[1]) == 64


def test_a_fingerprint_of_no_strength_is_none(model: Model) -> None:
    latents = parties.Party(model, 0).latents(4, 0)
    nothing, full = parties.Party(model, 0, 0.0), parties.Party(model, 0)
    keys = full.keys(2, 0)
    plain = full.plain(latents).int()
    assert (nothing.fingerprinted(latents, keys).int() - plain).abs().max() <= 1
    assert (full.fingerprinted(latents, keys).int() - plain).abs().max() > 1


def test_a_twin_draws_what_is_told_from_the_instances(model: Model, other_release: Path) -> None:
    twin = load_model(other_release)
    scene = parties.Scene(model, [model], images=64, seed=0, twin=twin)
    latents = scene.owner.latents(64, 0)
    assert torch.equal(scene.clean, parties.Party(twin, 0).plain(latents))
    assert not torch.equal(scene.clean, scene.owner.plain(latents))
    (examples,) = scene.examples("informed", 24)
    assert not examples.paired  # another generator's pictures of a latent are others
    assert torch.equal(examples.clean, parties.Party(twin, 0).plain(scene.owner.latents(24, 2)))
    # The fingerprinted ones are the owner's, and the shadow has no twin here.
    alone = parties.Scene(model, [model], images=64, seed=0)
    assert torch.equal(scene.marked, alone.marked)
    (shadow,), (shadow_alone,) = scene.examples("shadow", 24), alone.examples("shadow", 24)
    assert torch.equal(shadow.clean, shadow_alone.clean) and shadow.paired


@pytest.mark.parametrize(
    ("shadows", "twin", "shadow_twins"),
    [(["a"], "b", []), (["a"], None, ["c"]), (["a", "b"], "c", ["d"]), ([], "c", ["d"])],
)
def test_twins_are_given_for_all_or_none(
    shadows: list[str], twin: str | None, shadow_twins: list[str]
) -> None:
    options = argparse.Namespace(shadow=shadows, twin=twin, shadow_twin=shadow_twins)
    with pytest.raises(UserError, match="one for each shadow"):
        generator_secrecy.others(options, 32)


def test_several_shadows_each_show_their_own_twin(model: Model, other_release: Path) -> None:
    other = load_model(other_release)
    scene = parties.Scene(
        model, [model, other], images=64, seed=0, twin=other, shadow_twins=[other, model]
    )
    first, second = scene.examples("shadow", 24)
    assert not first.paired and not second.paired
    for found, own, twin in ((first, model, other), (second, other, model)):
        alone = parties.Party(own, 0)
        latents = alone.latents(24, 2)
        assert torch.equal(found.clean, parties.Party(twin, 0).plain(latents))
        assert torch.equal(found.marked, alone.examples(24).marked)


def test_a_shadow_with_twins_chooses_by_a_pair_that_he_has_not_seen(
    model: Model, other_release: Path
) -> None:
    """What tells one release from another tells the other from the one wrongly."""
    other = load_model(other_release)
    scene = parties.Scene(
        model, [model, other], images=64, seed=0, twin=other, shadow_twins=[other, model]
    )
    training = Training(images=64, carriers=8, seed=0)
    found = generator_secrecy.judged(scene, "shadow", 64, "rich model", training)
    assert found["validation"] < 0.5


def test_what_is_tried_at_which_strength() -> None:
    options = argparse.Namespace(
        shadow=["file"], examples=[16, 64], detectors=["network", "carriers"]
    )
    full = list(generator_secrecy.cases(options, 1.0))
    assert [case for case in full if case[0] == "shadow"] == [
        ("shadow", 64, "network"),
        ("shadow", 64, "carriers"),
    ]
    assert len(full) == 2 + 2 * 4
    weak = list(generator_secrecy.cases(options, 0.5))
    assert weak == [(threat, 64, "carriers") for threat in parties.THREATS]
