"""``scalefp bench``: all measurements, one table. Imports no torch: a child inherits the peak of
its parent's memory on Linux."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scalefp.bench.rows import Row, row, table
from scalefp.errors import UserError
from scalefp.experiment import markdown_table, write_json, write_page

SPEED = ("train32", "train64", "train128", "reference", "instantiate", "sample", "decode")
MEMORY = {
    "nothing": "imports and a loaded release",
    "train32": "training step, 32 px, batch 16",
    "textbook32": "the textbook's, 32 px",
    "train64": "training step, 64 px, batch 16",
    "textbook64": "the textbook's, 64 px",
    "train128": "training step, 128 px, batch 8",
    "textbook128": "the textbook's, 128 px",
    "instantiate": "instantiate",
    "sample": "sample 32 images of an instance",
    "parent": "32 images of the parent",
    "decode": "decode 32 images",
}
GPU = ("gpu32", "gpu64", "gpu128", "gpu256", "gpu-use")
SCALING = "scaling"  # torchrun
NAMES = (*SPEED, SCALING, *(name for name in MEMORY if name not in SPEED))
PROFILED = ("train32", "train64", "train128", "instantiate", "sample", "parent", "decode")
STEPS, WARM_UP = 16, 4  # of the training by torchrun; 16 in a row hold one with R1


def work(kind: str, name: str, model: str, threads: int, folder: Path) -> dict[str, Any]:
    """Run one measurement in a process of its own; its rows, peak of memory and environment.

    Raises:
        UserError: it failed, having said why.
    """
    command = [sys.executable, "-m", "scalefp.bench.worker", kind, name]
    command += ["--model", model, "--threads", str(threads), "--folder", str(folder)]
    # The profiler would tell of its beginning and end.
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "KINETO_LOG_LEVEL": "5"}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True)
    if done.returncode:
        raise UserError(f"the measurement {name} failed; what it said is above")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def training_rate(processes: int, folder: Path) -> float:
    """Images a second of the training `emoji_small` by torchrun, one thread a process."""
    images = (STEPS + WARM_UP) * 64
    run_dir = folder / f"{processes}"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "-m", "scalefp.train", "experiment=emoji_small"]
    command += [f"schedule.total_images={images}", "run.tensorboard=false", "run.device=cpu"]
    command += ["run.log_steps=1", "optimizer.batch=64", f"hydra.run.dir={run_dir}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, text=True
    )
    if done.returncode:
        raise UserError(f"the training by torchrun failed: {done.stderr[-2000:]}")
    lines = (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()
    speeds: list[float] = [json.loads(line)["images_per_second"] for line in lines][WARM_UP:]
    return len(speeds) / sum(1 / speed for speed in speeds)  # over the whole time


def measure_scaling(folder: Path) -> list[Row]:
    """The same training on one process and on two, one thread each."""
    one, two = ([training_rate(processes, folder)] for processes in (1, 2))
    what = "training, experiment=emoji_small, batch 64"
    first = row(f"{what}, 1 process", "img/s", one)
    return [first, row(f"{what}, 2 processes", "img/s", two, beside=("1 process", one))]


# The page.


def markdown(results: dict[str, Any]) -> str:
    """All figures as tables, with what they were measured on."""
    environment = results["environment"]
    lines = [
        f"{results['date']}, {environment['hardware'].partition(', ')[0]}, Python "
        f"{environment['python']}, torch {environment['torch']}, release `{results['model']}`; "
        f"load of the machine {environment['load']:.1f} at the start.",
    ]
    for threads, parts in results["speed"].items():
        lines += ["", f"{threads} thread{'s' if threads != '1' else ''}:", ""]
        lines.append(table([Row.from_json(made) for rows in parts.values() for made in rows]))
    if results["scaling"]:
        lines += [
            "",
            "Processes of one thread each:",
            "",
            table([*map(Row.from_json, results["scaling"])]),
        ]
    if results["memory"]:
        peaks = [[MEMORY[name], f"{peak:,.0f}"] for name, peak in results["memory"].items()]
        head = ["process, 1 thread", "peak memory, MiB"]
        lines += ["", markdown_table(head, peaks, right={1})]
    for extra in results["extra"].values():
        lines += ["", extra["markdown"].rstrip()]
    return "\n".join(lines) + "\n"


def say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)


def bench(
    model: str,
    threads: Sequence[int],
    only: Sequence[str] = (),
    extra: dict[str, Callable[[], dict[str, Any]]] | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """All measurements, or those named in ``only``.

    Args:
        model: bundled name or release file.
        threads: numbers of threads to measure speed with, each in turn.
        only: names of ``NAMES``; all when empty.
        device: cuda measures those of ``GPU`` alone.
        extra: further measurements by title: each gives figures, their table under ``markdown``.

    Returns:
        date, model, environment, speed {threads: {name: rows}}, scaling rows, memory {name: MiB}
        and extra {name: figures}.
    """
    chosen = only or (NAMES if device == "cpu" else GPU)
    speed: dict[str, dict[str, list[dict[str, Any]]]] = {}
    memory: dict[str, float] = {}
    scaling: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        # A child loads the release, since this process imports no torch. It tells what is measured
        # on, and of a release that is none before hours of measuring.
        first = work("memory", "nothing", model, 1, folder)
        for count in threads:
            for name in (name for name in (*SPEED, *GPU) if name in chosen):
                say(f"{name}, {count} threads")
                rows = work("speed", name, model, count, folder)["rows"]
                speed.setdefault(str(count), {})[name] = rows
        for name in (name for name in MEMORY if name in chosen):
            say(f"memory: {MEMORY[name]}")
            memory[name] = work("memory", name, model, 1, folder)["peak_mib"]
        if SCALING in chosen:
            say("training by torchrun, 1 and 2 processes")
            scaling = [made.to_json() for made in measure_scaling(folder)]
    extras = {}
    for title, task in ({} if only else extra or {}).items():
        say(title)
        extras[title] = task()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        # A path says nothing to other readers, and may name a private folder.
        "model": Path(model).name,
        "release": first["release"],
        "environment": first["environment"],
        "speed": speed,
        "scaling": scaling,
        "memory": memory,
        "extra": extras,
    }


def profiles(model: str, threads: int, only: Sequence[str], folder: Path) -> list[str]:
    """Profile measurements of ``PROFILED`` into ``folder``; the names of those that were."""
    names = [name for name in PROFILED if not only or name in only]
    for name in names:
        say(f"profile: {name}")
        work("profile", name, model, threads, folder)
    return names


def write(results: dict[str, Any], folder: Path) -> None:
    """results.json and table.md in ``folder``."""
    write_json(folder / "results.json", results)
    write_page(folder / "table.md", markdown(results))
