"""A rehearsal: a training's own steps on made pictures, and what all of it would take."""

import os

import pytest

from conftest import Run, assert_mistake
from scalefp.config import ModelConfig, OptimizerConfig, RunConfig, ScheduleConfig, TrainConfig
from scalefp.training.generator import GeneratorTraining
from scalefp.training.rehearsal import rehearse


def test_a_rehearsal_does_a_trainings_steps_and_leaves_nothing(run: Run) -> None:
    model = ModelConfig(resolution=16, n_bits=8, channel_base=64, channel_max=8, decoder_base=64)
    config = TrainConfig(
        model=model, optimizer=OptimizerConfig(batch=4), run=RunConfig(precision="fp32"),
        schedule=ScheduleConfig(total_images=7200),
    )  # fmt: skip
    config.data.source = "not-there.zip"
    made = []

    def kind(*parts: object) -> GeneratorTraining:
        made.append(GeneratorTraining(*parts))  # type: ignore[arg-type]
        return made[-1]

    found = rehearse(kind, config)
    (training,) = made
    assert training.state.progress.images == 3 * 4
    assert found.hours == pytest.approx(2 / found.images_per_second)
    assert found.precision == "fp32" and found.memory > 2**26
    generator = sum(weights.numel() for weights in training.state.generator.parameters())
    assert found.parameters["generator"] == generator
    assert {*found.parameters} == {"generator", "decoder", "discriminator"}
    assert os.listdir() == []


def test_dry_run_says_what_it_takes(run: Run) -> None:
    small = ["model=tiny", "model.resolution=16", "optimizer.batch=8", "data=celeba128"]
    result = run("train", *small, "--dry-run")
    assert result.code == 0, result.err
    said = [line.partition(":")[0] for line in result.out.splitlines()]
    assert said == ["parameters", "memory", "speed", "all 200,000 images"]
    assert os.listdir() == []
    assert_mistake(run("train", "-m", *small, "--dry-run"), "--dry-run is for one training")
    assert_mistake(run("train", "model.n_bits=3", "--dry-run"), "model.n_bits", "8 and 512")
    marker = run("artificial", "train", "marker=small", "optimizer.batch=8", "--dry-run")
    assert marker.code == 0 and "encoder" in marker.out, marker.err
