"""The schedule: curriculum, weights, learning rate and randomness as functions of progress."""

import math

import pytest
import torch

from scalefp.config import OptimizerConfig, TrainConfig
from scalefp.training.schedule import Progress, Scheduled, learning_rate, step_generator


def options(**schedule):
    config = TrainConfig()
    config.model.n_bits = 20
    config.optimizer.batch = 10
    defaults = {
        "curriculum_bits": 8,
        "curriculum_accuracy": 0.9,
        "reading_psnr": 20.0,
        "hide_psnr": 30.0,
        "ramp_images": 1000,
    }
    for name, value in {**defaults, **schedule}.items():
        assert hasattr(config.schedule, name)
        setattr(config.schedule, name, value)
    config.loss.consistency = 40.0
    return config


def far(decibel):
    """The pixel MSE between images that are so many dB apart."""
    return 4 / 10 ** (decibel / 10)


def weights_of(progress, config):
    """Weights of the loss terms, as numbers."""
    scheduled = Scheduled(config.model.n_bits, torch.device("cpu"))
    scheduled.set(progress, config)
    return {name: float(w) for name, w in scheduled.weights(config).items()}


# Curriculum.


@pytest.mark.parametrize(("curriculum_bits", "n_active"), [(None, 20), (8, 8), (20, 20)])
def test_training_starts_with_the_first_group_or_with_all_bits(curriculum_bits, n_active):
    progress = Progress.start(options(curriculum_bits=curriculum_bits))
    assert (progress.images, progress.n_active, progress.readable) == (0, n_active, False)


def test_running_accuracy_needs_many_good_steps():
    config = options()
    progress, steps = Progress.start(config), 0
    while progress.n_active == 8:
        progress.advance(1.0, far(20), config)
        steps += 1
    assert 10 < steps < 100  # 1 - 0.5 * 0.95^steps reaches 0.9 after 32
    lucky = Progress.start(config)
    lucky.advance(1.0, far(20), config)
    assert lucky.n_active == 8


def test_bits_are_switched_on_in_groups_and_then_everything_is_readable():
    config = options()
    progress, seen = Progress.start(config), [8]
    for step in range(500):
        progress.images = 10 * step
        progress.advance(1.0, far(20), config)
        if seen[-1] != progress.n_active:
            seen.append(progress.n_active)
        if progress.readable:
            break
    assert seen == [8, 16, 20]  # the last group is what is left
    assert progress.readable_at == progress.images > 0


def test_accuracy_starts_afresh_with_every_group():
    progress = Progress(n_active=8, accuracy=0.95)
    progress.advance(1.0, far(20), options())
    assert progress.n_active == 16
    assert progress.accuracy == 0.5


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 0.89])
def test_unreadable_bits_hold_the_curriculum(accuracy):
    config = options()
    progress = Progress.start(config)
    for _ in range(300):
        progress.advance(accuracy, far(20), config)
    assert (progress.n_active, progress.readable) == (8, False)
    assert progress.accuracy == pytest.approx(accuracy, abs=1e-3)


def test_readable_once_is_readable_for_good():
    config = options()
    progress = Progress(images=500, n_active=20, accuracy=1.0, consistency_weight=40.0)
    progress.advance(1.0, far(20), config)
    assert progress.readable_at == 500
    progress.images = 900
    for _ in range(100):
        progress.advance(0.5, far(20), config)
    assert (progress.readable_at, progress.n_active) == (500, 20)


# Hiding the key.


@pytest.mark.parametrize(
    ("images", "readable_at", "target"),
    [
        (0, None, 20),
        (10**6, None, 20),
        (500, 500, 20),
        (750, 500, 22.5),
        (1500, 500, 30),
        (10**6, 500, 30),
        (1000, 0, 30),
    ],
)
def test_the_key_has_to_hide_once_it_can_be_read(images, readable_at, target):
    progress = Progress(images=images, n_active=20, readable_at=readable_at)
    assert progress.target_psnr(options()) == pytest.approx(target)


def test_without_a_ramp_the_target_jumps():
    config = options(ramp_images=0)
    assert Progress(images=499, readable_at=None).target_psnr(config) == 20
    assert Progress(images=510, readable_at=500).target_psnr(config) == 30


def weights_at(decibel, steps, **schedule):
    """The consistency weight over some steps whose images are always so many dB apart."""
    config = options(**schedule)
    progress = Progress.start(config)
    progress.difference = far(decibel)
    weights = []
    for _ in range(steps):
        progress.advance(0.5, far(decibel), config)
        progress.images += config.optimizer.batch
        weights.append(weights_of(progress, config)["consistency"])
    return weights


def test_the_consistency_weight_is_shared_between_both_measures():
    config = options()
    progress = Progress.start(config)
    assert weights_of(progress, config)["visible"] == 0
    config.loss.visibility = 0.75
    weights = weights_of(progress, config)
    assert (weights["consistency"], weights["visible"]) == (10.0, 30.0)


