import numpy as np
import pytest
import torch

from scalefp.detection import adversary
from scalefp.detection.adversary import Training
from scalefp.detection.examples import Examples
from scalefp.detection.filters import high_pass_filters
from scalefp.detection.rich_model import rich_features
from scalefp.detection.scores import accuracy_figures, ranked
from scalefp.experiment import wilson
from tests.experiment_scripts import SIZE, pictures


def add_marks(images: torch.Tensor, carriers: torch.Tensor, seed: int) -> torch.Tensor:
    """Random signs of fixed carriers [c, 3, SIZE, SIZE], at 6 grey levels."""
    signs = torch.randint(0, 2, (len(images), len(carriers)), generator=_draw(seed)) * 2.0 - 1
    marks = torch.einsum("bc,cxyz->bxyz", signs, carriers)
    marks = 6 * marks / marks.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return (images + marks).clamp(0, 255).round().to(torch.uint8)


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def carriers() -> torch.Tensor:
    return torch.randn(8, 3, SIZE, SIZE, generator=_draw(7))


# The scores.


def test_accuracy_counts_both_classes_and_groups_add_scores() -> None:
    clean = np.array([-1.0] * 24 + [2.0] * 8)  # a quarter wrong, but the first group sums below 0
    marked = np.array([3.0] * 32)
    found = accuracy_figures(clean, marked)
    assert found["images"] == 64 and found["accuracy"] == 56 / 64
    assert found["ranked"] == 1.0
    # Groups of 16: -16, then 8 * -1 + 8 * 2 = 8, which is wrong; both marked ones are right.
    assert found["group"] == {"groups": 4, "accuracy": 0.75, "ci95": wilson(3, 4)}
    assert accuracy_figures(clean[:10], marked[:10])["group"] is None


