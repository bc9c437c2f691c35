"""experiments/secrecy: images with and without a key, and whose they are."""

import argparse
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")

import generator_secrecy
import parties
from scalefp.data.images import to_uint8
from scalefp.errors import UserError
from scalefp.loading import load_model
from scalefp.release.model import Model


def test_pairs_are_of_one_latent_and_all_copies_are_in_any_part(model: Model) -> None:
    scene = parties.Scene(model, model, images=64, seed=0)
    pairs = scene.examples("informed", 24)
    keys, latents = scene.owner.keys(parties.COPIES, 1), scene.owner.latents(24, 2)
    assert pairs.paired
    for i in (0, 3, 21):
        image = to_uint8(model.instantiate(keys[i % parties.COPIES])(latents[i : i + 1]))
        assert (image.int() - pairs.marked[i].int()).abs().max() <= 1
    # The shadow's are of his own release, here the same one.
    assert torch.equal(scene.examples("shadow", 24).clean, pairs.clean)


def test_the_plain_generator_has_no_key(model: Model) -> None:
    """Without bits every key gives the same picture, the middle of opposite ones."""
    party = parties.Party(model, 0)
    latents = party.latents(2, 0)
    images = party.plain(latents)
    off = torch.zeros(model.config.n_bits)
    for bits in (torch.zeros(2, model.config.n_bits), torch.ones(2, model.config.n_bits)):
        assert torch.equal(to_uint8(model.generator(latents, bits, off).clamp(-1, 1)), images)


def test_the_very_key_is_judged_on_its_own_images(model: Model) -> None:
    scene = parties.Scene(model, None, images=64, seed=0)
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
    scene = parties.Scene(model, model, images=64, seed=0, twins=(twin, None))
    latents = scene.owner.latents(64, 0)
    assert torch.equal(scene.clean, parties.Party(twin, 0).plain(latents))
    assert not torch.equal(scene.clean, scene.owner.plain(latents))
    examples = scene.examples("informed", 24)
    assert not examples.paired  # another generator's pictures of a latent are others
    assert torch.equal(examples.clean, parties.Party(twin, 0).plain(scene.owner.latents(24, 2)))
    # The fingerprinted ones are the owner's, and the shadow has no twin here.
    alone = parties.Scene(model, model, images=64, seed=0)
    assert torch.equal(scene.marked, alone.marked)
    assert torch.equal(scene.examples("shadow", 24).clean, alone.examples("shadow", 24).clean)


def test_twins_are_given_for_all_or_none() -> None:
    options = argparse.Namespace(shadow="a", twin="b", shadow_twin=None)
    with pytest.raises(UserError, match="give all three"):
        generator_secrecy.others(options, 32)


def test_what_is_tried_at_which_strength() -> None:
    options = argparse.Namespace(
        shadow="file", examples=[16, 64], detectors=["network", "carriers"]
    )
    full = list(generator_secrecy.cases(options, 1.0))
    assert [case for case in full if case[0] == "shadow"] == [
        ("shadow", 64, "network"),
        ("shadow", 64, "carriers"),
    ]
    assert len(full) == 2 + 2 * 4
    weak = list(generator_secrecy.cases(options, 0.5))
    assert weak == [(threat, 64, "carriers") for threat in parties.THREATS]
