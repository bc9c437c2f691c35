"""One measurement, in a process of its own: `python measurements.py NAME ...` prints JSON.

A process of its own, because the peak of memory is kept for a whole process. Called by bench.py.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import OmegaConf

import scalefp
from scalefp.attribution import IssuedKeys, Reading
from scalefp.config import TrainConfig, conf_dir
from scalefp.evaluate import hardware
from scalefp.images import save_png, to_pil, to_uint8
from scalefp.train import train

BATCH = 32
ISSUED = 1_000_000
Row = dict[str, Any]


# Timing.


def interleaved(tasks: Sequence[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Seconds of each task, [task][repeat]: all tasks in turn, so that they share what varies.

    The first two rounds warm up and do not count; garbage is collected between tasks, not in them.
    """
    seconds: list[list[float]] = [[] for _ in tasks]
    gc.disable()
    try:
        for _ in range(repeats + 2):
            for task, record in zip(tasks, seconds, strict=True):
                begun = time.perf_counter()
                kept = task()
                record.append(time.perf_counter() - begun)
                del kept  # freeing it is not part of the task
            gc.collect(0)
    finally:
        gc.enable()
    return [record[2:] for record in seconds]


def row(what: str, unit: str, values: Sequence[float]) -> Row:
    """Median and quartiles of repeated values."""
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {
        "what": what,
        "unit": unit,
        "median": statistics.median(values),
        "low": low,
        "high": high,
        "repeats": len(values),
    }


def ratio_row(what: str, above: Sequence[float], below: Sequence[float]) -> Row:
    """Ratio of the medians; quartiles of the ratios of interleaved pairs."""
    pairs = [a / b for a, b in zip(above, below, strict=True)]
    return row(what, "x", pairs) | {"median": statistics.median(above) / statistics.median(below)}


def rates(seconds: Sequence[float], images: int) -> list[float]:
    return [images / one for one in seconds]


def milliseconds(seconds: Sequence[float]) -> list[float]:
    return [1000 * one for one in seconds]


# Measurements: each returns its rows.


def measure_nothing(release: str, threads: int) -> list[Row]:
    """Everything imported and the release loaded: what the other peaks of memory start from."""
    scalefp.load(release)
    return []


