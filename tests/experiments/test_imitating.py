"""Recipients who make a copy that draws as another's, of a tiny release with bound bits."""

import numpy as np
import pytest
import torch

import imitating
from scalefp.key import Key
from scalefp.loading import load_model
from scalefp.pretrained.binding import bind, default_layer
from scalefp.release.binding import BindingSizes
from scalefp.release.channels import draw_turns
from scalefp.release.instance import Instance
from scalefp.release.model import Model

KEYS = [Key.from_bits(np.random.default_rng(i).integers(0, 2, 128)) for i in range(7)]


@pytest.fixture(scope="module")
def bound(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("bound") / "bound.safetensors"
    bind(model, path, BindingSizes(default_layer(model.config), 20), psnr=30)
    return load_model(path)


@pytest.fixture(scope="module")
def copies(bound: Model) -> list[Instance]:
    return [bound.instantiate(key) for key in KEYS]


def error(network: Instance, latents: torch.Tensor, pictures: torch.Tensor) -> float:
    """Mean square."""
    with torch.no_grad():
        return float((network(latents) - pictures).square().mean())


def test_whoever_compares_copies_sees_what_bound_bits_change_of_each(
    bound: Model, copies: list[Instance]
) -> None:
    found = imitating.compare(copies)
    assert found.layer == "block1_conv_weight"  # of all convolutions
    assert bound.binding is not None
    secret = bound.folding.secret
    turn = draw_turns(secret, KEYS[0], bound.folding.sizes.channels[1:])[0]
    for key, change in zip(KEYS, found.changes, strict=True):
        true = bound.binding.change(secret, key, change).roll(turn, 1)  # in the first one's order
        likeness = torch.cosine_similarity(change.flatten(), true.flatten(), dim=0)
        assert likeness > 0.8
    # As mixtures of what they have in common they have numbers of the size 1.
    mixtures = torch.linalg.lstsq(found.common.T, found.changes.flatten(2).flatten(0, 1).T)
    assert float(mixtures.solution.square().mean()) == pytest.approx(1, abs=0.05)


def test_a_copy_that_imitates_hers_draws_more_like_hers(
    copies: list[Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imitating, "COMPARING_STEPS", 60)
    monkeypatch.setattr(imitating, "LEAST_STEPS", 60)
    hers, his, *others = copies
    source = torch.Generator().manual_seed(0)
    known, new = (torch.randn(4, 8, generator=source) for _ in range(2))
    with torch.no_grad():
        pictures, unseen = hers(known), hers(new)
    before = error(his, new, unseen)
    untouched = imitating.weights_of(his)
    copied, steps = imitating.fitted(his, pictures, known, seed=0)
    assert steps == 60 and error(copied, new, unseen) < before
    found = imitating.compare([his, *others])
    for mixed in (False, True):
        network = imitating.rebuilt(his, found, pictures, known, 0, mixed=mixed)
        assert error(network, new, unseen) < before
        assert not any(weight.requires_grad for weight in network.parameters())
    assert all(torch.equal(untouched[name], one) for name, one in imitating.weights_of(his).items())


def test_more_pictures_take_more_steps(
    copies: list[Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imitating, "LEAST_STEPS", 2)
    monkeypatch.setattr(imitating, "SEEN", 4)
    pictures, latents = copies[0].sample(16, seed=1), torch.zeros(16, 8)
    assert imitating.fitted(copies[1], pictures, latents, 0)[1] == 4 * 16 // imitating.AT_ONCE


def test_latents_are_found_together(copies: list[Instance]) -> None:
    """More than one batch of them, in half precision, and each for its own picture."""
    source = torch.Generator().manual_seed(0)
    count = imitating.SEARCHED + 2
    with torch.no_grad():
        pictures = copies[0](torch.randn(count, 8, generator=source))
    found = imitating.latents_of(copies[0], pictures, source)
    assert found.shape == (count, 8)
    mixed_up = error(copies[0], found.roll(1, 0), pictures)
    assert error(copies[0], found, pictures) < 0.3 * mixed_up


def test_the_nearest_sum_is_hers_where_others_have_all_of_it() -> None:
    source = torch.Generator().manual_seed(0)
    scale = torch.logspace(0, 3, 10)[:, None]  # in weights, some directions are a thousand times
    directions = scale * torch.randn(10, 27, generator=source)
    mixtures = torch.randn(5, 4, 10, generator=source)
    hers, *others = (mixtures @ directions).view(5, 4, 3, 3, 3)
    within = others[0] - 2 * others[2]
    assert torch.allclose(imitating.nearest_sum(within, others, directions), within, rtol=1e-3)
    found = imitating.nearest_sum(hers, others, directions)
    # Orthogonal to what is left, by mixtures; in weights it is not.
    left = torch.linalg.lstsq(directions.T, (hers - found).flatten(1).T).solution.T
    for mixture in mixtures[1:]:
        likeness = torch.cosine_similarity(left.flatten(), mixture.flatten(), dim=0)
        assert float(likeness) == pytest.approx(0, abs=1e-3)
