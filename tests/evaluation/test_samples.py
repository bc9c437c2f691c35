"""What measurements share: the images of instances, and figures of what was read from them."""

import numpy as np
import pytest
import torch

from parity import N_BITS, SIZE, ParityModel, small_config
from scalefp.attribution.evidence import matches_needed
from scalefp.data.images import to_pil
from scalefp.errors import UserError
from scalefp.evaluation.samples import EvaluateConfig, Samples, read_logits, reading_figures


@pytest.fixture
def small(tmp_path) -> EvaluateConfig:
    return small_config(tmp_path)


# Images.


def test_rekeyed_images_are_the_same_latents_under_the_next_key(small: EvaluateConfig) -> None:
    model = ParityModel()
    samples = Samples(model, small)  # type: ignore[arg-type]
    assert samples.images.shape == samples.rekeyed.shape == (12, 5, 3, SIZE, SIZE)
    assert samples.crossed.shape == (4, 4, 3, SIZE, SIZE)
    # Without the parities a picture is its latent; the parities are the key.
    assert torch.equal(samples.images // 2, samples.rekeyed // 2)
    for k in range(12):
        read = model.decode(to_pil(samples.rekeyed[k])).logits > 0
        assert (read == samples.bits[(k + 1) % 12]).all()
    crossed = samples.crossed // 2
    assert torch.equal(crossed, crossed[:1].expand_as(crossed))
    latents = (samples.images // 2).flatten(0, 1).flatten(1)
    assert len(latents.unique(dim=0)) == 60  # no two images share a latent


def test_images_do_not_depend_on_what_else_is_asked_for(small: EvaluateConfig) -> None:
    first, second = (Samples(ParityModel(), small) for _ in range(2))  # type: ignore[arg-type]
    first.crossed, first.rekeyed  # noqa: B018
    assert torch.equal(first.images, second.images)
    small.images_per_key, small.grid = 3, 2
    fewer = Samples(ParityModel(), small)  # type: ignore[arg-type]
    assert torch.equal(fewer.images, second.images[:, :3])


# Reading.


def test_read_logits_goes_through_batches(small: EvaluateConfig) -> None:
    model = ParityModel(searches=True)
    samples = Samples(model, small)  # type: ignore[arg-type]
    files = to_pil(samples.images[:4].flatten(0, 1))
    logits = read_logits(model, iter(files), 20, 7, "", thorough=False)  # type: ignore[arg-type]
    assert logits.shape == (20, N_BITS) and logits.dtype == np.float64
    assert (np.repeat(samples.bits[:4], 5, axis=0) == (logits > 0)).all()
    assert model.decoded == {False: 20, True: 0}
    read_logits(model, iter(files), 20, 7, "", thorough=True)  # type: ignore[arg-type]
    assert model.decoded == {False: 20, True: 20}


def noisy(keys: int, m: int, error: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [K, m, n] of +-1 with independent errors, and the true bits."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (keys, N_BITS), dtype=np.uint8)
    wrong = rng.random((keys, m, N_BITS)) < error
    return np.where(bits[:, None] ^ wrong, 1.0, -1.0), bits


def test_figures_of_a_perfect_reading(small: EvaluateConfig) -> None:
    logits, bits = noisy(12, 5, 0)
    figures = reading_figures(logits, bits, small)
    accuracies = {name: figures[name] for name in ("mean", "ci95", "p5", "min")}
    assert accuracies == {"mean": 1.0, "ci95": [1.0, 1.0], "p5": 1.0, "min": 1.0}
    everybody = {"1": 1.0, "2000": 1.0}
    assert figures["attributed"] == {
        "1": {"sources": 60, "accuracy": 1.0, "hard": everybody, "soft": everybody},
        "2": {"sources": 24, "accuracy": 1.0, "hard": everybody, "soft": everybody},
    }  # two pairs of five images


def test_figures_of_a_noisy_reading(small: EvaluateConfig) -> None:
    small.pools = [1, 3]
    logits, bits = noisy(60, 9, 0.2)
    figures = reading_figures(logits, bits, small)
    error = np.sqrt(0.2 * 0.8 / (60 * 9 * N_BITS))
    assert abs(figures["mean"] - 0.8) < 4 * error
    low, high = figures["ci95"]
    assert low < figures["mean"] < high
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.35)
    assert figures["min"] < figures["p5"] < figures["mean"]
    # A majority of three errs with probability 3 p^2 (1 - p) + p^3 = 0.104.
    assert abs(figures["attributed"]["3"]["accuracy"] - 0.896) < 0.02
    # The hard form names whoever has as many matches as attribution wants.
    matches = ((logits > 0) == bits[:, None]).sum(axis=2)
    for issued in (1, 2000):
        needed = matches_needed(N_BITS, issued, small.fpr)
        share = figures["attributed"]["1"]["hard"][str(issued)]
        assert 0 < share < 1
        assert share == pytest.approx((matches >= needed).mean())


def test_nobody_is_attributed_by_chance_or_among_too_many(small: EvaluateConfig) -> None:
    logits, bits = noisy(40, 2, 0.5)
    small.issued, small.pools = [1, 10**15], [1]
    blind = reading_figures(logits, bits, small)["attributed"]["1"]
    assert blind["hard"] == blind["soft"] == {"1": 0.0, str(10**15): 0.0}
    perfect = reading_figures(*noisy(4, 1, 0), small)["attributed"]["1"]  # 2^-64 10^15 > 1e-6
    assert perfect["hard"] == perfect["soft"] == {"1": 1.0, str(10**15): 0.0}


def test_soft_evidence_knows_which_bits_are_sure(small: EvaluateConfig) -> None:
    logits, bits = noisy(200, 1, 0.3)
    wrong = (logits > 0) != bits[:, None]
    logits[wrong] *= 0.1  # the decoder is unsure where it errs
    small.pools = [1]
    shares = reading_figures(logits, bits, small)["attributed"]["1"]
    assert shares["soft"]["1"] > shares["hard"]["1"] + 0.5


# Settings that cannot work.


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("keys", 1, "keys must be at least 2"),
        ("pools", [], "pools must hold"),
        ("pools", [4, 1], "pools must be ascending"),
        ("pools", [0], "pools must be ascending"),
        ("pools", [20], "images_per_key is 16"),
        ("issued", [], "issued must hold"),
        ("finetune_images", [200, 100], "finetune_images"),
        ("fpr", 1.0, "fpr"),
        ("seed", -1, "seed"),
        ("searched", 0, "searched"),
    ],
)
def test_numbers_that_cannot_work(name: str, value: object, message: str) -> None:
    config = EvaluateConfig(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        config.check()


def test_the_defaults_can_work() -> None:
    EvaluateConfig().check()


def test_a_mistake_names_the_option_as_it_is_typed() -> None:
    with pytest.raises(UserError, match=r"^measure\.keys must be at least 2, not 1"):
        EvaluateConfig(keys=1).check("measure.")
    config = EvaluateConfig()
    config.lifting.victims = 0
    with pytest.raises(UserError, match=r"^measure\.lifting\.victims must be at least 1"):
        config.check("measure.")
