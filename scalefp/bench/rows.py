"""Timing, and the rows of the table.

Whatever is compared is interleaved: a round of each in turn, so that they share what varies.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

Row = dict[str, Any]
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


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and number of repeated values."""
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {"median": statistics.median(values), "low": low, "high": high, "repeats": len(values)}


def row(
    what: str,
    unit: str,
    values: Sequence[float],
    *,
    beside: tuple[str, Sequence[float]] | None = None,
    target: str = "",
) -> Row:
    """A figure, and what stands beside it.

    Args:
        what: what was measured.
        unit: of the values and of those beside.
        values: repeated measurements.
        beside: name and measurements of the peer or limit.
        target: for the ratio of the medians, value : beside, such as ">= 4".
    """
    made: Row = {"what": what, "unit": unit, **spread(values), "target": target}
    if beside is not None:
        name, others = beside
        made["beside"] = {"what": name, **spread(others)}
        made["ratio"] = made["median"] / made["beside"]["median"]
    return made


def matrix_rate(precision: torch.dtype, size: int = 1024, repeats: int = 7) -> float:
    """FLOP/s of square matrix products: what the hardware gives to anybody."""
    a, b = torch.randn(2, size, size).to(precision)
    (seconds,) = interleaved([lambda: a @ b], repeats)
    return 2 * size**3 / statistics.median(seconds)
