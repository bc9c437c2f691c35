"""Steps as CUDA graphs: as much of it as a CPU has; and the feed of images."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scalefp.config import DataConfig
from scalefp.data.dataset import sample_indices
from scalefp.training import capture, feed
from scalefp.training.capture import WARM_UP, Captured
from scalefp.training.distributed import World
from scalefp.training.feed import Feed

CPU = torch.device("cpu")


def on_a_gpu(monkeypatch, capture_step):
    """A Captured as on CUDA, whose graphs are made by ``capture_step``."""
    steps = Captured(CPU, wanted=False)
    steps._wanted = True
    monkeypatch.setattr(steps, "_capture", capture_step)
    return steps


def test_every_kind_of_step_is_captured_once_after_some_plain_ones(monkeypatch):
    done = []

    def capture_step(compute):
        done.append("captured")
        return SimpleNamespace(replay=lambda: done.append("replayed")), {"bits": torch.ones(())}

    def compute():
        done.append("plain")
        return {"bits": torch.zeros(())}

    steps = on_a_gpu(monkeypatch, capture_step)
    for kind in ("a", "b"):
        done.clear()
        bits = [steps(kind, 0, compute)["bits"].item() for _ in range(WARM_UP + 2)]
        assert done == ["plain"] * WARM_UP + ["captured", "replayed", "replayed"]
        assert bits == [0] * WARM_UP + [1, 1]


def test_a_step_that_cannot_be_captured_is_computed_with_one_warning(monkeypatch, caplog):
    def capture_step(compute):
        raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")

    drawn = []

    def compute():
        drawn.append(torch.rand((), generator=steps.source).item())
        return {}

    steps = on_a_gpu(monkeypatch, capture_step)
    with caplog.at_level(logging.WARNING, capture.__name__):
        for _ in range(WARM_UP + 3):
            steps("a", 7, compute)
    (warning,) = caplog.messages
    assert "kernel by kernel" in warning and "\n" not in warning
    assert len(drawn) == WARM_UP + 3 and len(set(drawn)) == 1  # its randomness stays its own


def test_too_little_memory_is_no_reason_to_go_on(monkeypatch):
    def capture_step(compute):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    steps = on_a_gpu(monkeypatch, capture_step)
    for _ in range(WARM_UP):
        steps("a", 0, dict)
    with pytest.raises(torch.OutOfMemoryError):
        steps("a", 0, dict)


@pytest.mark.parametrize("streamed", [False, True])
def test_images_come_in_the_order_of_the_seed_from_either_memory(monkeypatch, streamed):
    monkeypatch.setattr(feed, "fits", lambda size, device: not streamed)
    pixels = np.arange(20, dtype=np.uint8)[:, None, None, None].repeat(3, axis=1)
    data = SimpleNamespace(pixels=pixels)
    batches = Feed(data, DataConfig(), World(1, 2, CPU), seed=3, batch=8)
    place = batches.pixels.data_ptr()
    for seen in (0, 8, 16):
        batches.load(seen)
        assert batches.pixels[:, 0, 0, 0].tolist() == sample_indices(20, 3, seen, 8)[1::2].tolist()
    assert batches.pixels.data_ptr() == place


def test_data_larger_than_half_of_the_device_stay_with_the_host_which_is_said(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * 2**30, 8 * 2**30))
    cuda = torch.device("cuda")
    assert feed.fits(2 * 2**30, cuda) and not caplog.messages
    assert not feed.fits(3 * 2**30, cuda)
    assert "3.0 GiB" in caplog.text and "4.0 GiB" in caplog.text
    assert feed.fits(3 * 2**30, CPU)
