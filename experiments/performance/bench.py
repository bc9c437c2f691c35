"""How fast, and in how much memory: a Markdown table on stdout.

    python experiments/performance/bench.py [--out experiments/performance]

Every measurement runs in a fresh process (measurements.py), with one thread unless --threads says
otherwise. This process imports no torch: on Linux a child inherits the peak of its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scalefp.files import atomic_path

HERE = Path(__file__).parent
TITLES = {
    "nothing": "imports and a loaded release",
    "train_tiny": "training, tiny",
    "train_release": "training, release",
    "instantiate": "instantiate",
    "sample": "instance and parent",
    "onnx": "ONNX Runtime",
    "decode": "decode",
    "attribute": "attribute",
}


class MeasurementError(Exception):
    """A measurement ended with this exit status, having said why."""


def measure(name: str, model: str, threads: int) -> dict[str, Any]:
    """Run one measurement; its rows, peak of memory and environment."""
    command = [sys.executable, str(HERE / "measurements.py"), name]
    command += ["--model", model, "--threads", str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True)
    if done.returncode:
        raise MeasurementError(done.returncode)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:#.3g}".rstrip(".")


def markdown(results: dict[str, Any]) -> str:
    """Speed and memory as two tables, with what they were measured on."""
    environment = results["environment"]
    lines = [
        f"{results['date']}, {environment['hardware']}, Python {environment['python']}, "
        f"torch {environment['torch']}, release `{results['model']}`; "
        f"load of the machine {environment['load']:.1f} at the start.",
        "",
        "| what | median | unit | quartiles | repeats |",
        "| --- | ---: | --- | --- | ---: |",
    ]
    for part in results["measurements"].values():
        for row in part["rows"]:
            spread = f"{figure(row['low'])} to {figure(row['high'])}" if row["repeats"] > 1 else ""
            lines.append(
                f"| {row['what']} | {figure(row['median'])} | {row['unit']} | {spread} "
                f"| {row['repeats']} |"
            )
    lines += ["", "| process | peak memory, MiB |", "| --- | ---: |"]
    for name, part in results["measurements"].items():
        lines.append(f"| {TITLES[name]} | {part['peak_mib']:,.0f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Speed and memory, as a Markdown table.")
    parser.add_argument("--model", default="emoji", help="bundled name or release file")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--only", nargs="+", choices=TITLES, help="some of the measurements")
    parser.add_argument("--out", type=Path, help="folder for results.json and table.md")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error("--threads must be at least 1")
    if options.out is not None and not options.out.is_dir():
        parser.error(f"--out {options.out} is not a folder")
    parts: dict[str, Any] = {}
    for name in options.only or TITLES:
        print(f"bench: {TITLES[name]}", file=sys.stderr, flush=True)
        try:
            parts[name] = measure(name, options.model, options.threads)
        except MeasurementError as error:
            print(f"bench: the measurement {name} failed", file=sys.stderr)
            return int(error.args[0])
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        # A path says nothing to other readers, and may name a private folder.
        "model": Path(options.model).name,
        "threads": options.threads,
        "environment": next(iter(parts.values()))["environment"],
        "measurements": {
            name: {"rows": part["rows"], "peak_mib": part["peak_mib"]}
            for name, part in parts.items()
        },
    }
    print(markdown(results), end="")
    if options.out is not None:
        texts = {
            "results.json": json.dumps(results, indent=1) + "\n",
            "table.md": markdown(results),
        }
        for name, text in texts.items():
            with atomic_path(options.out / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
