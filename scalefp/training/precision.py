"""In which precision a training computes: bfloat16 where it is faster.

On a CPU that is measured, since some only emulate it. On a GPU the same probe measures how long
kernels take to be launched, not to compute: on an H200 it chose float32, in which the training of
`experiment=emoji` took 32.6 ms a step, where its step takes 26.3 in bfloat16. So a GPU is asked.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
import torch.nn.functional as F

from scalefp.config import ComputeConfig

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
GAIN = 0.8  # share of float32's time below which bfloat16 is worth its rounding
REPEATS = 5  # of the probe in each precision
HOPELESS = 2.0  # times float32's time: where bfloat16 is only emulated, one try tells

Computing = Callable[[], AbstractContextManager[object]]  # computing_in, for one training
Measure = Callable[[torch.dtype, torch.device], float]


def computing_in(precision: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Within this, networks compute in that precision; their weights stay float32."""
    if precision == torch.float32:
        return nullcontext()
    # Weights in that precision are not kept from one use to the next where a step is captured.
    return torch.autocast(device.type, precision, cache_enabled=device.type != "cuda")


def probe(precision: torch.dtype, device: torch.device) -> float:
    """Seconds of one small convolution of the kind that training consists of, and its gradients."""
    wide = torch.channels_last
    x = torch.ones(4, 64, 16, 16, device=device).to(memory_format=wide).requires_grad_()
    weight = torch.ones(64, 64, 3, 3, device=device).to(memory_format=wide).requires_grad_()
    _wait(device)
    begun = time.perf_counter()
    with computing_in(precision, device):
        y = F.conv2d(x, weight, padding=1)
    torch.autograd.grad(y.float().sum(), (x, weight))
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def faster_precision(device: torch.device, measure: Measure = probe) -> torch.dtype:
    """bfloat16 if a step takes clearly less time in it on this hardware, else float32.

    Args:
        measure: seconds of some work in a precision, on a CPU.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    times: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(1 + REPEATS):  # the first to warm up; turn by turn, since the load changes
        for precision, seconds in times.items():
            seconds.append(measure(precision, device))
        if min(times[torch.bfloat16]) > HOPELESS * max(times[torch.float32]):
            return torch.float32
    single, half = (statistics.median(seconds[1:]) for seconds in times.values())
    return torch.bfloat16 if half < GAIN * single else torch.float32


@cache
def measured_precision(device_type: str) -> torch.dtype:
    """As :func:`faster_precision`, measured once a process."""
    return faster_precision(torch.device(device_type))


def pick_precision(
    run: ComputeConfig, device: torch.device, begun: str | None = None
) -> torch.dtype:
    """The precision that `run.precision` names.

    Args:
        run: where it is fp32, bf16, or auto for the faster one.
        begun: what a training that goes on has computed in so far, which auto keeps.
    """
    name = begun if run.precision == "auto" and begun is not None else run.precision
    return measured_precision(device.type) if name == "auto" else PRECISIONS[name]


def precision_name(precision: torch.dtype) -> str:
    """The name by which options call it."""
    return next(name for name, known in PRECISIONS.items() if known == precision)
