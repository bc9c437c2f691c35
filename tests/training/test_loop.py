"""Training: exact resume, what it writes, what it refuses, several processes, that it learns."""

import copy
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scalefp
import scalefp.training.loop
from scalefp import perturb
from scalefp.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from scalefp.data.dataset import ImageSet
from scalefp.data.images import save_png, to_float, to_pil
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.loading import load_model
from scalefp.networks.frames import identity_frame, similarity
from scalefp.networks.generator import Generator
from scalefp.release.container import halved, load_state, save_state
from scalefp.training import losses
from scalefp.training.generator import train
from scalefp.training.perturbed import FRAME_ERROR, Chance, reading_frame
from scalefp.training.state import TrainingState
from scalefp.training.step import Step
from trainings import change_options, log_of

BATCH = 8
PERTURBED = {"crop": 0.3, "rotation": 0.3, "jpeg": 0.3, "resize": 0.3}
NETWORKS = ("generator", "decoder", "discriminator", "average_generator", "average_decoder")
OPTIMIZERS = ("reader_optimizer", "discriminator_optimizer")


def write_pictures(folder, count=24, size=20):
    """Coloured discs on coloured ramps."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size] / (size - 1)
    for i in range(count):
        ground, disc = draw.uniform(0, 255, (2, 3))
        centre, radius = draw.uniform(0.3, 0.7, 2), draw.uniform(0.15, 0.35)
        inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
        pixels = np.where(inside[..., None], disc, ground * (0.5 + x[..., None] / 2))
        save_png(folder / f"{i:02d}.png", Image.fromarray(pixels.astype(np.uint8)))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


def options(source, *, steps=4, **changes):
    """A training of some milliseconds a step that uses every part of the loop.

    The bits count as readable almost at once, so that ramp, moving weight and perturbations are at
    work; ``changes`` are dotted names with __ for the dot.
    """
    config = TrainConfig(
        seed=1,
        model=ModelConfig(
            resolution=16, n_bits=8, latent_dim=4, channel_base=64, channel_max=8,
            embedding_width=8, decoder_resolution=16, decoder_base=64, decoder_max=8,
            decoder_localizer=True,
        ),
        data=DataConfig(source=str(source), flip=True),
        loss=LossConfig(path_length=1.0, path_length_interval=2, r1_interval=3),
        schedule=ScheduleConfig(
            total_images=steps * BATCH, decay_images=0, ramp_images=3 * BATCH,
            curriculum_bits=4, curriculum_accuracy=0.0, look_steps=1,
        ),
        optimizer=OptimizerConfig(batch=BATCH),
        perturb=dict(PERTURBED),
        run=RunConfig(
            device="cpu", precision="fp32", log_steps=1, grid_images=10**6, tensorboard=False
        ),
    )  # fmt: skip
    change_options(config, {name.replace("__", "."): value for name, value in changes.items()})
    return config


def assert_same(a, b, where="state"):
    """Equal bit for bit: tensors, numbers and containers of them."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def assert_same_training(a, b):
    states = [load_state(run_dir / "state.pt") for run_dir in (a, b)]
    for part in ("images", "progress", *NETWORKS, *OPTIMIZERS):
        assert_same(states[0][part], states[1][part], part)
    releases = [load_model(run_dir / "release.safetensors") for run_dir in (a, b)]
    for part in ("generator", "decoder"):
        assert_same(*(dict(getattr(release, part).state_dict()) for release in releases), part)


@pytest.fixture(scope="module")
def straight(pictures, tmp_path_factory):
    """Run folder of 8 uninterrupted steps."""
    run_dir = tmp_path_factory.mktemp("straight")
    train(options(pictures, steps=8), run_dir)
    return run_dir


# Exact resume.


def test_four_and_four_steps_equal_eight_bit_for_bit(pictures, straight, tmp_path):
    train(options(pictures, steps=4), tmp_path)
    halfway = load_state(tmp_path / "state.pt")
    train(options(pictures, steps=8), tmp_path)
    assert_same_training(tmp_path, straight)
    assert log_of(tmp_path) == log_of(straight)
    # The comparison had something to compare: everything moved in the second half.
    state = load_state(tmp_path / "state.pt")
    for network in NETWORKS:
        assert any(
            not torch.equal(halfway[network][name], tensor)
            for name, tensor in state[network].items()
        ), network
    assert state["progress"]["readable_at"] > 0
    assert state["progress"]["path_mean"] > 0


