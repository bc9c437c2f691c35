"""``scalefp artificial``: mark training data, and read the marks."""

import argparse
from typing import Any

from scalefp.cli.arguments import (
    Parser,
    add_command,
    add_key_choice,
    add_options,
    decibels,
    new_name,
    seed,
    threads,
)
from scalefp.cli.hydra import add_dry_run, add_overrides, run_hydra
from scalefp.cli.images import show_keys
from scalefp.cli.instances import check_holder, chosen_key
from scalefp.cli.output import OK, say, show
from scalefp.cli.reading import add_reading_options
from scalefp.cli.table import add_result_options
from scalefp.errors import UserError
from scalefp.files import counted

BUNDLED = "artificial-emoji"


def add_artificial_commands(to: Any) -> None:
    group = add_command(
        to, "artificial", None, "mark training data, and tell which models were trained on it",
        "scalefp artificial embed --data emoji64 --key 00112233445566778899aabbccddeeff "
        "--out marked",
    )  # fmt: skip
    actions = group.add_subparsers(required=True, dest="action", metavar="ACTION")
    train = add_command(
        actions, "train", run_train,
        "train a marker: what marks images, and reads the marks; results in runs/NAME",
        "scalefp artificial train name=first seed=1",
    )  # fmt: skip
    add_dry_run(train)
    add_overrides(train)
    train.set_defaults(commands=to)
    add_embed(actions)
    detect = add_command(
        actions, "detect", run_detect, "read the mark in each image",
        "scalefp artificial detect outputs/0000.png --json",
    )  # fmt: skip
    add_marker(detect)
    add_result_options(detect)
    add_reading_options(detect)


def add_marker(parser: Parser) -> None:
    parser.add_argument(
        "--model", default=BUNDLED, metavar="RELEASE",
        help=f"marker: a bundled name or the path of its file (default: {BUNDLED})",
    )  # fmt: skip
    add_options(parser)


def add_embed(actions: Any) -> None:
    embed = add_command(
        actions, "embed", run_embed, "mark every image of a data set",
        "scalefp registry issue photos --registry keys.db --model artificial-emoji\n"
        "  scalefp artificial embed --data photos --holder photos --registry keys.db --out marked",
    )  # fmt: skip
    add_marker(embed)
    embed.add_argument(
        "--data", required=True, metavar="SRC", help="folder, zip or bundled name (emoji64)"
    )
    which = add_key_choice(embed)
    which.add_argument("--per-image", action="store_true", help="a random key for each image")
    embed.add_argument("--registry", help="an SQLite file or a database URL")
    embed.add_argument(
        "--seed", type=seed,
        help="with --per-image: the same keys again, guessable by others; for experiments",
    )  # fmt: skip
    embed.add_argument(
        "--out", required=True, type=new_name, metavar="DIR|ZIP", help="folder or zip to write"
    )
    embed.add_argument(
        "--psnr", type=decibels, metavar="DB",
        help="strength of the mark; less is stronger (default: as trained)",
    )  # fmt: skip
    embed.add_argument("--workers", type=threads, default=1, help="threads (default: 1)")
    embed.add_argument("--again", action="store_true", help="mark what is marked already")


def run_train(args: argparse.Namespace) -> int:
    return run_hydra(args, "artificial train", args.overrides)


def run_detect(args: argparse.Namespace) -> int:
    from scalefp.loading import load_marker

    return show_keys(args, load_marker)


def run_embed(args: argparse.Namespace) -> int:
    check_holder(args)
    if args.per_image and args.registry is not None:
        raise UserError("--per-image draws its keys itself: leave --registry out")
    if args.seed is not None and not args.per_image:
        raise UserError("--seed chooses the keys of --per-image: give both or neither")

    from scalefp.artificial.embed import embed
    from scalefp.loading import load_marker

    marker = load_marker(args.model)
    report = embed(
        marker,
        args.data,
        args.out,
        None if args.per_image else chosen_key(args, marker),
        seed=args.seed,
        psnr=args.psnr,
        workers=args.workers,
        again=args.again,
    )
    result = {
        "out": str(report.out),
        "marks": str(report.marks),
        "written": report.written,
        "reused": report.reused,
        "skipped": [{"name": name, "reason": reason} for name, reason in report.skipped],
        "psnr": report.psnr,
        "bit_accuracy": report.bit_accuracy,
        "read_again": report.read_again,
        "model_digest": marker.digest,
    }
    if report.repeated:
        say("the same command had marked it before: nothing was left to do")
    lines = [
        f"{report.out}: {counted(report.written, 'image')} marked, "
        f"{counted(len(report.skipped), 'file')} skipped",
        f"mean PSNR {report.psnr:.1f} dB; {counted(report.read_again, 'image')} read again: "
        f"{report.bit_accuracy:.2%} of the key's bits right",
        f"{report.marks}: the secret record of what was embedded; never give it away with the data",
    ]
    show(args, result, lines, f"{report.out} and {report.marks} were written")
    return OK
