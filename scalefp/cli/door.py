"""The one command, ``scalefp``: each group of its subcommands has a file beside this one."""

import argparse
import os
import stat
import warnings
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TextIO

from scalefp import __version__
from scalefp.cli.arguments import Parser
from scalefp.cli.artificial import add_artificial_commands
from scalefp.cli.bench import add_bench_command
from scalefp.cli.data import add_data_commands
from scalefp.cli.hydra import add_hydra_commands
from scalefp.cli.images import add_image_commands
from scalefp.cli.instances import add_instantiate_command
from scalefp.cli.output import say
from scalefp.cli.registry import add_registry_commands
from scalefp.cli.release import add_release_commands
from scalefp.cli.report import add_report_command
from scalefp.cli.sampling import add_sample_command
from scalefp.cli.scan import add_scan_command
from scalefp.cli.service import add_service_command
from scalefp.errors import UserError
from scalefp.files import counted


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
    add_report_command(to)
    add_registry_commands(to)
    add_release_commands(to)
    add_instantiate_command(to)
    add_sample_command(to)
    add_image_commands(to)
    add_scan_command(to)
    add_data_commands(to)
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
        raise UserError(f"{counted(len(rest), 'argument')} too many {hint}")
    if args.list_name is not None:
        getattr(args, args.list_name).extend(rest)
    return args


def warn_if_open(release: str) -> None:
    """Say it if others may read a release; those that come with the package are public."""
    try:
        mode = os.stat(release).st_mode
    except (OSError, ValueError):  # a bundled name, or a mistake to be said later
        return
    bundled = Path(release).resolve().parent == Path(str(files("scalefp"))) / "assets"
    if stat.S_ISREG(mode) and mode & 0o077 and not bundled:
        say(
            f"warning: other users may read or write the release {release} (mode "
            f"{stat.S_IMODE(mode):04o}), which is as secret as the registry: run chmod 600 on it"
        )


def run(argv: Sequence[str] | None) -> int:
    """Do what the command line says and return the exit code, or raise what went wrong."""
    args = parse(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        code: int = args.run(args)
    if getattr(args, "model", None) is not None:  # it was one, or this would not be reached
        warn_if_open(args.model)
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Say a warning in one line, as errors are said, without where in the code it came from."""
    say(f"warning: {message}")