def test_resume_is_exact_between_two_looks_of_the_schedule_too(pictures, tmp_path):
    for folder, lengths in (("straight", [8]), ("parts", [4, 7, 8])):
        for steps in lengths:
            config = options(pictures, steps=steps, schedule__look_steps=3)
            train(config, tmp_path / folder)
    assert_same_training(tmp_path / "parts", tmp_path / "straight")
    lines = log_of(tmp_path / "straight")
    weights = [line["consistency_weight"] for line in lines]  # moved after 3 and 6 steps alone
    assert len(set(weights)) == 3 and weights[:2] == [config.loss.consistency] * 2
    assert [line["n_active"] for line in lines] == [4] * 2 + [8] * 6


def test_resume_is_exact_in_bf16_too(pictures, tmp_path):
    def bf16(steps):
        return options(pictures, steps=steps, run__precision="bf16")

    train(bf16(6), tmp_path / "straight")
    train(bf16(3), tmp_path / "halves")
    train(bf16(6), tmp_path / "halves")
    assert_same_training(tmp_path / "halves", tmp_path / "straight")
    assert log_of(tmp_path / "halves") == log_of(tmp_path / "straight")
    parameters = load_state(tmp_path / "halves" / "state.pt")["generator"].values()
    assert {p.dtype for p in parameters} == {torch.float32}  # only the arithmetic is bf16


def test_two_trainings_with_one_seed_are_the_same_and_another_seed_is_not(
    pictures, straight, tmp_path
):
    train(options(pictures, steps=8, seed=2), tmp_path)
    assert log_of(tmp_path)[0] != log_of(straight)[0]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_step_finish_saves_and_exits(
    pictures, straight, tmp_path, monkeypatch, capsys, number, code
):
    original, calls = Step.__call__, []

    def step(self):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return original(self)

    monkeypatch.setattr(Step, "__call__", step)
    handler = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        train(options(pictures, steps=8), tmp_path)
    assert stopped.value.code == code
    assert f"{3 * BATCH} images" in capsys.readouterr().err
    assert signal.getsignal(number) is handler
    assert load_state(tmp_path / "state.pt")["images"] == 3 * BATCH
    assert load_model(tmp_path / "release.safetensors").training["images"] == 3 * BATCH
    train(options(pictures, steps=8), tmp_path)
    assert_same_training(tmp_path, straight)
    assert log_of(tmp_path) == log_of(straight)


def environment():
    package = Path(scalefp.__file__).parents[1]
    return {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}


def overrides(config, run_dir):
    """The configuration as command-line arguments."""
    arguments = [f"hydra.run.dir={run_dir}", f"seed={config.seed}"]
    for group in ("model", "data", "loss", "schedule", "optimizer", "run"):
        for name, value in vars(getattr(config, group)).items():
            arguments.append(f"{group}.{name}={'null' if value is None else value}")
    return [*arguments, *(f"+perturb.{name}={p}" for name, p in config.perturb.items())]