def test_ranking_counts_ties_half() -> None:
    assert ranked(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == 0.875
    assert ranked(np.zeros(3), np.zeros(5)) == 0.5


# The adversary.


def test_high_pass_filters_take_no_notice_of_flat_and_slanted_pictures() -> None:
    filters = high_pass_filters().double()
    assert torch.allclose(filters.sum(dim=(1, 2)), torch.zeros(7).double(), atol=1e-6)
    x = torch.arange(5.0).double().expand(5, 5)
    for slope in (x, x.T):  # all but those of first order
        slopes = (filters[2:] * slope).sum(dim=(1, 2))
        assert torch.allclose(slopes, torch.zeros(5).double(), atol=1e-6)
    assert torch.equal(filters.flatten(1).abs().amax(dim=1), torch.ones(7).double())


def test_the_rich_model_counts_pairs_of_neighbours() -> None:
    found = rich_features(pictures(3)).unflatten(1, (-1, 25))
    assert found.shape == (3, 2 * 2 * 21, 25)
    assert torch.allclose(found.square().sum(dim=2), torch.ones(3, 84))
    flat = rich_features(torch.full((1, 3, SIZE, SIZE), 99, dtype=torch.uint8))
    assert torch.equal(flat.unflatten(1, (-1, 25))[0, :, 12], torch.ones(84))  # 0 beside 0


@pytest.mark.parametrize("name", ["rich model", "carriers"])
def test_an_obvious_mark_is_found_and_no_mark_is_not(name: str, carriers: torch.Tensor) -> None:
    own, test = pictures(240, seed=1), pictures(400, seed=2)
    clean, other = test[:200], test[200:]
    examples = Examples(own, add_marks(own, carriers, seed=3), paired=True)
    detect = adversary.train(name, examples, Training(images=0, carriers=8, seed=0))
    marked = add_marks(other, carriers, seed=4)
    assert accuracy_figures(detect(clean), detect(marked))["accuracy"] > 0.95
    low, high = accuracy_figures(detect(clean), detect(other))["ci95"]
    assert low < 0.5 < high


def test_without_pairs_the_mark_of_one_key_is_found(carriers: torch.Tensor) -> None:
    signs = torch.randint(0, 2, (8,), generator=_draw(5)) * 2.0 - 1
    key = torch.einsum("c,cxyz->xyz", signs, carriers)[None]
    own, published, test = (pictures(200, seed=seed) for seed in (1, 2, 3))
    fixed = (published + 2 * key / key.std()).clamp(0, 255).round().to(torch.uint8)
    examples = Examples(own, fixed, paired=False)
    detect = adversary.train("carriers", examples, Training(images=0, carriers=8, seed=0))
    marked = (test[100:] + 2 * key / key.std()).clamp(0, 255).round().to(torch.uint8)
    assert accuracy_figures(detect(test[:100]), detect(marked))["accuracy"] > 0.95
    same = Examples(own, published, paired=False)
    detect = adversary.train("carriers", same, Training(images=0, carriers=8, seed=0))
    assert accuracy_figures(detect(test[:100]), detect(test[100:]))["accuracy"] < 0.65


@pytest.mark.parametrize("name", ["network", "high-pass network"])
def test_networks_learn_the_obvious(name: str) -> None:
    clean = pictures(64, seed=1)
    noise = 30 * torch.randn(clean.shape, generator=_draw(2))
    noisy = (clean + noise).clamp(0, 255).to(torch.uint8)
    training = Training(images=64 * 24, carriers=0, seed=0)
    detect = adversary.train(name, Examples(clean, noisy, paired=True), training)
    test = pictures(40, seed=3)
    again = (test + 30 * torch.randn(test.shape, generator=_draw(4))).clamp(0, 255)
    assert accuracy_figures(detect(test), detect(again.to(torch.uint8)))["accuracy"] > 0.9


def test_examples_are_split_by_class() -> None:
    examples = Examples(pictures(10), pictures(20), paired=False)
    training, held_out = examples.split(0.2)
    assert [len(x) for x in (training.clean, training.marked)] == [8, 16]
    assert torch.equal(held_out.marked, examples.marked[16:])


# The adversary's generators.


def test_telling_two_generators_apart_is_not_finding_marks() -> None:
    """Colours that one pair of generators happens to differ in are found, and proven worthless by
    images and by another pair that differs in them the other way round."""

    def tinted(seed: int, shift: int) -> torch.Tensor:
        return (pictures(60, seed).int() + shift).clamp(0, 255).to(torch.uint8)

    pairs = [
        Examples(tinted(1, 0), tinted(2, 40), paired=False),
        Examples(tinted(3, 40), tinted(4, 0), paired=False),
    ]
    known = Examples(pictures(60, seed=5), pictures(60, seed=5), paired=True)
    training = Training(images=64 * 16, carriers=8, seed=0)
    learn = adversary.learn_from_generators
    detect, alone = learn("network", pairs[:1], training, known)
    assert accuracy_figures(detect(tinted(6, 0)), detect(tinted(7, 40)))["accuracy"] > 0.9
    assert alone == 0.5
    _, together = learn("network", pairs, training, known)
    assert together < 0.3


def test_carriers_are_known_from_images_and_weighed_on_outputs(carriers: torch.Tensor) -> None:
    own = pictures(240, seed=1)
    known = Examples(own, add_marks(own, carriers, seed=3), paired=True)
    # Each set of outputs shows one key only, and the owner's is another.
    mine, theirs = (add_marks(pictures(1), carriers, seed) - pictures(1).int() for seed in (5, 6))
    outputs = Examples(pictures(150, seed=2), _with(mine, pictures(150, seed=3)), paired=False)
    detect, _ = adversary.learn_from_generators(
        "carriers", [outputs], Training(images=0, carriers=8, seed=0), known
    )
    found = accuracy_figures(
        detect(pictures(150, seed=4)), detect(_with(theirs, pictures(150, seed=5)))
    )
    assert found["accuracy"] > 0.9


def _with(residual: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return (images + residual).clamp(0, 255).to(torch.uint8)
