"""How many images a second does `scalefp scan` read, in how much memory, and what does a kill cost?

    python experiments/scanning/scan_bench.py

writes results.json and table.md beside this file. Images of a copy, which read as they are, and
pictures of the data, which no copy made and which are searched, are scanned by one worker and by
two; more of them, to see whether memory grows; and once a worker is killed on the way.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pyarrow import parquet

from scalefp.data.images import save_png, to_pil, to_uint8
from scalefp.data.source import Source, resolve_source
from scalefp.experiment import Experiment, made, markdown_table
from scalefp.loading import load_model
from scalefp.registry.registry import Registry

HOLDERS, SHARD = 1000, 100  # issued keys; images a worker takes at a time
LOOK = 0.5  # seconds between looks at memory
CRAWL = 10**9  # images of the estimate


def write_images(folder: Path, model: str, registry: Path, count: int, seed: int) -> None:
    """``count`` images of a copy into ``folder``/own, as many of the data into /unrelated."""
    release, keys = load_model(model), Registry(registry)
    keys.issue_many([f"recipient-{n}" for n in range(HOLDERS)], model=release)
    instance = release.instantiate(keys.find("recipient-7"))
    z = torch.randn(count, release.config.latent_dim, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        drawn = torch.cat([to_uint8(instance(part)) for part in z.split(32)])
    data = Source(resolve_source("emoji64"))
    (folder / "own").mkdir()
    (folder / "unrelated").mkdir()
    for n, picture in enumerate(to_pil(drawn)):
        save_png(folder / "own" / f"{n:05d}.png", picture)
        save_png(folder / "unrelated" / f"{n:05d}.png", data.read(n))


def processes(root: int) -> Iterator[int]:
    """A process and all that it began, and those these began."""
    yield root
    children = Path(f"/proc/{root}/task/{root}/children")
    for child in children.read_text().split() if children.exists() else []:
        yield from processes(int(child))


def megabytes(root: int) -> float:
    """Memory of a process and its children, what they share counted once (PSS)."""
    total = 0
    for one in processes(root):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def scan(
    images: Path, model: str, registry: Path, workers: int, watch: Callable[[int, Path], object]
) -> dict[str, Any]:
    """One scan by the command, and what it left; ``watch`` sees its process and its folder."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "scanned"
        command = [sys.executable, "-m", "scalefp", "scan", str(images), "--model", model]
        command += ["--registry", str(registry), "--out", str(out), "--shard", str(SHARD)]
        begun, most = time.perf_counter(), 0.0
        command += ["--workers", str(workers)]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        while process.poll() is None:
            most = max(most, megabytes(process.pid))
            watch(process.pid, out)
            time.sleep(LOOK)
        seconds = time.perf_counter() - begun
        rows = parquet.read_table(out / "shards").to_pylist()
    verdicts = sorted((row["path"], row["verdict"], row["holder"]) for row in rows)
    return {
        "seconds": seconds, "images": len(rows), "megabytes": most, "verdicts": verdicts,
        "attributed": sum(row["verdict"] == "attributed" for row in rows),
    }  # fmt: skip


class Killer:
    """Kills one worker, once, after the first shard is done."""

    killed = False

    def __call__(self, process: int, out: Path) -> None:
        workers = [one for one in processes(process) if one != process]
        if not self.killed and workers and any((out / "shards").glob("*.parquet")):
            os.kill(workers[-1], signal.SIGKILL)
            self.killed = True


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Scans of both kinds of images by one and two workers, of fewer, and with a kill."""
    with tempfile.TemporaryDirectory() as place:
        folder, registry = Path(place), Path(place) / "keys.db"
        write_images(folder, options.model, registry, options.images, options.seed)
        few = folder / "few"
        few.mkdir()
        for path in sorted((folder / "own").iterdir())[: options.images // 4]:
            (few / path.name).hardlink_to(path)

        def run(kind: str, workers: int, watch: Callable[[int, Path], object]) -> dict[str, Any]:
            return scan(folder / kind, options.model, registry, workers, watch)

        rows = []
        for kind in ("few", "own", "unrelated"):
            for workers in (1, 2):
                found = run(kind, workers, lambda *_: None)
                rows.append({"kind": kind, "workers": workers, **found})
        killer = Killer()
        killed = run("own", 2, killer)
    undisturbed = next(row for row in rows if (row["kind"], row["workers"]) == ("own", 2))
    same = killed["verdicts"] == undisturbed["verdicts"]
    for row in (*rows, killed):
        del row["verdicts"]
    return {
        "rows": rows, "killed": {**killed, "worker_killed": killer.killed, "same_verdicts": same},
        "holders": HOLDERS, "shard": SHARD, "seed": options.seed, "model": options.model,
        "dollars_a_core_hour": options.price,
    }  # fmt: skip


NAMES = {"few": "of a copy, a quarter as many", "own": "of a copy", "unrelated": "of no copy"}


def steady(rows: Sequence[Mapping[str, Any]], workers: int) -> float:
    """Images of a copy a second beyond the start of the processes, from two lengths."""
    few, many = (
        next(row for row in rows if (row["kind"], row["workers"]) == (kind, workers))
        for kind in ("few", "own")
    )
    return float((many["images"] - few["images"]) / (many["seconds"] - few["seconds"]))


def page(results: Mapping[str, Any]) -> str:
    """The table, what a kill cost, and an estimate for a crawl."""
    cells = [
        [NAMES[row["kind"]], str(row["workers"]), str(row["images"]), f"{row['seconds']:.1f} s",
         f"{row['images'] / row['seconds']:.1f}", f"{row['megabytes']:.0f} MB",
         str(row["attributed"])]
        for row in results["rows"]
    ]  # fmt: skip
    head = ["images", "workers", "how many", "time", "images/s", "memory at most", "attributed"]
    killed, one = results["killed"], steady(results["rows"], 1)
    slow = next(r for r in results["rows"] if (r["kind"], r["workers"]) == ("unrelated", 1))
    estimates = []
    for what, rate in (("read as they are", one), ("searched", slow["images"] / slow["seconds"])):
        hours = CRAWL / rate / 3600
        cost = hours * results["dollars_a_core_hour"]
        estimates.append(
            f"- {what}: {rate:.1f} images/s a core, {hours:,.0f} core hours, "
            f"{hours / 1000:,.0f} hours of 1,000 cores, {cost:,.0f} dollars"
        )
    lost = "none is lost" if killed["same_verdicts"] else "**verdicts differ**"
    return "\n".join([
        markdown_table(head, cells), "",
        f"{results['holders']:,} issued keys, shards of {results['shard']} images, 64x64 PNG; "
        "time with the start of all processes, memory of all processes together (PSS).", "",
        f"One of two workers killed after its first shard: {killed['images']} rows in "
        f"{killed['seconds']:.1f} s, {lost}.", "",
        f"On paper, 10^9 images at {results['dollars_a_core_hour']} dollars a core hour, from the "
        "rates of one worker:", "",
        *estimates, "", made(results), "",
    ])  # fmt: skip


EXPERIMENT = Experiment(Path(__file__).parent, measure, page)


def main() -> None:
    """Measure, and write results and table."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", default="emoji", help="bundled name or path of a release")
    parser.add_argument("--images", type=int, default=1200, help="of each kind")
    parser.add_argument("--price", type=float, default=0.04, help="dollars a core hour, assumed")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