def test_sigterm_to_a_running_process_loses_nothing(pictures, tmp_path):
    """The command, killed at any moment, goes on to the very result of an uninterrupted run."""
    run_dir, endless = tmp_path / "stopped", options(pictures, steps=10**6)
    process = subprocess.Popen(
        [sys.executable, "-m", "scalefp.train", *overrides(endless, run_dir)],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 400
        log = run_dir / "log.jsonl"
        while not (log.exists() and log.read_text().count("\n") >= 2):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.terminate()
        messages = process.communicate(timeout=200)[1]
    finally:
        process.kill()
    assert process.returncode == 143, messages
    assert "Traceback" not in messages
    done = load_state(run_dir / "state.pt")["images"] // BATCH
    assert f"{done * BATCH} images" in messages
    train(options(pictures, steps=done + 2), run_dir)
    train(options(pictures, steps=done + 2), tmp_path / "straight")
    assert_same_training(run_dir, tmp_path / "straight")
    assert log_of(run_dir) == log_of(tmp_path / "straight")


@pytest.mark.parametrize("cut", ["", '{"images": 56, "bi'], ids=["whole", "cut off"])
def test_lines_logged_past_the_checkpoint_are_not_logged_twice(pictures, straight, tmp_path, cut):
    """A crash loses the steps after the last checkpoint; the resumed run logs them anew."""
    train(options(pictures, steps=4), tmp_path)
    with (tmp_path / "log.jsonl").open("a") as log:
        for step in (5, 6):
            log.write(json.dumps({"images": step * BATCH, "bits": 0.5}) + "\n")
        log.write(cut)
    train(options(pictures, steps=8), tmp_path)
    assert log_of(tmp_path) == log_of(straight)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("named", ["", "state.pt"])
def test_another_run_is_gone_on_from_under_other_options(pictures, straight, tmp_path, named):
    before = contents(straight)
    options_now = options(
        pictures, steps=10, perturb={"jpeg": 0.9}, start_from=str(straight / named)
    )
    train(options_now, tmp_path)
    state, origin = load_state(tmp_path / "state.pt"), load_state(straight / "state.pt")
    assert [line["images"] for line in log_of(tmp_path)] == [9 * BATCH, 10 * BATCH]
    assert state["progress"]["readable_at"] == origin["progress"]["readable_at"]
    assert contents(straight) == before
    # Two steps from there, not from new weights.
    moved = (state["generator"]["input.weight"] - origin["generator"]["input.weight"]).abs().max()
    assert 0 < moved < 0.01
    train(options_now, tmp_path)  # from its own state, no longer from the other's
    assert len(log_of(tmp_path)) == 2


def test_a_start_that_is_missing_or_of_another_model_is_refused(pictures, straight, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        train(options(pictures, start_from="nowhere/state.pt"), tmp_path / "a")
    with pytest.raises(UserError, match=r"model\.latent_dim"):
        other = options(pictures, model__latent_dim=5, start_from=str(straight / "state.pt"))
        train(other, tmp_path / "b")


def test_a_finished_training_run_again_changes_nothing(pictures, straight):
    before = contents(straight)
    figures = train(options(pictures, steps=8), straight)
    assert contents(straight) == before
    assert figures["bits"] == log_of(straight)[-1]["bits"]


@pytest.mark.parametrize("left", ["an earlier release", "none", "a cut one"])
def test_a_training_killed_before_its_release_was_written_mends_it(
    pictures, straight, tmp_path, left
):
    train(options(pictures, steps=4), tmp_path)
    release = tmp_path / "release.safetensors"
    shutil.copy(straight / "state.pt", tmp_path)
    if left == "none":
        release.unlink()
    elif left == "a cut one":
        release.write_bytes(release.read_bytes()[:-8])
    train(options(pictures, steps=8), tmp_path)
    assert release.read_bytes() == (straight / "release.safetensors").read_bytes()


# Refusals.


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": 7}, "seed=1.*7"),
        ({"optimizer__batch": 4}, r"optimizer\.batch"),
        ({"loss__bits": 3.0}, r"loss\.bits"),
        ({"perturb": {k: v for k, v in PERTURBED.items() if k != "resize"}}, r"perturb\.resize"),
        ({"perturb": PERTURBED | {"webp": 0.3}}, r"perturb\.webp"),
        ({"perturb": {}}, "perturb"),
        ({"model__n_bits": 9}, r"model\.n_bits"),
    ],
    ids=str,
)
def test_a_run_folder_of_other_options_is_refused_and_kept(
    pictures, straight, tmp_path, changes, says
):
    shutil.copytree(straight, tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(UserError, match=says):
        train(options(pictures, steps=9, **changes), tmp_path / "run")
    assert contents(tmp_path / "run") == before


def change(path, function):
    state = load_state(path)
    function(state)
    save_state(path, state)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-500]),
        lambda path: torch.save({"images": 8}, path),
        lambda path: change(path, lambda state: state.pop("decoder")),
        lambda path: change(path, lambda state: state["decoder"].popitem()),
        lambda path: change(path, lambda state: state["progress"].update(epoch=1)),
    ],
    ids=["truncated", "foreign", "lacks a network", "lacks a tensor", "other progress"],
)
def test_a_damaged_state_is_refused(pictures, straight, tmp_path, damage):
    shutil.copy(straight / "state.pt", tmp_path)
    damage(tmp_path / "state.pt")
    with pytest.raises(UserError, match=r"state\.pt"):
        train(options(pictures), tmp_path)


