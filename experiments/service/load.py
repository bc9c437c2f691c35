"""What the service stands: images a second, waiting times, memory, on two cores.

    python experiments/service/load.py [--out experiments/service]

Starts `scalefp serve` on a free port of 127.0.0.1, sends a counted number of requests and stops it
again; a few minutes in all. Clients and service share the two cores. Every answer is checked: the
right holder, for every image.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import platform
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import scalefp
from scalefp.data.images import to_pil
from scalefp.experiment import Experiment, markdown_table, new_figure
from scalefp.loading import load_model

CORES = 2
ISSUED = 1000
BOUNDARY = "load-test"


@dataclass(frozen=True)
class Run:
    """One way of asking."""

    name: str
    what: str
    requests: int
    in_flight: int
    images: int  # a request
    kind: str  # of SAMPLES


RUNS = (
    Run("single", "one PNG file of the release, 64 x 64", 1000, 16, 1, "png"),
    Run("alone", "the same, one request after the other", 200, 1, 1, "png"),
    Run("batch", "16 such files in a request", 100, 4, 16, "png"),
    Run("photo", "one JPEG file of 12 megapixels", 60, 4, 1, "photo"),
)


def samples(model: scalefp.Model, registry: scalefp.Registry) -> dict[str, bytes]:
    """Files of one recipient's image: as it was made, and enlarged to a photograph's size."""
    keys = registry.issue_many([f"recipient-{number}" for number in range(ISSUED)], model)
    (image,) = to_pil(model.instantiate(keys[0]).sample(1, seed=1))
    files = {}
    for name, picture, kind in (
        ("png", image, "PNG"),
        ("photo", image.resize((3464, 3464), Image.Resampling.BICUBIC), "JPEG"),
    ):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        files[name] = buffer.getvalue()
    return files


def body_of(data: bytes, images: int) -> bytes:
    """``images`` copies of a file as multipart/form-data."""
    head = 'Content-Disposition: form-data; name="images"; filename="image"'
    part = f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + data + b"\r\n"
    return part * images + f"--{BOUNDARY}--\r\n".encode()


# The service, as a process.


@contextmanager
def serving(folder: Path, model: str) -> Iterator[tuple[int, int]]:
    """Its process and port; stopped at the end."""
    command = [sys.executable, "-m", "scalefp.cli", "serve", "--model", model, "--port", "0"]
    command += ["--registry", str(folder / "keys.db"), "--workers", str(CORES)]
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError((folder / "serve.log").read_text())
            yield process.pid, int(url.rpartition(":")[2])
        finally:
            process.terminate()
            process.wait(timeout=60)


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def processor_seconds(pids: Sequence[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mib(pids: Sequence[int]) -> float:
    """Memory of these processes; what they share is counted once."""
    kib = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


# Asking.


def ask(
    port: int, body: bytes, todo: queue.SimpleQueue[int], seen: list[tuple[str, float]]
) -> None:
    """One client: requests over one connection until there is nothing to do."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    while True:
        try:
            todo.get_nowait()
        except queue.Empty:
            connection.close()
            return
        begun = time.perf_counter()
        try:
            connection.request("POST", "/attribute", body, headers)
            response = connection.getresponse()
            entries = json.load(response)
            outcome = str(response.status)
            if response.status == 200:
                named = [[one["holder"] for one in entry["attributed"]] for entry in entries]
                outcome = "right" if all(one == ["recipient-0"] for one in named) else "wrong"
        except (OSError, http.client.HTTPException, ValueError) as error:
            outcome = type(error).__name__
            connection.close()
        seen.append((outcome, time.perf_counter() - begun))


def send(run: Run, port: int, body: bytes, requests: int) -> tuple[list[tuple[str, float]], float]:
    """All requests of a run: outcomes with seconds, and the seconds of all together."""
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(requests):
        todo.put(number)
    seen: list[tuple[str, float]] = []
    clients = [
        threading.Thread(target=ask, args=(port, body, todo, seen)) for _ in range(run.in_flight)
    ]
    begun = time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return seen, time.perf_counter() - begun