def test_the_weight_rises_while_keys_show_too_much_and_falls_while_they_need_not_hide():
    up, down = weights_at(15, 10), weights_at(25, 10)
    assert up[0] > 40 and up == sorted(up)
    assert down[0] < 40 and down == sorted(down, reverse=True)
    assert weights_at(20, 10) == pytest.approx([40.0] * 10)


def test_the_weight_moves_slowly_however_far_off_the_images_are():
    assert 40 < weights_at(15, 1)[0] < weights_at(10, 1)[0] < 60
    assert weights_at(90, 1)[0] > 30


def test_the_weight_settles_where_the_target_is_met():
    """With images that get nearer as the weight rises, as they do in training."""
    config = options()
    progress = Progress.start(config)
    progress.difference = far(14)
    weights = []
    for _ in range(1500):
        decibel = 14 + 6 * math.log2(progress.consistency_weight / 40) / 2
        progress.advance(0.5, far(decibel), config)
        weights.append(progress.consistency_weight)
    assert decibel == pytest.approx(20, abs=0.5)
    assert max(weights[-300:]) / min(weights[-300:]) < 1.1


def test_the_weight_never_vanishes_so_that_it_can_rise_again():
    assert weights_at(60, 1000)[-1] > 0.1


def test_the_weight_stops_where_hiding_outweighs_the_key_bits_ten_times():
    """It grew to 10^25 in a training whose images could not get nearer, and nothing was read."""
    weights = weights_at(15, 3000)
    chance = options().loss.bits * math.log(2)
    assert weights[-1] == weights[-1000] == pytest.approx(10 * chance / far(15))


def test_without_key_bits_nothing_is_outweighed():
    config = options()
    config.loss.bits = 0.0
    progress = Progress.start(config)
    progress.difference = far(15)
    for _ in range(500):
        progress.advance(0.5, far(15), config)
    assert progress.consistency_weight > 10 * options().loss.bits / far(15)


def test_the_weight_stays_as_configured_if_nothing_is_to_hide():
    assert set(weights_at(5, 50, hide_psnr=None)) == {40.0}


def test_one_step_hardly_moves_the_running_difference():
    config = options()
    progress = Progress.start(config)
    progress.difference = far(25)
    before = progress.consistency_weight
    progress.advance(0.5, far(20.5), config)  # one bad step among good ones
    assert progress.consistency_weight < before


def test_other_weights_are_those_of_the_loss():
    config = options()
    config.loss.adversarial, config.loss.latent, config.loss.bits = 0.7, 0.3, 5.0
    config.loss.range = 2.0
    weights = weights_of(Progress.start(config), config)
    assert weights == {
        "adversarial": 0.7, "range": 2.0, "latent": 0.3, "bits": 5.0, "consistency": 40.0,
        "visible": 0.0,
    }  # fmt: skip


# Learning rate.


@pytest.mark.parametrize(
    ("images", "decay", "share"),
    [
        (0, 400, 1),
        (600, 400, 1),
        (700, 400, 0.75),
        (800, 400, 0.5),
        (990, 400, 0.025),
        (0, 0, 1),
        (990, 0, 1),
        (500, 1000, 0.5),
    ],
)
def test_learning_rate_falls_linearly_over_the_last_images(images, decay, share):
    rate = learning_rate(OptimizerConfig(learning_rate=0.004), 1000 - images, decay)
    assert rate == pytest.approx(0.004 * share)


# Randomness.


def test_the_randomness_of_a_step_follows_from_seed_process_and_progress_alone():
    def draw(*where):
        return tuple(torch.randint(2**40, (3,), generator=step_generator(*where)).tolist())

    places = [(s, r, i) for s in (0, 1, 2**31) for r in (0, 1) for i in (0, 32, 64)]
    draws = [draw(*place) for place in places]
    assert draws == [draw(*place) for place in places]
    assert len(set(draws)) == len(places)


def test_the_ramp_runs_from_readable_to_full():
    config = options(ramp_images=200)
    progress = Progress.start(config)
    progress.images = 500
    assert progress.ramp(config) == 0
    progress.readable_at = 500
    assert progress.ramp(config) == 0
    progress.images = 550
    assert progress.ramp(config) == pytest.approx(0.25)
    progress.images = 5000
    assert progress.ramp(config) == 1


def test_without_keys_no_bit_is_active_and_only_pictures_count():
    config = options()
    config.fingerprint = False
    progress = Progress.start(config)
    assert progress.n_active == 0
    weights = {"adversarial": config.loss.adversarial, "range": config.loss.range}
    assert weights_of(progress, config) == weights


def test_the_geometry_term_counts_where_there_is_a_localizer():
    config = options()
    assert "geometry" not in weights_of(Progress.start(config), config)
    config.model.decoder_localizer = True
    assert weights_of(Progress.start(config), config)["geometry"] == config.loss.geometry