def test_a_resumed_training_keeps_the_precision_it_began_with(pictures, tmp_path, monkeypatch):
    from scalefp.training import precision

    monkeypatch.setattr(precision, "measured_precision", lambda kind: torch.bfloat16)
    train(options(pictures, steps=1, run__precision="auto"), tmp_path)
    assert load_state(tmp_path / "state.pt")["progress"]["precision"] == "bf16"
    monkeypatch.setattr(precision, "measured_precision", lambda kind: torch.float32)
    train(options(pictures, steps=2, run__precision="auto"), tmp_path)
    assert load_state(tmp_path / "state.pt")["progress"]["precision"] == "bf16"


def test_how_it_runs_may_change_on_resume(pictures, tmp_path):
    train(options(pictures, steps=1, run__log_steps=1), tmp_path)
    train(options(pictures, steps=2, run__log_steps=7, run__grid_images=16), tmp_path)
    assert load_state(tmp_path / "state.pt")["images"] == 2 * BATCH


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model__n_bits": 7}, "n_bits"),
        ({"model__resolution": 20}, "resolution"),
        ({"optimizer__batch": 3}, "batch"),
        ({"data__source": "no-such-folder"}, "no-such-folder"),
        ({"perturb": {"sepia": 0.5}}, "sepia"),
    ],
    ids=str,
)
def test_bad_options_are_refused_before_anything_is_built(
    pictures, tmp_path, monkeypatch, changes, says
):
    monkeypatch.setattr(TrainingState, "build", None)  # building would fail in another way
    with pytest.raises(UserError, match=says):
        train(options(pictures, **changes), tmp_path / "run")


def test_a_run_folder_that_cannot_be_made_is_refused(pictures, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        train(options(pictures), tmp_path / "file")


def bad_at(function, call):
    """The loss function, but not a number from its ``call``-th use on."""
    calls = []

    def wrapped(*arguments):
        calls.append(1)
        return function(*arguments) * (math.nan if len(calls) >= call else 1)

    return wrapped


@pytest.mark.parametrize(
    ("function", "term"),
    [
        ("key_bits", "bits"),
        ("r1_penalty", "r1"),
        ("path_lengths", "path_length"),
    ],
)
def test_a_loss_that_is_not_finite_stops_and_is_named(
    pictures, tmp_path, monkeypatch, function, term
):
    train(options(pictures, steps=1), tmp_path)
    files = [tmp_path / "state.pt", tmp_path / "release.safetensors"]
    before = [file.read_bytes() for file in files]
    monkeypatch.setattr(losses, function, bad_at(getattr(losses, function), call=2))
    with pytest.raises(UserError, match=rf"'{term}'.*nan") as caught:
        train(options(pictures, steps=20), tmp_path)
    assert "\n" not in str(caught.value)
    assert [file.read_bytes() for file in files] == before
    assert all(math.isfinite(value) for line in log_of(tmp_path) for value in line.values())


# What a step feeds to the losses.


def copied(value):
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: copied(part) for name, part in value.items()}
    return tuple(map(copied, value)) if type(value) is tuple else value


def spy(monkeypatch, module, name, replace=lambda result: result):
    """Records (arguments, keyword arguments) of every call of a function."""
    original, calls = getattr(module, name), []

    def wrapped(*arguments, **keywords):
        # Copies: what the schedule says lies in tensors that the next step overwrites.
        calls.append((copied(arguments), copied(keywords)))
        return replace(original(*arguments, **keywords))

    monkeypatch.setattr(module, name, wrapped)
    return calls


