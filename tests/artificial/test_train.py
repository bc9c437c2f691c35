"""Training a marker: exact resume, signals, the second phase, and one that learns."""

import os
import signal

import numpy as np
import pytest
import torch

import scalefp.artificial.train
from scalefp.artificial.config import (
    MarkConfig,
    MarkLossConfig,
    MarkOptimizerConfig,
    MarkScheduleConfig,
    MarkTrainConfig,
)
from scalefp.artificial.state import MarkProgress
from scalefp.artificial.train import train
from scalefp.config import ComputeConfig, DataConfig
from scalefp.data.images import save_png, to_pil
from scalefp.errors import UserError
from scalefp.loading import load_marker
from scalefp.release.container import load_state
from trainings import change_options, log_of

BATCH = 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """48 smooth pictures of 32 px."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(48, 3, 6, 6, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1)
    for number, picture in enumerate(to_pil((smooth * 255).to(torch.uint8))):
        save_png(folder / f"{number:02d}.png", picture)
    return folder


def options(source, steps=8, **changes):
    """A training of a few steps in which everything happens."""
    config = MarkTrainConfig(
        model=MarkConfig(
            resolution=32, n_bits=8, encoder_width=4, decoder_resolution=16, decoder_base=192,
            decoder_max=24, decoder_localizer=True,
        ),
        data=DataConfig(source=str(source), flip=True),
        loss=MarkLossConfig(visibility=0.1, pixels=1.0),
        schedule=MarkScheduleConfig(
            total_images=steps * BATCH, readable=0.0, wait_images=BATCH, ramp_images=4 * BATCH,
            decay_images=0,
        ),
        optimizer=MarkOptimizerConfig(batch=BATCH),
        perturb={"crop": 0.3, "rotation": 0.3, "noise": 0.3, "jpeg": 0.3},
        run=ComputeConfig(
            device="cpu", precision="fp32", log_steps=1, grid_images=10**6, tensorboard=False
        ),
    )  # fmt: skip
    change_options(config, {name.replace("__", "."): value for name, value in changes.items()})
    return config


def networks_of(run_dir):
    state = load_state(run_dir / "state.pt")
    return {
        f"{network}.{name}": tensor
        for network in ("encoder", "decoder", "average_encoder", "average_decoder")
        for name, tensor in state[network].items()
    }


@pytest.fixture(scope="module")
def straight(pictures, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("straight")
    train(options(pictures), run_dir)
    return run_dir


def test_halves_equal_the_whole_bit_for_bit(pictures, straight, tmp_path):
    train(options(pictures, steps=4), tmp_path)
    halfway = networks_of(tmp_path)
    train(options(pictures), tmp_path)
    ours, theirs = networks_of(tmp_path), networks_of(straight)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert log_of(tmp_path) == log_of(straight)
    # There was something to compare: nearly everything moved in the second half.
    moved = [name for name in ours if not torch.equal(ours[name], halfway[name])]
    assert len(moved) > 0.9 * len(ours)


def test_the_log_shows_the_second_phase_coming_in(straight):
    lines = log_of(straight)
    # Read in the first step; a wait of one batch; then in four steps to the full strength.
    assert [line["ramp"] for line in lines] == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]
    # Pictures are clipped to their range, which weakens a mark a little.
    assert lines[0]["psnr"] == pytest.approx(30, abs=1.5)
    assert lines[-1]["psnr"] == pytest.approx(38, abs=1.5)
    assert {"bits", "pixels", "visibility", "geometry", "bit_accuracy"} <= lines[0].keys()


def test_what_a_run_leaves_is_a_marker_that_says_how_it_was_made(straight):
    marker = load_marker(straight / "release.safetensors")
    assert marker.training["images"] == 8 * BATCH
    assert marker.training["options"]["model.psnr"] == 38
    assert (straight / "grids").is_dir() and list((straight / "grids").glob("marks-*.png"))


def test_another_seed_or_option_is_another_training(pictures, straight, tmp_path):
    train(options(pictures, steps=2, seed=1), tmp_path)
    assert log_of(tmp_path)[0] != log_of(straight)[0]
    with pytest.raises(UserError, match="seed=1"):
        train(options(pictures, steps=2), tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_same_command_goes_on(
    pictures, straight, tmp_path, monkeypatch, capsys, number, code
):
    original, calls = scalefp.artificial.train.step, []

    def step(*arguments):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return original(*arguments)

    monkeypatch.setattr(scalefp.artificial.train, "step", step)
    with pytest.raises(SystemExit) as stopped:
        train(options(pictures), tmp_path)
    assert stopped.value.code == code
    assert f"{3 * BATCH} images" in capsys.readouterr().err
    train(options(pictures), tmp_path)
    assert log_of(tmp_path) == log_of(straight)


def test_a_loss_that_is_not_finite_is_named(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(
        scalefp.artificial.train, "step", lambda *_: {"bits": torch.tensor(float("nan"))}
    )
    with pytest.raises(UserError, match="'bits' became nan"):
        train(options(pictures), tmp_path)


def test_without_a_readable_batch_the_second_phase_never_begins():
    config = options("-", schedule__readable=0.9)
    progress = MarkProgress()
    progress.advance(0.9, config)
    assert progress.readable_at is None and progress.ramp(config) == 0
    progress.images = 100
    progress.advance(0.95, config)
    assert progress.readable_at == 100
    progress.advance(0.2, config)  # once is enough
    progress.images = 100 + 3 * BATCH
    assert progress.ramp(config) == 0.5
    assert progress.strength(config) == 34
    assert progress.weights(config) == {
        "bits": 1.0, "pixels": 0.5, "visibility": 0.05, "geometry": 0.3,
    }  # fmt: skip


@pytest.mark.parametrize("transplant", [0.0, 1.0])
def test_transplants_lie_on_the_image_of_another(pictures, tmp_path, monkeypatch, transplant):
    seen = []
    original = scalefp.artificial.step.mark
    monkeypatch.setattr(
        scalefp.artificial.step,
        "mark",
        lambda under, residual: seen.append(under) or original(under, residual),
    )
    inputs = []
    forward = scalefp.artificial.encoder.Encoder.forward
    monkeypatch.setattr(
        scalefp.artificial.encoder.Encoder,
        "forward",
        lambda self, images, *a, **k: (
            inputs.append(images.clone()) or forward(self, images, *a, **k)
        ),
    )
    train(options(pictures, steps=1, transplant=transplant), tmp_path)
    expected = inputs[0].roll(1, 0) if transplant else inputs[0]
    assert torch.equal(seen[0], expected)


def test_a_tiny_marker_learns_to_be_read_from_files_of_images_it_never_saw(pictures, tmp_path):
    config = options(
        pictures, steps=150, model__n_bits=16, model__decoder_resolution=32,
        model__decoder_base=384, model__decoder_localizer=False, perturb={},
        transplant=0.0, schedule__readable=0.9, schedule__wait_images=0,
        schedule__ramp_images=80 * BATCH, schedule__decay_images=50 * BATCH,
        optimizer__ema_images=100, loss__visibility=0.0, loss__pixels=0.0,
    )  # fmt: skip
    train(config, tmp_path)
    marker = load_marker(tmp_path / "release.safetensors")
    draw = torch.Generator().manual_seed(9)
    coarse = torch.rand(32, 3, 6, 6, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1)
    clean = (smooth * 255).to(torch.uint8)
    bits = torch.randint(0, 2, (32, 16), generator=draw)
    right = (marker.decode(marker.mark(clean, bits)).logits > 0) == (bits.numpy() > 0)
    assert right.mean() > 0.98
    chance = (marker.decode(clean).logits > 0) == (bits.numpy() > 0)
    assert np.abs(chance.mean() - 0.5) < 0.1
