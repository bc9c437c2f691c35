"""Are captured training steps the plain ones, how fast are they, and where does the time go?

python experiments/performance/gpu_step.py --device cuda, about a minute on a GPU; on a CPU, where
nothing is captured, only to try it. Writes gpu-step.json and gpu-step.md.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from scalefp.bench.training import noise_pictures
from scalefp.config import RunConfig
from scalefp.experiment import Experiment, markdown_table
from scalefp.training.compose import compose_training
from scalefp.training.distributed import World, pick_device
from scalefp.training.precision import PRECISIONS
from scalefp.training.state import TrainingState
from scalefp.training.step import Step

COMPARED = (0, 3, 8, 16, 23)  # steps whose losses are shown
TERMS = ("adversarial", "bits", "consistency", "geometry")
SETTLING = 64  # steps until every kind has been captured
TIMED = 64  # a whole number of rounds of all kinds
PROFILED = 4
LONGEST = 12  # kernels shown
NAMED = 90  # characters of a kernel's name
# What is timed: precision and weight of the noise in weights.
SETTINGS = (("bf16", 0.0), ("bf16", 10.0), ("fp32", 10.0))
HALVED = (256, 128, 32)  # images, channels and side of the largest maps that the training halves


def waited(device: torch.device) -> None:
    """Until the device has done all."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def training_step(
    options: argparse.Namespace, precision: str, *, weight_noise: float = 0.0, captured: bool = True
) -> Step:
    """A training of its own, as it is once images meet perturbations."""
    config = compose_training(
        ["experiment=emoji", f"optimizer.batch={options.batch}", *options.overrides]
    )
    config.loss.weight_noise = weight_noise
    device = torch.device(options.device)
    state = TrainingState.build(config, device)
    state.progress.readable_at, state.progress.n_active = 0, config.model.n_bits
    data = noise_pictures(config.model.resolution, options.batch)
    world = World(0, 1, device)
    return Step(config, state, data, world, PRECISIONS[precision], captured=captured)


def taken(step: Step, steps: int) -> list[dict[str, Tensor]]:
    """The loss terms of so many steps, which may still be about to be computed."""
    found = []
    for _ in range(steps):
        found.append({name: term.clone() for name, term in step().items()})
        step.state.progress.images += step.config.optimizer.batch
    return found