def test_every_latent_comes_under_two_keys_side_by_side(pictures, tmp_path, monkeypatch):
    calls = spy(monkeypatch, losses, "generator_terms")
    train(options(pictures, steps=2), tmp_path)
    for _, terms in calls:
        z, bits = terms["z"], terms["bits"]
        assert torch.equal(z[0::2], z[1::2])
        assert len(z[0::2].unique(dim=0)) == BATCH // 2
        assert (bits[0::2] != bits[1::2]).any(dim=1).all()
        assert set(bits.unique().tolist()) == {0, 1}
    assert not torch.equal(calls[0][1]["z"], calls[1][1]["z"])


def test_the_weights_are_those_of_the_schedule(pictures, tmp_path, monkeypatch):
    calls = spy(monkeypatch, losses, "total")
    config = options(pictures, steps=3, loss__adversarial=0.7, loss__latent=0.3, loss__bits=5.0)
    train(config, tmp_path)
    weights = [arguments[1] for arguments, _ in calls]
    assert {name: float(weight) for name, weight in weights[0].items()} == {
        "adversarial": 0.7, "latent": 0.3, "bits": 5.0, "consistency": config.loss.consistency,
        "visible": 0.0, "geometry": config.loss.geometry, "range": config.loss.range,
    }  # fmt: skip
    moved = [line["consistency_weight"] for line in log_of(tmp_path)]
    used = [float(w["consistency"]) for w in weights[1:]]
    assert used == pytest.approx(moved[:-1])  # logged after the step
    assert moved[0] != config.loss.consistency


def test_the_decoder_sees_what_comes_back_from_files(pictures, tmp_path, monkeypatch):
    def blank(result):
        return torch.zeros_like(result[0]), identity_frame(BATCH)

    files = spy(monkeypatch, perturb, "perturb_images", replace=blank)
    terms = spy(monkeypatch, losses, "generator_terms")
    config = options(pictures, steps=4)
    train(config, tmp_path)
    for _, seen in terms:  # all files alike, so all readings alike
        assert torch.equal(seen["key_logits"], seen["key_logits"][:1].expand(BATCH, -1))
        assert not torch.equal(seen["images"][0], seen["images"][2])
    # Perturbations wait until the bits are readable, and begin mildly.
    assert [arguments[1] for arguments, _ in files][0] == {}
    assert [arguments[1] for arguments, _ in files][-1] == config.perturb
    severity = [float(arguments[3]) for arguments, _ in files]
    assert severity[0] == 0 < severity[-1] < 1 and severity == sorted(severity)


def test_the_localizer_learns_the_frames_that_the_images_met(pictures, tmp_path, monkeypatch):
    calls = spy(monkeypatch, losses, "generator_terms")
    train(options(pictures, steps=6), tmp_path)
    still = identity_frame(BATCH)
    assert torch.equal(calls[0][1]["frame"], still)  # before the bits are readable
    assert not torch.equal(calls[-1][1]["frame"], still)
    assert all(terms["located"].shape == (BATCH, 2, 3) for _, terms in calls)
    assert all("geometry" in line for line in log_of(tmp_path))


def test_moved_images_are_read_near_the_true_frame_and_others_as_they_are():
    frame = identity_frame(400)
    frame[:300] = similarity(*torch.tensor([[0.5], [20.0], [0.2], [0.1]])).expand(300, -1, -1)
    chance = Chance.draw(400, [], 16, torch.Generator().manual_seed(0))
    read = reading_frame(frame, chance.off)
    assert torch.equal(read[300:], frame[300:])
    error = (read - frame)[:300]
    assert 0.8 * FRAME_ERROR < error.std() < 1.2 * FRAME_ERROR
    assert error.abs().max() < 6 * FRAME_ERROR


def test_without_a_localizer_moved_images_are_read_as_they_are(pictures, tmp_path, monkeypatch):
    calls = spy(monkeypatch, losses, "generator_terms")
    train(options(pictures, steps=3, model__decoder_localizer=False), tmp_path)
    assert all(terms["located"] is None for _, terms in calls)
    assert not any("geometry" in line for line in log_of(tmp_path))


