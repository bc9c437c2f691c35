"""A registry as a text file: JSON Lines (`.jsonl`) or CSV (`.csv`), one line for each event.

Fields, in this order in CSV, whose first line names them: `at` (UTC, ISO 8601), `action` (issue,
revoke or reinstate), `holder`, `key` (hexadecimal), `n_bits`, `model_digest`. A key's issue comes
before anything else that happens to it. The file holds every key: it is created readable by its
owner alone.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scalefp.errors import UserError
from scalefp.files import atomic_path, text_lines
from scalefp.key import Key
from scalefp.registry.audit import Event
from scalefp.registry.holders import clean_holder
from scalefp.registry.registry import Registry
from scalefp.registry.rows import ACTIONS, ISSUE, REVOKE
from scalefp.registry.schema import DIGEST_DIGITS

FIELDS = ("at", "action", "holder", "key", "n_bits", "model_digest")
FORMATS = (".jsonl", ".csv")
MAX_LINE = 8192  # bytes; a holder of 200 characters, each escaped, takes 2,400


def _format(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"{path} must be named .jsonl (JSON Lines) or .csv: the name decides")
    return suffix


# Writing.

# A spreadsheet takes a cell of CSV that begins so for a formula and runs it, behind an apostrophe
# it does not. Names that begin with apostrophes and one of these get one more, so that reading
# takes off what writing put on.
_FORMULA = re.compile("'*[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")


def _harmless(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def _as_was(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _written(rows: Iterable[Sequence[Any]], suffix: str) -> Iterator[str]:
    if suffix == ".jsonl":
        for row in rows:
            yield json.dumps(dict(zip(FIELDS, row, strict=True)), ensure_ascii=False) + "\n"
        return
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    for row in (FIELDS, *rows):
        writer.writerow(map(_harmless, row))
        yield line.getvalue()
        line.seek(0)
        line.truncate()


def export_registry(
    registry: Registry, out: str | os.PathLike[str], *, overwrite: bool = False
) -> int:
    """Write all that happened to the keys of a registry to a file, and return the lines' number.

    Raises:
        UserError: the file exists (unless ``overwrite``) or cannot be written, or the registry
            cannot be read.
    """
    path = Path(out)
    suffix = _format(path)
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already: choose another file")
    digest, n_bits, count = registry.model_digest, registry.n_bits, 0

    def rows() -> Iterator[Sequence[Any]]:
        nonlocal count
        for event in tqdm(registry.history(), "export", unit="line", delay=2, leave=False):
            count += 1
            yield event.at, event.action, event.holder, str(event.key), n_bits, digest

    with (
        atomic_path(path, secret=True) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        file.writelines(_written(rows(), suffix))
    return count


# Reading.


def _json_row(line: str) -> list[Any]:
    try:
        # As a tuple of pairs: a field that comes twice must not be overlooked.
        pairs = json.loads(line, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        pairs = None
    if not isinstance(pairs, tuple):
        raise UserError("this is not a JSON object")
    if sorted(name for name, _ in pairs) != sorted(FIELDS):
        raise UserError(f"the fields must be {', '.join(FIELDS)}, each once")
    fields = dict(pairs)
    return [fields[name] for name in FIELDS]


def _csv_row(line: str) -> list[Any]:
    try:
        row: list[Any] = [_as_was(cell) for cell in next(csv.reader([line], strict=True))]
    except (csv.Error, ValueError):
        raise UserError("this is not a line of CSV") from None
    if len(row) != len(FIELDS):
        raise UserError(f"{len(row)} fields, but {len(FIELDS)} are needed: {', '.join(FIELDS)}")
    if row[4].isdecimal() and len(row[4]) < 5:
        row[4] = int(row[4])
    return row


def _time(text: str) -> str:
    """The time as it is stored: UTC, to the second."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError("no time zone")
        return time.astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        raise UserError(
            "the time must be ISO 8601 with a time zone, for example 2026-01-31T12:00:00+00:00"
        ) from None


class _History:
    """Events in the order of the file, each checked against those before it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.release: tuple[str, int] | None = None  # digest, bits
        self._holder_of: dict[Key, str] = {}
        self._active: dict[str, Key] = {}
        self._latest: dict[str, Key] = {}

    def add(self, row: list[Any], line: int) -> None:
        """Take one line's fields, or raise UserError."""
        at, action, holder, digits, n_bits, digest = row
        if not all(isinstance(value, str) for value in (at, action, holder, digits, digest)):
            raise UserError("every field but n_bits must be text")
        if type(n_bits) is not int:
            raise UserError("n_bits must be a whole number")
        if action not in ACTIONS:
            raise UserError(f"the action must be one of {', '.join(ACTIONS)}")
        if len(digest) != DIGEST_DIGITS or not set(digest) <= set(string.hexdigits.lower()):
            raise UserError(f"model_digest must be {DIGEST_DIGITS} hexadecimal digits")
        key, name = Key.from_hex(digits, n_bits), clean_holder(holder)
        if self.release not in (None, (digest, n_bits)):
            raise UserError("this key belongs to another release than the first line's")
        self.release = digest, n_bits
        self._check(action, name, key)
        self.events.append(Event(_time(at), action, name, key, line))

    def _check(self, action: str, holder: str, key: Key) -> None:
        active = self._active.get(holder)
        if action == ISSUE:
            if key in self._holder_of:
                raise UserError("this key is issued in a line before")
            if active is not None:
                raise UserError(f"{holder!r} has an active key already, by a line before")
            self._holder_of[key] = holder
        elif self._holder_of.get(key) != holder:
            raise UserError(f"no line before issues this key to {holder!r}")
        elif action == REVOKE and active != key:
            raise UserError("the key is revoked already, by a line before")
        elif action != REVOKE and (active is not None or self._latest[holder] != key):
            raise UserError("only the latest key of a holder without an active one is re-instated")
        if action == REVOKE:
            del self._active[holder]
        else:
            self._active[holder] = self._latest[holder] = key


def import_registry(registry: Registry, source: str | os.PathLike[str]) -> int:
    """Add the keys in a file to a registry, with all that happened to them; return their number.

    All of it is added, or nothing. A registry is made if there is none.

    Raises:
        UserError: the file cannot be read; or a line, which is named, is malformed, does not fit
            the lines before, or adds a key or holder that the registry has; or the registry cannot
            be written, or is of another release.
        UntrustedRegistryError: two keys lie nearer to one another than drawn keys do.
    """
    path = Path(source)
    suffix, history = _format(path), _History()
    lines = text_lines(path, MAX_LINE)
    for number, line in tqdm(lines, "read", unit="line", delay=2, leave=False):
        try:
            if suffix == ".csv" and number == 1:
                if _csv_row(line) != list(FIELDS):
                    raise UserError(f"the first line must be {','.join(FIELDS)}")
                continue
            history.add(_json_row(line) if suffix == ".jsonl" else _csv_row(line), number)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}; nothing was imported") from error
    if history.release is None:
        raise UserError(f"{path} holds no key: nothing was imported")
    digest, n_bits = history.release
    registry.add_history(history.events, model_digest=digest, n_bits=n_bits)
    return sum(event.action == ISSUE for event in history.events)
