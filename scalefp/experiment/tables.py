"""Tables of results: Markdown to read, CSV for other programs."""

import csv
import io
from collections.abc import Collection, Sequence


def markdown_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()
) -> str:
    """A Markdown table without a line break at its end.

    Args:
        head: titles of the columns.
        rows: cells, as many in each row as there are titles.
        right: places of the columns that are set flush right, from 0.
    """
    rule = ["---:" if column in right else "---" for column in range(len(head))]
    lines = [_line(head), "| " + " | ".join(rule) + " |", *map(_line, rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    # A bar inside a cell would end it.
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def csv_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The same as CSV (RFC 4180, but for plain line breaks)."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()
