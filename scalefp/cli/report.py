"""``scalefp report``: one table of all jobs of a sweep, once or again and again while it runs."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from scalefp.cli.arguments import add_command, whole
from scalefp.cli.output import OK, say, write
from scalefp.errors import UserError

DEFAULT_SECONDS = 10


def add_report_command(to: Any) -> None:
    report = add_command(
        to, "report", run_report, "gather the jobs of a sweep or study into a table and a plot",
        "scalefp report runs/capacity\n"
        "  scalefp report runs/capacity --metric bit_accuracy --csv\n"
        "  scalefp report runs/capacity --watch\n"
        "  scalefp report runs/capacity --out kept",
    )  # fmt: skip
    report.add_argument("folder", metavar="FOLDER", help="folder of a sweep, as runs/NAME")
    report.add_argument(
        "--metric", action="append", default=[], metavar="NAME",
        help="figure to show; may be given several times (default: those of the study)",
    )  # fmt: skip
    report.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    report.add_argument("--csv", action="store_true", help="print a table for a spreadsheet")
    report.add_argument(
        "--out", metavar="FOLDER", help="write the report there instead of beside the jobs"
    )
    report.add_argument(
        "--watch", nargs="?", type=whole(1, 86400), const=DEFAULT_SECONDS, metavar="SECONDS",
        help="print it anew whenever a job has ended, until the sweep has (looks every "
        f"{DEFAULT_SECONDS} seconds)",
    )  # fmt: skip


def run_report(args: argparse.Namespace) -> int:
    from scalefp.studies.report import make_report, page, table, write_report

    if args.json and args.csv:
        raise UserError("choose one of --json and --csv")
    folder, shown = Path(args.folder), None
    out = folder if args.out is None else Path(args.out)
    while True:
        report = make_report(folder, args.metric)
        if report != shown:
            shown = report
            files = write_report(out, report, folder)
            if args.json:
                write(json.dumps(report, indent=1) + "\n")
            else:
                write(table(report) if args.csv else page(report))
        if args.watch is None or not report["running"]:
            break
        time.sleep(args.watch)
    say(f"written in {out}: {', '.join(files)}")
    return OK
