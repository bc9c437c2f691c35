"""Holders, the recipients of keys: one name as it is stored, a file of names, many in memory."""

from __future__ import annotations

import operator
import os
import string
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, false, func

from scalefp.errors import UserError
from scalefp.files import text_lines
from scalefp.registry.schema import KEYS, MAX_HOLDER

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def clean_holder(holder: str) -> str:
    """The name as stored: stripped, and accented letters in one form.

    Raises:
        UserError: it is empty, longer than 200 characters, or cannot be printed on one line.
    """
    name = unicodedata.normalize("NFC", holder).strip()
    if not name:
        raise UserError("the holder is empty: name the recipient of the key")
    if len(name) > MAX_HOLDER:
        raise UserError(f"the holder has {len(name)} characters, at most {MAX_HOLDER} are allowed")
    if not name.isprintable():
        raise UserError(f"the holder {name!r} has characters that cannot be printed: remove them")
    return name


def holder_has(text: str, *, prefix: bool) -> ColumnElement[bool]:
    """The condition that a stored holder has ``text`` in the name, or at its start."""
    # Letters beyond a to z each database would treat in its own way.
    wanted = unicodedata.normalize("NFC", text).translate(_LOWER)
    if not wanted.isprintable() or len(wanted) > MAX_HOLDER:
        return false()  # no name has it, and a database might trip over it
    name = func.lower(KEYS.c.holder)
    return (name.startswith if prefix else name.contains)(wanted, autoescape=True)


def read_holders(path: str | os.PathLike[str]) -> list[str]:
    """The holders in a UTF-8 file, one a line; empty lines do not count.

    Raises:
        UserError: the file cannot be read or names nobody, or a line, which is named, holds no
            valid name.
    """
    names = []
    for number, line in text_lines(os.fspath(path), 4 * MAX_HOLDER):
        if line.strip():
            try:
                names.append(clean_holder(line))
            except UserError as error:
                raise UserError(f"{os.fspath(path)}, line {number}: {error}") from error
    if not names:
        raise UserError(f"{os.fspath(path)} names no holder: write one a line")
    return names


class Holders(Sequence[str]):
    """Names behind one another in one block of UTF-8.

    As separate Python strings, 10^7 names would take five times the memory.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        encoded = [name.encode() for name in names]
        self._text = b"".join(encoded)
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)  # [N]

    @classmethod
    def joined(cls, parts: Sequence[Holders]) -> Holders:
        """The names of all parts, in order."""
        whole = cls()
        whole._text = b"".join(part._text for part in parts)
        starts = np.cumsum([0, *(len(part._text) for part in parts)], dtype=np.int64)
        ends = [part._ends + start for part, start in zip(parts, starts[:-1], strict=True)]
        whole._ends = np.concatenate([whole._ends, *ends])
        return whole

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            raise IndexError("holder index out of range")
        i %= len(self)
        start = int(self._ends[i - 1]) if i else 0
        return self._text[start : int(self._ends[i])].decode()
