"""``scalefp bench`` as a subcommand. Imports no torch, as all that answers ``--help``."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scalefp.bench import report
from scalefp.cli.arguments import add_command, threads
from scalefp.cli.output import OK, write
from scalefp.cli.outputs import check_out, is_json
from scalefp.errors import UserError
from scalefp.files import printable

Extra = dict[str, Callable[[], dict[str, Any]]]


def all_threads() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_bench_command(to: Any) -> None:
    """``scalefp bench`` and its options."""
    parser = add_command(
        to, "bench", run, "measure speed and memory, each figure beside a peer or a limit",
        "scalefp bench --only sample decode\n  scalefp bench --profile profiles --only train64",
    )  # fmt: skip
    parser.add_argument("--model", default="emoji", help="release (default: emoji)")
    parser.add_argument(
        "--threads", type=threads, nargs="+", metavar="N",
        help="numbers of CPU threads, one table each (default: 1 and all)",
    )  # fmt: skip
    parser.add_argument(
        "--only", nargs="+", choices=(*report.NAMES, *report.GPU), default=[], metavar="NAME",
        help=f"some of the measurements: {', '.join(report.NAMES)}; with --device cuda "
        f"{', '.join(report.GPU)}",
    )  # fmt: skip
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu",
        help="cuda: training steps, instances and decoding on a GPU, in some minutes",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="write results.json, table.md")
    parser.add_argument("--force", action="store_true", help="overwrite results in --out")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR",
        help="write profiles by torch.profiler, and no table",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace, extra: Extra | None = None) -> int:
    """Measure and print; ``extra`` as for :func:`scalefp.bench.report.bench`."""
    for folder in (args.out, args.profile):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{folder} is not a folder: make it first")
    if args.out is not None:
        check_out(args.out / "results.json", "the results of a run", is_json, force=args.force)
    known = report.GPU if args.device == "cuda" else report.NAMES
    for name in args.only:
        if name not in known:
            raise UserError(f"{name} is none of --device {args.device}: {', '.join(known)}")
    # A GPU has one table, whatever the threads of its host.
    numbers = args.threads or ([1] if args.device == "cuda" else sorted({1, all_threads()}))
    if args.profile is not None:
        names = report.profiles(args.model, numbers[0], args.only, args.profile)
        write("".join(f"{printable(args.profile / name)}.txt\n" for name in names))
        return OK
    results = report.bench(args.model, numbers, args.only, extra, args.device)
    if args.out is not None:
        report.write(results, args.out)
    write(json.dumps(results, indent=1) if args.json else report.markdown(results))
    return OK
