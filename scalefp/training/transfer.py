"""What a training hands to its device in every step, without waiting for it."""

import torch
from torch import Tensor


def staged(values: Tensor, device: torch.device) -> Tensor:
    """Values of the host, where a ``non_blocking`` copy to the device may take its time.

    From ordinary memory CUDA may first wait for all that was launched, and so would the host, in
    every step. From pinned memory it copies when it gets there. The memory may be let go at once:
    PyTorch keeps it until the copy is done.
    """
    return values.pin_memory() if device.type == "cuda" else values