def _measure_training(experiment: str, threads: int) -> list[Row]:
    warm_up, counted = 4, 16  # 16 steps hold one R1 update, as any 16 in a row do
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        overrides = [f"experiment={experiment}", "run.tensorboard=false", "run.device=cpu"]
        overrides += ["run.log_steps=1", f"run.threads={threads}"]
        config = OmegaConf.to_object(hydra.compose("train", overrides))
    assert isinstance(config, TrainConfig)
    config.schedule.total_images = (warm_up + counted) * config.optimizer.batch
    with tempfile.TemporaryDirectory() as folder:
        train(config, folder)
        lines = (Path(folder) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    speeds = [json.loads(line)["images_per_second"] for line in lines][warm_up:]
    what = f"training, experiment={experiment}, batch {config.optimizer.batch} (mean over steps)"
    # A median would leave out the rare, slow steps with R1.
    return [row(what, "img/s", speeds) | {"median": statistics.harmonic_mean(speeds)}]


def measure_train_tiny(release: str, threads: int) -> list[Row]:
    return _measure_training("tiny", threads)


def measure_train_release(release: str, threads: int) -> list[Row]:
    return _measure_training("emoji", threads)


def measure_instantiate(release: str, threads: int) -> list[Row]:
    """Folding a key against copying the weights that come out, and 100 recipients on end."""
    model = scalefp.load(release)
    n_bits = model.config.n_bits
    weights = model.instantiate(scalefp.Key.random(n_bits)).state_dict()
    megabytes = sum(weight.nbytes for weight in weights.values()) / 1e6

    fold, copy = interleaved(
        [
            lambda: model.instantiate(scalefp.Key.random(n_bits)),
            lambda: {name: weight.clone() for name, weight in weights.items()},
        ],
        repeats=200,
    )
    rows = [
        row("instantiate", "ms", milliseconds(fold)),
        row(f"plain copy of its weights ({megabytes:.1f} MB)", "ms", milliseconds(copy)),
        ratio_row("instantiate : plain copy", fold, copy),
    ]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        for number in range(100):
            instance = model.instantiate(scalefp.Key.random(n_bits))
            instance.save(Path(folder) / f"{number}.safetensors")
        hundred = time.perf_counter() - begun
    return [*rows, row("100 instances, each saved to its file", "s", [hundred])]


@torch.inference_mode()
def measure_sample(release: str, threads: int) -> list[Row]:
    """An instance against its parent under a fixed key."""
    model = scalefp.load(release)
    key = scalefp.Key.random(model.config.n_bits)
    instance, parent = model.instantiate(key), model.generator
    rows = []
    for batch, repeats in ((BATCH, 20), (1, 100)):
        z = torch.randn(batch, model.config.latent_dim)
        bits = torch.from_numpy(key.bits).expand(batch, -1)

        own, parents = interleaved([partial(instance, z), partial(parent, z, bits)], repeats)
        rows += [
            row(f"instance, batch {batch}", "img/s", rates(own, batch)),
            row(f"parent, batch {batch}", "img/s", rates(parents, batch)),
            ratio_row(f"speed, instance : parent, batch {batch}", parents, own),
        ]
    return rows


def measure_onnx(release: str, threads: int) -> list[Row]:
    """The exported instance under ONNX Runtime; no rows where it is not installed."""
    if not (importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript")):
        print("bench: ONNX is not installed and left out", file=sys.stderr)
        return []
    import onnxruntime

    model = scalefp.load(release)
    instance = model.instantiate(scalefp.Key.random(model.config.n_bits))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instance.onnx"
        instance.export(path, format="onnx")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rows = []
    for batch, repeats in ((BATCH, 20), (1, 100)):
        inputs = {"z": torch.randn(batch, model.config.latent_dim).numpy()}
        (seconds,) = interleaved([partial(session.run, None, inputs)], repeats)
        rows.append(row(f"instance by ONNX Runtime, batch {batch}", "img/s", rates(seconds, batch)))
    return rows


def measure_decode(release: str, threads: int) -> list[Row]:
    """From pixels in memory, from files, and the wait for a single file."""
    model = scalefp.load(release)
    images = model.instantiate(scalefp.Key.random(model.config.n_bits)).sample(BATCH)
    pixels = to_uint8(images)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.png" for number in range(BATCH)]
        for file, image in zip(files, to_pil(pixels), strict=True):
            save_png(file, image)
        memory, disk = interleaved([lambda: model.decode(pixels), lambda: model.decode(files)], 20)
        (single,) = interleaved([lambda: model.decode(files[0]).key], 100)
    return [
        row(f"decode, batch {BATCH}, from memory", "img/s", rates(memory, BATCH)),
        row(f"decode, batch {BATCH}, from PNG files", "img/s", rates(disk, BATCH)),
        row("decode one PNG file, to its key", "ms", milliseconds(single)),
    ]


class _Issued:
    """Keys in memory, as a registry holds them after its first use."""

    def __init__(self, n_bits: int, issued: IssuedKeys) -> None:
        self.n_bits, self.model_digest, self._issued = n_bits, None, issued

    def keys_and_holders(self) -> IssuedKeys:
        return self._issued


def measure_attribute(release: str, threads: int) -> list[Row]:
    """One reading among a million issued keys; no network is involved."""
    n_bits, draw = scalefp.load(release).config.n_bits, np.random.default_rng(0)
    bits = draw.integers(0, 2, (ISSUED, n_bits), np.uint8)
    packed = np.packbits(bits, axis=1)
    reading = Reading(logits=2.0 * bits[ISSUED // 2, None] - 1)
    del bits
    holders = [f"holder {number}" for number in range(ISSUED)]
    registry = _Issued(n_bits, IssuedKeys(packed, holders, np.zeros(ISSUED, np.bool_)))
    (seconds,) = interleaved([lambda: scalefp.attribute(reading, registry)], 30)
    return [row(f"attribute one reading among {ISSUED:,} keys", "ms", milliseconds(seconds))]


MEASUREMENTS: dict[str, Callable[[str, int], list[Row]]] = {
    "nothing": measure_nothing,
    "train_tiny": measure_train_tiny,
    "train_release": measure_train_release,
    "instantiate": measure_instantiate,
    "sample": measure_sample,
    "onnx": measure_onnx,
    "decode": measure_decode,
    "attribute": measure_attribute,
}


def peak_mebibytes() -> float:
    """Largest resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB on Linux


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=MEASUREMENTS)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        rows = MEASUREMENTS[options.name](options.model, options.threads)
    except scalefp.UserError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    # Not by print: libraries may write to stdout as well, and the last line is ours.
    environment = {
        "hardware": hardware(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }
    answer = {"rows": rows, "peak_mib": peak_mebibytes(), "environment": environment}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
