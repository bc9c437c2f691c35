"""One measurement in a process of its own: ``python -m scalefp.bench.worker NAME`` prints JSON.

A process of its own, because the peak of memory is kept for a whole process. Called by report.py.
"""

import argparse
import json
import os
import platform
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import scalefp
from scalefp.bench import gpu, training, use
from scalefp.bench.rows import Row
from scalefp.config import RunConfig
from scalefp.experiment import hardware
from scalefp.files import atomic_path
from scalefp.loading import load_generating
from scalefp.training.distributed import pick_device
from scalefp.training.precision import pick_precision

Measurement = Callable[[str, int, Path], list[Row]]


def _ours(resolution: int) -> Callable[[str], Callable[[], Any]]:
    def make(release: str) -> Callable[[], Any]:
        config, data = training.configuration(resolution), training.noise_pictures(resolution)
        precision = pick_precision(RunConfig(), torch.device("cpu"))
        return training.Ours(config, data, precision).step

    return make


def _book(resolution: int) -> Callable[[str], Callable[[], Any]]:
    def make(release: str) -> Callable[[], Any]:
        config, data = training.configuration(resolution), training.noise_pictures(resolution)
        return training.Textbook(config, data).step

    return make


def _instance(release: str) -> Callable[[], Any]:
    model = load_generating(release)
    instance = model.instantiate(scalefp.Key.random(model.config.n_bits))
    return lambda: instance.sample(32)


def _parent(release: str) -> Callable[[], Any]:
    model = load_generating(release)
    parent = use.parent_of(model)
    z = use.inputs_of(model.instantiate(scalefp.Key.random(model.config.n_bits)), 32)
    bits = torch.randint(0, 2, (32, model.config.n_bits))
    return torch.inference_mode()(lambda: parent(z, bits))


def _instantiate(release: str) -> Callable[[], Any]:
    model = load_generating(release)
    return lambda: model.instantiate(scalefp.Key.random(model.config.n_bits))


def _decode(release: str) -> Callable[[], Any]:
    model = load_generating(release)
    pixels = use.clear_pictures(model, 32)
    return lambda: model.decode(pixels)


def _nothing(release: str) -> Callable[[], Any]:
    load_generating(release)
    return lambda: None


def _training(resolution: int) -> Measurement:
    return lambda release, threads, scratch: training.measure(resolution)


def _cuda() -> torch.device:
    return pick_device(RunConfig(device="cuda"))


def _on_gpu(resolution: int) -> Measurement:
    return lambda release, threads, scratch: gpu.measure_step(resolution, _cuda())


SPEED: dict[str, Measurement] = {
    **{f"train{size}": _training(size) for size in training.BATCH},
    "reference": lambda release, threads, scratch: training.phases(),
    "instantiate": use.measure_instantiate,
    "sample": use.measure_sample,
    "decode": use.measure_decode,
}
SPEED |= {f"gpu{size}": _on_gpu(size) for size in gpu.BATCH}
SPEED["gpu-use"] = lambda release, threads, scratch: gpu.measure_use(release, _cuda())
# What is run twice in a process of its own for its peak of memory, or under the profiler.
ALONE: dict[str, Callable[[str], Callable[[], Any]]] = {
    "nothing": _nothing,
    **{f"train{size}": _ours(size) for size in training.BATCH},
    **{f"textbook{size}": _book(size) for size in training.BATCH},
    "instantiate": _instantiate,
    "sample": _instance,
    "parent": _parent,
    "decode": _decode,
}


def peak_mebibytes() -> float:
    """Largest resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB on Linux


def write_profile(name: str, task: Callable[[], Any], folder: Path) -> None:
    """The operations of three runs: a table in NAME.txt, a trace for the browser in NAME.json."""
    task()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        for _ in range(3):
            task()
    table = profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=40)
    with atomic_path(folder / f"{name}.txt", durable=False) as temporary:
        temporary.write_text(table, encoding="utf-8")
    with atomic_path(folder / f"{name}.json", durable=False) as temporary:
        profiler.export_chrome_trace(str(temporary))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("speed", "memory", "profile"))
    parser.add_argument("name", choices=SPEED.keys() | ALONE.keys())
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    try:
        if options.kind == "speed":
            rows = SPEED[options.name](options.model, options.threads, options.folder)
        else:
            task = ALONE[options.name](options.model)
            for _ in range(2):
                task()
            if options.kind == "profile":
                write_profile(options.name, task, options.folder)
    except scalefp.UserError as error:
        print(f"scalefp: {error}", file=sys.stderr)
        return 2
    environment = {
        "hardware": hardware(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }
    answer = {
        "rows": [made.to_json() for made in rows],
        "peak_mib": peak_mebibytes(),
        "environment": environment,
        "release": load_generating(options.model).digest,  # after the peak, to which it adds
    }
    # Not the only line: libraries may write to stdout as well, and the last one is ours.
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
