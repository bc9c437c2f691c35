"""``scalefp data``: training data made ready."""

import argparse
from typing import Any

from scalefp.cli.arguments import add_command, add_options, count, new_name, threads
from scalefp.cli.output import OK, say, show
from scalefp.files import counted


def add_data_commands(to: Any) -> None:
    data = add_command(
        to, "data", None, "prepare training data", "scalefp data prepare --help"
    )  # fmt: skip
    actions = data.add_subparsers(required=True, dest="action", metavar="ACTION")
    prepare = add_command(
        actions, "prepare", run_prepare, "write images at one resolution as a zip",
        "scalefp data prepare photos --out photos64.zip --resolution 64",
    )  # fmt: skip
    prepare.add_argument("source", metavar="SRC", help="folder, zip or bundled name")
    prepare.add_argument("--out", required=True, type=new_name, metavar="ZIP", help="zip to write")
    prepare.add_argument("--resolution", required=True, type=count, help="16 to 1024")
    prepare.add_argument(
        "--crop", choices=("center", "celeba"), default="center",
        help="largest centred square (default), or the published crop of aligned CelebA",
    )  # fmt: skip
    prepare.add_argument("--workers", type=threads, default=1, help="threads (default: 1)")
    add_options(prepare)


def run_prepare(args: argparse.Namespace) -> int:
    from scalefp.data.prepare import prepare

    report = prepare(args.source, args.out, args.resolution, crop=args.crop, workers=args.workers)
    result = {
        "out": str(report.out),
        "written": report.written,
        "reused": report.reused,
        "skipped": [{"name": name, "reason": reason} for name, reason in report.skipped],
    }
    images, skipped = counted(report.written, "image"), counted(len(report.skipped), "file")
    if report.repeated:
        say("the same command had made it before: nothing was left to do")
    line = f"{report.out}: {images}, {skipped} skipped"
    show(args, result, [line], line)
    return OK
