"""A batch that is too large for a GPU, and what would have fitted; the memory is made up."""

import pytest
import torch

from scalefp.config import OptimizerConfig, RunConfig, TrainConfig
from scalefp.errors import UserError
from scalefp.training import loop
from scalefp.training.fitting import fitting_batch
from scalefp.training.schedule import Progress

CPU = torch.device("cpu")


class Hungry:
    """Takes more than there is from a batch of 16 on, and only where a regularizer is due."""

    tried: list[int] = []

    def __init__(self, config, world):
        self.batch, self.state = config.optimizer.batch, self
        self.progress = Progress()
        Hungry.tried.append(self.batch)

    def step(self, precision):
        if self.batch >= 16 and self.progress.images > 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return {}


def options(batch):
    return TrainConfig(
        optimizer=OptimizerConfig(batch=batch), run=RunConfig(device="cpu", precision="fp32")
    )


@pytest.mark.parametrize(("batch", "fits"), [(128, 8), (48, 12), (16, 8), (50, None)])
def test_the_batch_is_halved_until_its_steps_fit(batch, fits):
    config = options(batch)
    assert fitting_batch(Hungry, config, CPU) == fits
    assert config.optimizer.batch == batch


def test_a_gpu_without_enough_memory_is_said_in_one_sentence_with_a_batch_that_fits(
    tmp_path, monkeypatch
):
    def too_large(*_):
        from scalefp.training.run import named_memory_errors

        with named_memory_errors(options(64)):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(loop, "run_in", too_large)
    with pytest.raises(UserError, match="too little memory for optimizer.batch=64") as said:
        loop.run(Hungry, options(64), tmp_path / "run")
    assert "fits" not in str(said.value)  # a CPU swaps before it refuses, and trying takes long
    monkeypatch.setattr(loop, "pick_device", lambda run: torch.device("cuda"))
    monkeypatch.setattr(loop, "fitting_batch", lambda *_: 32)
    with pytest.raises(UserError, match=r"batch=64.*; optimizer\.batch=32 fits$") as said:
        loop.run(Hungry, options(64), tmp_path / "run")
    assert "\n" not in str(said.value)
