"""What all parts of the command line are made of: its parser, types of values, shared options."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from scalefp import __version__
from scalefp.cli.output import without_keys
from scalefp.errors import UserError

SHORT_KEY = 8  # hexadecimal digits, of 32 bits


class Parser(argparse.ArgumentParser):
    """Says a mistake in one sentence, like every other mistake; what was typed may be a key."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{without_keys(message, SHORT_KEY)} (see `{self.prog} --help`)")


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of an option: a whole number of this range."""

    def number(text: str) -> int:
        if not (text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
            typed = text if len(text) < 40 else f"{text[:40]}..."
            raise argparse.ArgumentTypeError(
                f"a whole number from {least:,} to {most:,} is needed, not {typed!r}"
            )
        return int(text)

    return number


count = whole(1, 1_000_000)
threads = whole(1, 1024)  # or processes
seed = whole(0, 2**63 - 1)
port = whole(0, 65535)


def filled(text: str) -> str:
    """A name that is not empty, as that of a variable of the shell that is not set."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a name is needed, but this is empty")
    return text


def new_name(text: str) -> str:
    """The name of a file or folder that can be made."""
    if not Path(filled(text)).resolve().name:
        raise argparse.ArgumentTypeError(f"{text!r} is the root of all folders: name one in it")
    return text


def decibels(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"a number of decibels is needed, not {text!r}")
    return value


def probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(
            f"a probability between 0 and 1 is needed, for example 1e-6, not {text!r}"
        )
    return value


def add_command(
    to: Any, name: str, run: Callable[[argparse.Namespace], int] | None, what: str, example: str
) -> Parser:
    """A subcommand with its help; ``run`` (None in a group) returns the exit code."""
    parser: Parser = to.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"scalefp {__version__}")
    parser.set_defaults(run=run, prog=parser.prog, list_name=None)
    return parser


def add_options(parser: Parser, *names: str) -> None:
    """Options that several subcommands share."""
    texts = {
        "model": "release: a bundled name or the path of a release file",
        "registry": "registry: an SQLite file or a database URL",
    }
    for name in names:
        parser.add_argument(f"--{name}", required=True, metavar=name.upper(), help=texts[name])
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_form(parser: Parser) -> None:
    """``--form``, of whatever names holders."""
    parser.add_argument(
        "--form", choices=("soft", "hard"), default="soft",
        help="weigh each bit by how sure it was read (soft, default), or count matches (hard)",
    )  # fmt: skip


def add_list(parser: Parser, name: str, metavar: str, nargs: str, text: str) -> None:
    """A list that may also go on behind options, which argparse alone does not allow."""
    parser.add_argument(name, nargs=nargs, metavar=metavar, help=text)
    parser.set_defaults(list_name=name)


def add_key_choice(parser: Parser) -> Any:
    """Which key to use; returns the group, one of which must be given. See instances.chosen_key."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--key", metavar="HEX",
        help="key, seen by all users of this machine meanwhile; with --registry it must be issued "
        "there",
    )  # fmt: skip
    which.add_argument(
        "--key-file", type=filled, metavar="FILE", help="file that holds the key; - reads it here"
    )
    which.add_argument("--holder", help="take the holder's active key from --registry")
    return which