def test_the_twin_without_keys_is_the_same_training_but_for_the_keys(pictures, tmp_path):
    twin = options(pictures, steps=3, fingerprint=False)
    train(twin, tmp_path)
    lines = log_of(tmp_path)
    assert {line["n_active"] for line in lines} == {0}
    for line in lines:
        assert {"adversarial", "discriminator_real", "discriminator_fake"} <= line.keys()
        assert not {"bits", "bit_accuracy", "consistency", "geometry"} & line.keys()
    generator = load_model(tmp_path / "release.safetensors").generator
    marked = TrainingState.build(options(pictures), torch.device("cpu")).generator
    shapes = {name: tensor.shape for name, tensor in generator.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in marked.state_dict().items()}
    z = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    nobody = generator(z, torch.zeros(2, 8), torch.zeros(8))
    for bit in (0, 1):  # an instance of any key is the network that was trained
        assert torch.equal(generator(z, torch.full((2, 8), bit)), nobody)


def test_the_twin_sees_as_many_images_and_twice_the_latents(pictures, tmp_path, monkeypatch):
    calls = spy(monkeypatch, Generator, "forward")
    train(options(pictures, steps=1, fingerprint=False), tmp_path)
    z = calls[0][0][1]
    assert len(z) == BATCH == len(z.unique(dim=0))


@pytest.mark.parametrize("flip", [False, True])
def test_real_images_are_those_of_the_data_set_mirrored_only_if_asked_for(
    pictures, tmp_path, monkeypatch, flip
):
    calls = spy(monkeypatch, losses, "r1_penalty")
    train(options(pictures, steps=3, loss__r1_interval=1, data__flip=flip), tmp_path)
    data = to_float(torch.from_numpy(ImageSet(pictures, 16, progress=False).pixels))
    real = torch.cat([arguments[1].detach() for arguments, _ in calls])  # one epoch of 24
    straight = [bool((image == data).flatten(1).all(dim=1).any()) for image in real]
    mirrored = [bool((image.flip(2) == data).flatten(1).all(dim=1).any()) for image in real]
    assert all(a or b for a, b in zip(straight, mirrored, strict=True))
    assert any(mirrored) == flip and any(straight)


# What it writes.


def test_the_log_has_every_term_and_figure(straight):
    lines = log_of(straight)
    assert [line["images"] for line in lines] == [BATCH * (i + 1) for i in range(8)]
    always = {
        "images", "n_active", "discriminator_real", "discriminator_fake", "adversarial", "latent",
        "bits", "consistency", "active_bit_accuracy", "bit_accuracy", "evidence", "psnr",
    }  # fmt: skip
    for line in lines:
        assert always <= line.keys()
        assert all(math.isfinite(value) for value in line.values())
        assert 0 <= line["bit_accuracy"] <= 1
        assert line["psnr"] == pytest.approx(10 * math.log10(4 / line["consistency"]))
    raw = json.loads((straight / "log.jsonl").read_text().splitlines()[0])
    assert raw["images_per_second"] > 0


def test_lazy_terms_are_computed_at_their_intervals_only(straight):
    lines = log_of(straight)
    assert ["r1" in line for line in lines] == [i % 3 == 0 for i in range(8)]
    assert ["path_length" in line for line in lines] == [i % 2 == 0 for i in range(8)]


def test_a_log_line_is_the_mean_over_the_steps_that_had_the_term(pictures, straight, tmp_path):
    train(options(pictures, steps=8, run__log_steps=4), tmp_path)
    fine, coarse = log_of(straight), log_of(tmp_path)
    assert [line["images"] for line in coarse] == [4 * BATCH, 8 * BATCH]
    for block, line in zip((fine[:4], fine[4:]), coarse, strict=True):
        for term in ("adversarial", "bits", "consistency", "bit_accuracy", "r1", "path_length"):
            values = [step[term] for step in block if term in step]
            assert line[term] == pytest.approx(sum(values) / len(values)), term


def test_terms_of_weight_zero_are_left_out(pictures, tmp_path):
    train(options(pictures, steps=1, loss__r1=0.0, loss__path_length=0.0), tmp_path)
    assert not {"r1", "path_length"} & log_of(tmp_path)[0].keys()


