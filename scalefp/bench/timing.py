"""Timing.

Whatever is compared is interleaved: a round of each in turn, so that they share what varies.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

Task = Callable[[], Any]


def interleaved(tasks: Sequence[Task], repeats: int, warm_up: int = 2) -> list[list[float]]:
    """Seconds of each task, [task][repeat]: all tasks in turn.

    The first rounds warm up and do not count; garbage is collected between tasks, not in them.
    """
    seconds: list[list[float]] = [[] for _ in tasks]
    gc.disable()
    try:
        for _ in range(repeats + warm_up):
            for task, record in zip(tasks, seconds, strict=True):
                begun = time.perf_counter()
                kept = task()
                record.append(time.perf_counter() - begun)
                del kept  # freeing it is not part of the task
            gc.collect(0)
    finally:
        gc.enable()
    return [record[warm_up:] for record in seconds]


def rates(seconds: Sequence[float], amount: float) -> list[float]:
    """Amount a second."""
    return [amount / one for one in seconds]


def milliseconds(seconds: Sequence[float], parts: float = 1) -> list[float]:
    """Milliseconds of each of ``parts``."""
    return [1000 * one / parts for one in seconds]


def matrix_rate(precision: torch.dtype, size: int = 1024, repeats: int = 7) -> float:
    """FLOP/s of square matrix products: what the hardware gives to anybody."""
    a, b = torch.randn(2, size, size).to(precision)
    (seconds,) = interleaved([lambda: a @ b], repeats)
    return 2 * size**3 / statistics.median(seconds)
