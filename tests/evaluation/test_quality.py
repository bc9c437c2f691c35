"""Pictures under several keys and against the data, on a model whose differences are known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from parity import SIZE, BlockMeans, ParityModel, small_config
from scalefp.evaluation.quality import data_pixels, measure_features, measure_hiding
from scalefp.evaluation.samples import EvaluateConfig, Samples
from scalefp.key import Key
from scalefp.release.model import Model


@pytest.fixture
def small(tmp_path: Path) -> EvaluateConfig:
    return small_config(tmp_path)


def samples(config: EvaluateConfig, **options: bool) -> Samples:
    return Samples(ParityModel(**options), config)  # type: ignore[arg-type]


class MeanDifference(nn.Module):
    """In LPIPS's place: the largest difference of a pair."""

    name = "largest difference"

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().flatten(1).amax(1)


def test_hiding_closed_form(small: EvaluateConfig) -> None:
    sampled = samples(small)
    figures = measure_hiding(sampled, MeanDifference())
    same = figures["same_latent_two_keys"]
    # Each differing bit moves one of the 768 values by one of 255 grey levels.
    distances = (sampled.bits != np.roll(sampled.bits, -1, axis=0)).sum(axis=1)
    decibels = 10 * np.log10(255**2 * 3 * SIZE**2 / distances)
    assert same["pairs"] == 60 and same["psnr"] == pytest.approx(decibels.mean(), abs=1e-3)
    worst = np.percentile(np.repeat(decibels, 5), 5)
    assert same["psnr_worst"] == pytest.approx(worst, abs=1e-3)
    assert same["lpips"] == pytest.approx(2 / 255, abs=1e-6)
    other = figures["two_latents_same_key"]
    assert other["pairs"] == 48 and other["psnr"] < 15
    assert same["ssim"] > 0.9 > other["ssim"]
    assert other["lpips_worst"] >= other["lpips"] > 0.5  # the worst is the largest
    assert figures["lpips"] == "largest difference"


def test_without_the_metric_there_is_no_lpips(small: EvaluateConfig) -> None:
    figures = measure_hiding(samples(small))
    assert figures["lpips"] is None
    assert set(figures["same_latent_two_keys"]) == {
        "pairs", "psnr", "psnr_worst", "ssim", "ssim_worst"
    }  # fmt: skip


def test_a_key_that_takes_over_the_picture_is_exposed(small: EvaluateConfig) -> None:
    sampled = samples(small, key_rules=True)
    hiding = measure_hiding(sampled)
    assert hiding["same_latent_two_keys"]["psnr"] < 15
    assert hiding["two_latents_same_key"]["psnr"] == 100  # equal images: finite, for JSON
    features = measure_features(BlockMeans(), sampled, small)
    assert features["diversity_over_latents"] == pytest.approx(0, abs=1e-6)
    assert features["diversity_over_keys"] > 1


def test_features_tell_latents_from_keys_and_keep_a_floor(small: EvaluateConfig) -> None:
    sampled = samples(small)
    figures = measure_features(BlockMeans(), sampled, small)
    assert figures["extractor"] == "block means"
    assert figures["images_each"] == 20 and figures["crossed"] == 4
    assert figures["diversity_over_latents"] > 1 > 0.1 > figures["diversity_over_keys"]
    assert figures["distance"] > figures["floor_distance"] > 0
    assert figures["precision"] <= figures["floor_precision"]
    assert "twin_distance" not in figures


def test_the_datas_own_images_are_at_the_floor(small: EvaluateConfig) -> None:
    sampled = samples(small)
    everything = data_pixels(small, 40, SIZE)
    # Every image of the data, as if instances had made them.
    sampled.images = everything[torch.arange(60) % 40].reshape(12, 5, 3, SIZE, SIZE)
    same = measure_features(BlockMeans(), sampled, small)
    assert same["distance"] < 2 * same["floor_distance"]
    assert same["diversity"] == pytest.approx(same["floor_diversity"], rel=0.2)
    assert same["precision"] > 0.8 and same["recall"] > 0.8


def test_a_twin_is_held_against_the_same_data(
    model: Model, small: EvaluateConfig, tmp_path: Path
) -> None:
    model.instantiate(Key.random()).save(tmp_path / "twin.safetensors")
    without = measure_features(BlockMeans(), samples(small), small)
    small.twin = str(tmp_path / "twin.safetensors")
    figures = measure_features(BlockMeans(), samples(small), small)
    assert figures["twin_distance"] > 0 and 0 <= figures["twin_recall"] <= 1
    assert {name: figures[name] for name in without} == without