def test_grids_are_sheets_of_eight_columns(pictures, tmp_path):
    train(options(pictures, steps=4, run__grid_images=2 * BATCH), tmp_path)
    names = sorted(path.name for path in (tmp_path / "grids").iterdir())
    shown = ("difference", "keys", "latents")
    assert names == [f"{name}-{images:09d}.png" for name in shown for images in (16, 32)]
    for path in (tmp_path / "grids").iterdir():
        rows = 3 if path.name.startswith("difference") else 4
        with Image.open(path) as sheet:
            assert sheet.format == "PNG"
            assert sheet.size == (8 * 18 + 2, rows * 18 + 2)  # 16 pixels and 2 between
            assert np.asarray(sheet).std() > 0


def test_grids_show_latents_keys_and_ten_times_their_difference(straight):
    generator = load_model(straight / "release.safetensors").generator
    grids = scalefp.training.generator.picture_grids(generator)
    assert {name: grid.shape for name, grid in grids.items()} == {
        "latents": (32, 3, 16, 16),
        "keys": (32, 3, 16, 16),
        "difference": (24, 3, 16, 16),
    }
    assert torch.equal(grids["latents"][:8], grids["keys"][:8])  # the first key's row
    others, first = grids["keys"].float()[8:], grids["keys"].float()[:8].repeat(3, 1, 1, 1)
    expected = (127.5 + 10 * (others - first)).clamp(0, 255)
    shown = ((others - 127.5).abs() < 127) & ((first - 127.5).abs() < 127)  # not clipped
    assert shown.float().mean() > 0.5
    error = (grids["difference"].float() - expected).abs()[shown]
    assert error.max() <= 11  # the rounding of two 8-bit levels, times 10


def test_the_release_is_the_averaged_generator_and_decoder(straight):
    state, release = load_state(straight / "state.pt"), load_model(straight / "release.safetensors")
    for part in ("generator", "decoder"):
        released = getattr(release, part).state_dict()
        average = {name: halved(w).float() for name, w in state[f"average_{part}"].items()}
        assert_same(dict(released), average, part)
        assert any(not torch.equal(state[part][name], released[name]) for name in released)
    assert release.training["images"] == 8 * BATCH
    assert release.training["options"]["seed"] == 1
    reached = release.training["reached"]
    assert reached["active_bits"] == 8
    assert reached["evidence"] == state["progress"]["evidence"]
    assert 0 < reached["evidence"] < 8 and 0 < reached["bit_accuracy"] < 1
    assert release.instantiate(Key.random(8)).sample(1).shape == (1, 3, 16, 16)


def test_the_average_follows_with_the_half_life_asked_for(pictures, tmp_path):
    """Early on the half-life is a twentieth of the images seen, later ema_images."""
    train(options(pictures, steps=1), tmp_path)
    before = load_state(tmp_path / "state.pt")
    for name, tensor in before["generator"].items():  # half-life 0.05 steps: all but equal
        torch.testing.assert_close(before["average_generator"][name], tensor, rtol=0, atol=1e-5)
    slow = tmp_path / "slow"
    train(options(pictures, steps=1, optimizer__ema_images=0.2 * BATCH), slow)
    first = copy.deepcopy(load_state(slow / "state.pt"))
    for steps in range(2, 6):
        train(options(pictures, steps=steps, optimizer__ema_images=0.2 * BATCH), slow)
        second = load_state(slow / "state.pt")
        share = 0.5 ** (1 / min(0.2, 0.05 * steps))  # what is left of the old average
        for name, old in first["average_generator"].items():
            expected = share * old + (1 - share) * second["generator"][name]
            torch.testing.assert_close(
                second["average_generator"][name], expected, rtol=1e-5, atol=1e-6
            )
        first = second


def test_the_returned_figures_are_those_last_logged(pictures, tmp_path):
    figures = train(options(pictures, steps=2), tmp_path)
    last = log_of(tmp_path)[-1]
    assert figures["bit_accuracy"] == last["bit_accuracy"]
    assert figures["bits"] == last["bits"]


