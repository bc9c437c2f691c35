"""The training of a small network that tells images apart, the same for every one of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.training.precision import computing_in, measured_precision

BATCH = 64  # images of one step
SETTLING = 16  # batches after training

Batch = tuple[Tensor, Tensor]  # images [BATCH, 3, s, s] in [-1, 1], and what should be said


def computing(device: torch.device) -> AbstractContextManager[object]:
    """Within this, layers compute in bfloat16 where that is faster."""
    return computing_in(measured_precision(device.type), device)


@torch.no_grad()
def settle(network: nn.Module, draw: Callable[[], Batch]) -> None:
    """Switch to judging, with means and variances of the final weights: a short training moves
    faster than their running averages follow."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average from now on
    for _ in range(SETTLING):
        network(draw()[0])
    network.eval()


def fit(
    network: nn.Module,
    draw: Callable[[], Batch],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    images: int,
    title: str,
) -> None:
    """Train on so many images, with Adam and one cycle of the learning rate; then settle.

    Args:
        draw: the next batch.
        loss: of the network's logits and what should be said.
        images: repetitions counted.
        title: of the progress bar.
    """
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-3)
    steps = max(2, images // BATCH)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    with tqdm(range(steps), title, unit="step", delay=2, leave=False) as bar:
        for _ in bar:
            batch, answers = draw()
            value = loss(network(batch), answers)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            rates.step()
            bar.set_postfix_str(f"loss {value.item():.3f}")
    settle(network, draw)
