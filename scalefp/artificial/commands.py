"""What each action of ``scalefp artificial`` does; its arguments are in arguments.py beside this.

Networks and Hydra are imported where they are used, as in scalefp.commands.
"""

import argparse

from scalefp.commands import OK, check_holder, chosen_key, run_hydra, show, show_keys
from scalefp.errors import UserError


def run_train(args: argparse.Namespace) -> int:
    return run_hydra(args, "scalefp.artificial.train", "artificial", args.overrides)


def run_detect(args: argparse.Namespace) -> int:
    from scalefp.release import load_marker

    return show_keys(args, load_marker)


def run_embed(args: argparse.Namespace) -> int:
    check_holder(args)
    if args.per_image and args.registry is not None:
        raise UserError("--per-image draws its keys itself: leave --registry out")
    if args.seed is not None and not args.per_image:
        raise UserError("--seed chooses the keys of --per-image: give both or neither")

    from scalefp.artificial.embed import embed
    from scalefp.release import load_marker

    marker = load_marker(args.model)
    report = embed(
        marker,
        args.data,
        args.out,
        None if args.per_image else chosen_key(args, marker),
        seed=args.seed,
        psnr=args.psnr,
        workers=args.workers,
        force=args.force,
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
    lines = [
        f"{report.out}: {report.written} images marked, {len(report.skipped)} files skipped",
        f"mean PSNR {report.psnr:.1f} dB; {report.read_again} images read again: "
        f"{report.bit_accuracy:.2%} of the key's bits right",
        f"{report.marks}: the secret record of what was embedded; never give it away with the data",
    ]
    show(args, result, lines)
    return OK