def measure_run(run: Run, pid: int, port: int, data: bytes) -> dict[str, Any]:
    """One run, after a short one that does not count."""
    body = body_of(data, run.images)
    send(run, port, body, 2 * run.in_flight)
    pids = tree(pid)
    load, own = os.getloadavg()[0], resource.getrusage(resource.RUSAGE_SELF)
    before, peak, done = processor_seconds(pids), memory_mib(pids), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.25):
            peak = max(peak, memory_mib(pids))

    watcher = threading.Thread(target=watch)
    watcher.start()
    seen, seconds = send(run, port, body, run.requests)
    done.set()
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_SELF)
    waits = 1000 * np.array([wait for _, wait in seen])
    n_images = run.requests * run.images
    return {
        "what": run.what,
        "requests": run.requests,
        "in_flight": run.in_flight,
        "images_a_request": run.images,
        "bytes_an_image": len(data),
        "outcomes": dict(Counter(outcome for outcome, _ in seen)),
        "seconds": seconds,
        "images_a_second": n_images / seconds,
        "wait_ms_percentiles": [float(wait) for wait in np.percentile(waits, range(101))],
        "service_processor_ms_an_image": 1000 * (processor_seconds(pids) - before) / n_images,
        "client_processor_seconds": after.ru_utime + after.ru_stime - own.ru_utime - own.ru_stime,
        "peak_mib": peak,
        "load_before": load,
    }


def markdown(results: dict[str, Any]) -> str:
    """What was asked, and how the service stood it."""
    processor = results["hardware"].partition(" (")[0]
    head = (
        f"{results['date']}, {processor}, {results['cores']} cores for service and "
        f"clients, Python {results['python']}, release `{results['model'][:16]}`, "
        f"{results['issued']:,} issued keys."
    )
    columns = ["asked for", "requests", "in flight", "failed", "images/s", "median ms"]
    columns += ["99% below ms", "processor ms an image", "peak MiB", "load before"]
    rows = []
    for run in results["runs"].values():
        failed = run["requests"] - run["outcomes"].get("right", 0)
        wait = run["wait_ms_percentiles"]
        rows.append(
            [
                run["what"],
                f"{run['requests']:,}",
                str(run["in_flight"]),
                str(failed),
                f"{run['images_a_second']:.1f}",
                f"{wait[50]:,.0f}",
                f"{wait[99]:,.0f}",
                f"{run['service_processor_ms_an_image']:.1f}",
                f"{run['peak_mib']:,.0f}",
                f"{run['load_before']:.1f}",
            ]
        )
    return f"{head}\n\n{markdown_table(columns, rows, right=range(1, len(columns)))}\n"


def plots(results: dict[str, Any]) -> dict[str, Figure]:
    """Share of the requests that were answered within a time, for every run."""
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    for run in results["runs"].values():
        label = f"{run['what']}, {run['in_flight']} in flight"
        axes.plot(run["wait_ms_percentiles"], range(101), label=label)
    axes.set(xscale="log", xlabel="milliseconds", ylabel="% answered within")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return {"waits.png": figure}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All runs against one service."""
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)  # inherited by the service
    model = load_model(options.model)
    runs = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = samples(model, scalefp.Registry(folder / "keys.db"))
        with serving(folder, options.model) as (pid, port):
            for run in RUNS:
                print(f"load: {run.what}", file=sys.stderr, flush=True)
                runs[run.name] = measure_run(run, pid, port, files[run.kind])
    return {
        "cores": len(cores),
        "python": platform.python_version(),
        "model": model.digest,
        "issued": ISSUED,
        "runs": runs,
    }


EXPERIMENT = Experiment(Path(__file__).parent, measure, markdown, plots)


def main() -> int:
    """Put load on the service, and write results, table and plot; 1 if an answer was not right."""
    parser = EXPERIMENT.parser("Put load on `scalefp serve`.", seeded=False)
    parser.add_argument("--model", default="emoji", help="bundled name or release file")
    runs = EXPERIMENT.run(parser)["runs"].values()
    return int(any(run["outcomes"].get("right", 0) != run["requests"] for run in runs))


if __name__ == "__main__":
    sys.exit(main())
