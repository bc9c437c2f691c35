"""Results of many images: each is written as soon as it is there, as text, JSON lines or CSV.

``--json`` alone waits for all of them, for it is one list.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from scalefp.cli.arguments import Parser
from scalefp.cli.output import write
from scalefp.errors import UserError
from scalefp.files import printable

Entry = dict[str, Any]
_RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r")


class Row(NamedTuple):
    """One result: for a program, and as a line for a reader."""

    entry: Entry
    line: str


def add_result_options(parser: Parser) -> None:
    """How results are written."""
    parser.add_argument(
        "--json-lines", action="store_true", help="print JSON as it comes, one entry a line"
    )
    parser.add_argument("--csv", action="store_true", help="print a table for a spreadsheet")


def check_format(args: argparse.Namespace) -> None:
    """Raise UserError if more than one format was asked for."""
    if args.json + args.json_lines + args.csv > 1:
        raise UserError("choose one of --json, --json-lines and --csv")


def is_text(args: argparse.Namespace) -> bool:
    """Whether results are written for a reader, not for a program."""
    return not (args.json or args.json_lines or args.csv)


def shows_lines(args: argparse.Namespace) -> bool:
    """Whether results appear on the terminal while others are awaited."""
    return not args.json and sys.stdout.isatty()


def harmless(cell: object) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = printable("" if cell is None else cell)
    return f"'{text}" if text.startswith(_RUN_BY_SPREADSHEETS) else text


def write_rows(
    args: argparse.Namespace,
    rows: Iterable[Row],
    columns: Sequence[str],
    cells: Callable[[Entry], Iterable[Mapping[str, object]]],
) -> None:
    """Write all results, each as soon as it is there but with ``--json``.

    Args:
        columns: of the CSV table.
        cells: an entry -> its lines of the table, by column.
    """
    if args.json:
        write(json.dumps([row.entry for row in rows], indent=1) + "\n")
        return
    table = csv.writer(sys.stdout, lineterminator="\n")
    if args.csv:
        table.writerow(columns)
    for row in rows:
        if args.json_lines:
            print(json.dumps(row.entry))
        elif args.csv:
            for line in cells(row.entry):
                table.writerow([harmless(line.get(column)) for column in columns])
        else:
            print(printable(row.line))
        write("")