def test_tensorboard_events_are_written_if_asked_for(pictures, tmp_path):
    train(options(pictures, steps=1, run__tensorboard=True), tmp_path)
    (events,) = tmp_path.glob("events.out.tfevents*")
    body = events.read_bytes()
    assert b"evidence" in body and b"latents" in body
    assert b"_hparams_/session_start_info" in body and b"model.n_bits" in body


def test_checkpoints_are_written_on_time(pictures, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        scalefp.training.loop,
        "save",
        lambda training, run_dir: saved.append(training.state.progress.images),
    )
    train(options(pictures, steps=3, run__checkpoint_minutes=0.0), tmp_path)
    assert saved == [BATCH, 2 * BATCH, 3 * BATCH]
    saved.clear()
    train(options(pictures, steps=3, run__checkpoint_minutes=60.0), tmp_path)
    assert saved == [3 * BATCH]  # at the end always


# Several processes.

SCRIPT = f"""
import os
import sys
import torch
from scalefp.cli import main
from scalefp.training.step import Step

original, seen = Step.__call__, []

def step(self):
    seen.append(self)
    return original(self)

Step.__call__ = step
assert main(["train", *sys.argv[1:]]) == 0
state, rank = seen[0].state, seen[0].world.rank
states = {{name: getattr(state, name).state_dict() for name in {NETWORKS}}}
torch.save(states, os.environ["RANKS"] + f"/rank{{rank}}.pt")
"""


def test_two_processes_train_one_model(pictures, tmp_path):
    script, run_dir = tmp_path / "two.py", tmp_path / "run"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            str(script), *overrides(options(pictures, steps=4), run_dir),
        ],
        env={**environment(), "RANKS": str(tmp_path)},
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert set(first) == set(NETWORKS)
    assert_same(first, second)
    state = load_state(run_dir / "state.pt")
    for name in NETWORKS:
        assert_same(dict(first[name]), dict(state[name]), name)
        assert all(tensor.isfinite().all() for tensor in state[name].values())
    # One process writes.
    assert [line["images"] for line in log_of(run_dir)] == [BATCH * (i + 1) for i in range(4)]
    assert load_model(run_dir / "release.safetensors").training["images"] == 4 * BATCH


# Learning.


def test_a_tiny_training_learns_to_be_read_from_png_files(pictures, tmp_path):
    """Fresh keys and latents, instances, real files: far above the chance of one half."""
    torch.manual_seed(0)
    n_bits = 16
    config = TrainConfig(
        model=ModelConfig(
            resolution=16, n_bits=n_bits, latent_dim=8, channel_base=256, channel_max=16,
            embedding_width=32, key_gain=0.3, decoder_resolution=16, decoder_base=256,
            decoder_max=16,
        ),
        data=DataConfig(source=str(pictures)),
        loss=LossConfig(bits=100.0, consistency=30.0),
        schedule=ScheduleConfig(total_images=5120, decay_images=2000, hide_psnr=None),
        optimizer=OptimizerConfig(batch=16, learning_rate=0.006, ema_images=500),
        run=RunConfig(device="cpu", precision="fp32", tensorboard=False, grid_images=10**6),
    )  # fmt: skip
    train(config, tmp_path / "run")
    model = load_model(tmp_path / "run" / "release.safetensors")
    draw = np.random.default_rng(1)
    right, keys = [], [Key.from_bits(draw.integers(0, 2, n_bits)) for _ in range(16)]
    for seed, key in enumerate(keys):
        files = []
        for i, picture in enumerate(to_pil(model.instantiate(key).sample(4, seed=seed))):
            files.append(tmp_path / f"{seed}-{i}.png")
            save_png(files[-1], picture)
        right.append(model.decode(files).bits == key.bits)
    assert np.mean(right) > 0.9
    # A key is nothing the decoder would say of itself: read against another's it is a coin.
    others = np.mean([keys[i].bits == keys[i - 1].bits for i in range(16)])
    assert 0.3 < others < 0.7
    # The latent shows: the key has not taken over the picture.
    images = model.instantiate(keys[0]).sample(16)
    assert images.var(dim=0).mean() > 1e-3
