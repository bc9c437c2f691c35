"""Processes: one alone is free, two average what they hold, devices are picked or refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import scalefp
from scalefp.config import RunConfig
from scalefp.errors import UserError
from scalefp.training.distributed import World, join, pick_device

CPU = torch.device("cpu")


# One process.


def test_a_single_process_needs_no_process_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = join(CPU)
    assert (world.rank, world.size, world.is_main, world.device) == (0, 1, True, CPU)
    assert not dist.is_initialized()
    module = nn.Linear(3, 2)
    module(torch.ones(1, 3)).sum().backward()
    weight, bias = (torch.clone(p.grad) for p in module.parameters() if p.grad is not None)
    world.average_gradients(module)
    assert torch.equal(module.weight.grad, weight) and torch.equal(module.bias.grad, bias)
    values = torch.tensor([1.0, 2.0])
    assert world.average(values) is values
    assert values.tolist() == [1, 2]
    assert world.any([True, False]) == [True, False]
    world.barrier()
    world.close()


def test_only_the_first_process_writes():
    assert [World(rank, 3, CPU).is_main for rank in range(3)] == [True, False, False]


# Two processes.

SCRIPT = """
import pathlib
import torch
from torch import nn
from scalefp.training.distributed import join

world = join(torch.device("cpu"))
assert world.size == 2 and world.is_main == (world.rank == 0)

# Gradients: rank r sees the input r + 1, so the mean of the gradients is that of the input 1.5.
torch.manual_seed(0)
module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Linear(1, 1)).to(memory_format=torch.channels_last)
module.unused = nn.Linear(1, 1)
x = torch.full((1, 1, 1, 1), world.rank + 1.0)
parameters = [p for p in module[0].parameters()]
expected = torch.autograd.grad(module[0](torch.full_like(x, 1.5)).sum(), parameters)
module[0](x).sum().backward()
own = [p.grad.clone() for p in parameters]
world.average_gradients(module)
for parameter, before, mean in zip(parameters, own, expected, strict=True):
    torch.testing.assert_close(parameter.grad, mean)
assert not torch.equal(own[0], parameters[0].grad)
assert all(p.grad is None for p in module.unused.parameters())

# Figures and flags.
assert world.average(torch.tensor([1.0 + world.rank, 5.0])).tolist() == [1.5, 5.0]
assert world.any([world.rank == 1, False, True]) == [True, False, True]
world.barrier()
world.close()
(pathlib.Path(__file__).parent / f"agrees-{world.rank}").touch()  # prints may run into each other
"""


def test_two_processes_average_gradients_figures_and_flags(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    package = Path(scalefp.__file__).parents[1]
    done = subprocess.run(
        [*command, str(script)],
        env={**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("agrees-*")} == {"agrees-0", "agrees-1"}


# Device.


@pytest.mark.parametrize(
    ("asked", "has_cuda", "gets"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_the_device_is_the_one_asked_for_or_the_best_there_is(monkeypatch, asked, has_cuda, gets):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert pick_device(RunConfig(device=asked)).type == gets


def test_cuda_where_there_is_none_is_a_user_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="cuda"):
        pick_device(RunConfig(device="cuda"))