def agreement(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Losses of plain and of captured steps from the same start by the same draws."""
    plain, captured = (
        taken(training_step(options, SETTINGS[0][0], captured=wanted), max(COMPARED) + 1)
        for wanted in (False, True)
    )
    return [
        {"step": n} | {name: [float(plain[n][name]), float(captured[n][name])] for name in TERMS}
        for n in COMPARED
    ]


def speed(step: Step, precision: str) -> dict[str, Any]:
    """Time of a step once all its kinds are captured."""
    device = step.world.device
    taken(step, SETTLING)
    waited(device)
    begun = time.perf_counter()
    taken(step, TIMED)
    waited(device)
    seconds = (time.perf_counter() - begun) / TIMED
    return {
        "precision": precision,
        "weight_noise": step.config.loss.weight_noise,
        "graphs": len(step.captured.graphs),
        "milliseconds": round(1000 * seconds, 2),
        "images_per_second": round(step.config.optimizer.batch / seconds),
        "gib": peak_gib(device),
    }


def peak_gib(device: torch.device) -> float | None:
    """The most memory of the GPU that was taken so far."""
    taken = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return None if taken is None else round(taken / 2**30, 2)


def kernels(step: Step) -> dict[str, Any] | None:
    """How many kernels a step runs and how long they take, and the longest; None on a CPU."""
    device = step.world.device
    if device.type != "cuda":
        return None
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, acc_events=True) as profiler:
        taken(step, PROFILED)
        waited(device)
    times: dict[str, list[float]] = {}
    for event in profiler.events() or []:
        if event.device_type == DeviceType.CUDA:
            times.setdefault(event.name, []).append(event.device_time / 1000)
    longest = sorted(times.items(), key=lambda each: -sum(each[1]))[:LONGEST]
    return {
        "count": round(sum(map(len, times.values())) / PROFILED),
        "milliseconds": round(sum(map(sum, times.values())) / PROFILED, 2),
        "longest": [
            {
                "name": name[:NAMED],
                "count": round(len(each) / PROFILED, 1),
                "milliseconds": round(sum(each) / PROFILED, 3),
            }
            for name, each in longest
        ],
    }


# What could take the place of the longest kernel.


def spread(gradient: Tensor) -> Tensor:
    """What the backward pass of halving by the mean of 2x2 does, [b, C, h, w] -> [b, C, 2h, 2w]:
    each quarter of a gradient to four places, by one copy."""
    b, channels, height, width = gradient.shape
    last = (gradient / 4).permute(0, 2, 3, 1)[:, :, None, :, None]
    wide = last.expand(b, height, 2, width, 2, channels).reshape(b, 2 * height, 2 * width, channels)
    return wide.permute(0, 3, 1, 2)


def halving(device: torch.device, shape: tuple[int, int, int], repeats: int) -> dict[str, float]:
    """Milliseconds of that backward pass as it is, and in other forms of the same."""
    images, channels, side = shape
    x = torch.ones(images, channels, side, side, device=device, dtype=torch.bfloat16)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    y = F.avg_pool2d(x, 2)
    gradient = y.detach() * 0.5
    forms: dict[str, Callable[[], Any]] = {
        "avg_pool2d": lambda: torch.autograd.grad(y, x, gradient, retain_graph=True),
        "one copy": partial(spread, gradient),
        "nearest": lambda: F.interpolate(gradient / 4, scale_factor=2, mode="nearest"),
    }
    found = {}
    for name, form in forms.items():
        form()
        waited(device)
        begun = time.perf_counter()
        for _ in range(repeats):
            form()
        waited(device)
        found[name] = round(1000 * (time.perf_counter() - begun) / repeats, 4)
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All of it; see the page."""
    device = pick_device(RunConfig(device=options.device))
    found: dict[str, Any] = {
        "batch": options.batch,
        "torch": torch.__version__,
        "agreement": agreement(options),
        "speed": [],
    }
    for precision, noise in SETTINGS:
        step = training_step(options, precision, weight_noise=noise)
        found["speed"].append(speed(step, precision))
        if (precision, noise) == SETTINGS[0]:
            found["kernels"] = kernels(step)
    return found | {"halving": halving(device, HALVED, repeats=50)}


# The page.


def agreement_table(rows: list[dict[str, Any]]) -> str:
    """Losses of plain / of captured steps."""
    lines = [
        [str(row["step"]), *(" / ".join(f"{value:.4f}" for value in row[name]) for name in TERMS)]
        for row in rows
    ]
    return markdown_table(["step", *TERMS], lines)


def speed_table(rows: list[dict[str, Any]]) -> str:
    """A line for each setting."""
    lines = [
        [
            row["precision"],
            f"{row['weight_noise']:g}",
            f"{row['graphs']}",
            f"{row['milliseconds']:.1f}",
            f"{row['images_per_second']:,}",
            "" if row["gib"] is None else f"{row['gib']:.1f}",
        ]
        for row in rows
    ]
    head = ["precision", "weight noise", "graphs", "ms a step", "images/s", "peak, GiB"]
    return markdown_table(head, lines, right=set(range(1, 6)))


def kernel_table(longest: list[dict[str, Any]]) -> str:
    """A line for each kernel."""
    lines = [
        [f"`{one['name']}`", f"{one['count']:g}", f"{one['milliseconds']:.2f}"] for one in longest
    ]
    return markdown_table(["kernel", "in a step", "ms a step"], lines, right={1, 2})


def markdown(results: dict[str, Any]) -> str:
    """What was measured."""
    parts = [
        f"{results['date']}; {results['hardware']}; torch {results['torch']}; batch "
        f"{results['batch']}; `experiment=emoji` once images meet perturbations; "
        f"`{results['command']}`.",
        results.get("note", ""),
        "Losses of plain / of captured steps, same start, same draws:",
        agreement_table(results["agreement"]),
        "Steps in a row, all kinds captured:",
        speed_table(results["speed"]),
    ]
    if (busy := results["kernels"]) is not None:
        about = f"One step in bf16 is {busy['count']:,} kernels, {busy['milliseconds']:.1f} ms."
        parts += [f"{about} The longest:", kernel_table(busy["longest"])]
    if (forms := results["halving"]) is not None:
        times = ", ".join(f"{name} {value:g}" for name, value in forms.items())
        shape = " x ".join(map(str, HALVED))
        parts.append(f"The backward pass of halving maps, {shape}, in ms: {times}.")
    return "\n\n".join(part for part in parts if part) + "\n"


EXPERIMENT = Experiment(
    folder=Path(__file__).parent,
    measure=measure,
    page=markdown,
    results_file="gpu-step.json",
    page_file="gpu-step.md",
)


def main() -> None:
    parser = EXPERIMENT.parser(__doc__, seeded=False)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("overrides", nargs="*", help="further options of the training")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
