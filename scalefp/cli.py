"""The one command, ``scalefp``: its arguments, exit codes and errors in one sentence.

Exit codes: 0 done, 1 nobody (``attribute``), 2 a mistake that the user can mend, 130 interrupted.
What the subcommands do is in :mod:`scalefp.commands`.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from scalefp import __version__, commands
from scalefp.arguments import (
    Parser,
    add_command,
    add_images,
    add_key_choice,
    add_options,
    add_overrides,
    count,
    port,
    probability,
    seed,
)
from scalefp.artificial.arguments import add_artificial_commands
from scalefp.bench.command import add_bench_command
from scalefp.errors import UserError
from scalefp.registry_arguments import add_registry_commands
from scalefp.service import serve

MISTAKE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


def add_hydra_commands(to: Any) -> None:
    train = add_command(
        to, "train", commands.run_train, "train a generator and its decoder; results in runs/NAME",
        "scalefp train experiment=tiny name=first seed=1\n"
        "  scalefp train -m experiment=tiny name=sweep seed=1,2,3",
    )  # fmt: skip
    evaluate = add_command(
        to, "evaluate", commands.run_evaluate, "measure a release; results in evaluation/NAME",
        "scalefp evaluate checkpoint=runs/first/release.safetensors measure.keys=50",
    )  # fmt: skip
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    add_overrides(train)
    add_overrides(evaluate)


def add_instance_commands(to: Any) -> None:
    instantiate = add_command(
        to, "instantiate", commands.run_instantiate, "write the network of one key",
        "scalefp instantiate --model emoji --registry keys.db --holder recipient-a "
        "--out a.safetensors",
    )  # fmt: skip
    add_options(instantiate, "model")
    add_key_choice(instantiate)
    instantiate.add_argument("--registry", help="an SQLite file or a database URL")
    instantiate.add_argument("--out", required=True, metavar="FILE", help="file to write")
    instantiate.add_argument(
        "--format", choices=list(commands.FORMATS.values()), help="default: by the suffix of FILE"
    )
    sample = add_command(
        to, "sample", commands.run_sample, "write images of an instance as PNG files",
        "scalefp sample --instance a.safetensors --out images --num 16 --seed 0",
    )  # fmt: skip
    sample.add_argument("--instance", required=True, metavar="FILE", help="instance file")
    sample.add_argument("--out", required=True, metavar="DIR", help="folder, made if missing")
    sample.add_argument("--num", type=count, default=16, help="images (default: 16)")
    sample.add_argument("--seed", type=seed, default=0, help="seed of the latents (default: 0)")
    sample.add_argument("--force", action="store_true", help="overwrite images of those names")
    add_options(sample)


def add_image_commands(to: Any) -> None:
    decode = add_command(
        to, "decode", commands.run_decode, "read the key in each image",
        "scalefp decode --model emoji images/0000.png --json",
    )  # fmt: skip
    add_options(decode, "model")
    add_images(decode)
    attribute = add_command(
        to, "attribute", commands.run_attribute,
        "say whose instance made each image; exit code 1 if nobody's made any of them",
        "scalefp attribute --model emoji --registry keys.db images --same-source",
    )  # fmt: skip
    add_options(attribute, "model", "registry")
    sources = attribute.add_mutually_exclusive_group()
    sources.add_argument(
        "--same-source",
        action="store_true",
        help="all images come from one source: judge them as one",
    )
    sources.add_argument(
        "--group",
        action="store_true",
        help="judge as one what reads alike; a name then means some images of its group",
    )
    attribute.add_argument(
        "--form", choices=("soft", "hard"), default="soft",
        help="weigh each bit by how sure it was read (soft, default), or count matches (hard)",
    )  # fmt: skip
    attribute.add_argument(
        "--fpr", type=probability, default=1e-6,
        help="accepted probability of naming anybody wrongly (default: 1e-6)",
    )  # fmt: skip
    add_images(attribute)

    data = add_command(
        to, "data", None, "prepare training data", "scalefp data prepare --help"
    )  # fmt: skip
    actions = data.add_subparsers(required=True, dest="action", metavar="ACTION")
    prepare = add_command(
        actions, "prepare", commands.run_prepare, "write images at one resolution as a zip",
        "scalefp data prepare photos --out photos64.zip --resolution 64",
    )  # fmt: skip
    prepare.add_argument("source", metavar="SRC", help="folder, zip or bundled name")
    prepare.add_argument("--out", required=True, metavar="ZIP", help="zip to write")
    prepare.add_argument("--resolution", required=True, type=count, help="16 to 1024")
    prepare.add_argument(
        "--crop", choices=("center", "celeba"), default="center",
        help="largest centred square (default), or the published crop of aligned CelebA",
    )  # fmt: skip
    prepare.add_argument("--workers", type=count, default=1, help="threads (default: 1)")
    add_options(prepare)


def add_service_command(to: Any) -> None:
    parser = add_command(
        to, "serve", serve.run, "answer an investigator's browser and programs over HTTP",
        "scalefp serve --model emoji --registry keys.db\n"
        "  SCALEFP_TOKEN=$(openssl rand -hex 32) scalefp serve --model emoji --registry keys.db",
    )  # fmt: skip
    add_options(parser, "model", "registry")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument("--port", type=port, default=8000, help="0 takes a free one; default 8000")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="a host name under which a proxy is asked for the page; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--token-file", metavar="FILE",
        help=f"turn on issuing keys to who sends this token (or set {serve.TOKEN_VARIABLE})",
    )  # fmt: skip
    parser.add_argument(
        "--master", metavar="FILE", help="secret from which the keys of this registry are derived"
    )
    parser.add_argument("--workers", type=count, help="processes that decode (default: all cores)")
    limits = {
        "max-mib": (32, "size of one request in MiB"),
        "max-images": (64, "images in one request"),
        "max-megapixels": (25, "size of one image"),
        "max-seconds": (10, "time to decode one image"),
    }
    for name, (value, text) in limits.items():
        parser.add_argument(
            f"--{name}", type=count, default=value, metavar="N", help=f"{text} (default: {value})"
        )


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="scalefp",
        description="Traceable copies of an image generator: train once, then one key per copy.",
        epilog="example:\n  scalefp attribute --model emoji --registry keys.db image.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"scalefp {__version__}")
    to = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    add_hydra_commands(to)
    add_registry_commands(to)
    add_instance_commands(to)
    add_image_commands(to)
    add_artificial_commands(to)
    add_service_command(to)
    add_bench_command(to)
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments, or UserError. No message repeats a stray argument: it may be a key."""
    args, rest = build_parser().parse_known_args(argv)
    hint = f"(see `{args.prog} --help`)"
    for argument in rest:
        if argument.startswith("-"):
            raise UserError(f"there is no option {argument.partition('=')[0]} {hint}")
    if rest and args.list_name is None:
        raise UserError(f"{len(rest)} argument(s) too many {hint}")
    if args.list_name is not None:
        getattr(args, args.list_name).extend(rest)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be valid text
    try:
        args = parse(argv)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except UserError as error:
        sentence = str(error)
    except BrokenPipeError:
        # The reader has gone; without this Python would complain while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        sentence = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    print(f"scalefp: {' '.join(sentence.split())}", file=sys.stderr)
    return MISTAKE


if __name__ == "__main__":
    raise SystemExit(main())
