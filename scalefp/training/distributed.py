"""Where a training computes: its device, and the processes that share the work.

Data-parallel training uses plain ``torch.distributed`` (gloo on CPU, nccl on CUDA).

Started by ``torchrun``; a single process needs nothing of this and every call is then free.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scalefp.config import ComputeConfig
from scalefp.errors import UserError


def pick_device(run: ComputeConfig) -> torch.device:
    """The device that `run.device` names.

    Raises:
        UserError: CUDA is asked for and there is none.
    """
    if run.device == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device=cuda, but this machine has no usable CUDA device.")
    name = run.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@dataclass(frozen=True)
class World:
    """The processes of one training: who I am, how many we are, where I compute."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def average(self, values: Tensor) -> Tensor:
        """Mean over the processes of a tensor that each holds."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def average_terms(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """Mean over the processes of named scalars that each holds."""
        means = self.average(torch.stack([term.detach().float() for term in terms.values()]))
        return dict(zip(terms, means.tolist(), strict=True))

    def average_gradients(self, module: nn.Module) -> None:
        """Mean over the processes of all gradients of ``module``, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = self.average(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def any(self, flags: Iterable[bool]) -> list[bool]:
        """For each flag whether any process raised it."""
        if self.size == 1:
            return list(flags)
        values = torch.tensor([float(flag) for flag in flags], device=self.device)
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return [bool(value) for value in values.tolist()]

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Undo :func:`join`."""
        if self.size > 1:
            dist.destroy_process_group()


def world_size() -> int:
    """Number of processes of the training that ``torchrun`` started; 1 alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes the files, also before it has joined the others."""
    return int(os.environ.get("RANK", "0")) == 0


def join(device: torch.device) -> World:
    """Join the training that ``torchrun`` started, or stand alone."""
    size = world_size()
    if size == 1:
        return World(0, 1, device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(dist.get_rank(), size, device)
