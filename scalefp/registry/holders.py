"""Holders, the recipients of keys: one name as it is stored, a file of names, many in memory."""

from __future__ import annotations

import logging
import operator
import os
import re
import string
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, false, func, or_, true

from scalefp.errors import UserError
from scalefp.files import text_lines
from scalefp.registry.schema import BATCH, KEYS, MAX_HOLDER

_log = logging.getLogger(__name__)

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
# Small Cyrillic and Greek letters that look like a Latin one, and that one.
_LATIN = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d"
    "\u03b1\u03bf\u03c1\u03bd\u03b9\u03ba\u03c5",
    "aeopcyxijshdqwaopviku",
)
# Letters and marks that print as nothing, beyond those that Python calls unprintable.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_MIXED = ("LATIN", "CYRILLIC", "GREEK")  # scripts with letters that look alike


class LookalikeError(UserError):
    """A new holder's name could be mistaken for another's."""


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


def look(name: str) -> str:
    """What a name looks like at a glance: names that look the same are equal here.

    Compatible characters (full-width letters, ligatures) and the case of letters do not count, nor
    whether a letter is Latin or the Cyrillic or Greek one of the same shape. No table of all that
    may look alike: 0 and o, 1 and l, rn and m are different.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", folded).translate(_LATIN)


def check_new(names: Iterable[str], present: Iterable[str]) -> None:
    """Check the names of new holders; a mixture of scripts is only said, in the log.

    Args:
        present: holders whose names could look like theirs.

    Raises:
        LookalikeError: a name has invisible characters, or looks like another holder's. Both names
            are shown with the code points of what is not ASCII.
    """
    seen = {look(holder): holder for holder in present}
    for name in names:
        if _INVISIBLE.search(name):
            raise LookalikeError(f"the holder {ascii(name)} has invisible characters: remove them")
        other = seen.setdefault(look(name), name)
        if other != name:
            raise LookalikeError(
                f"the holder {ascii(name)} looks like {ascii(other)}, another holder: give that "
                "name if it is the same, or one that nobody can mistake for it"
            )
        letters = (unicodedata.name(letter, "") for letter in name if letter.isalpha())
        scripts = {letter.partition(" ")[0] for letter in letters}.intersection(_MIXED)
        if len(scripts) > 1:
            _log.warning(
                "the holder %s mixes %s letters, some of which look alike: is it meant so?",
                ascii(name), " and ".join(sorted(script.capitalize() for script in scripts)),
            )  # fmt: skip


def may_look_like(names: Sequence[str], dialect: str) -> ColumnElement[bool]:
    """The condition that a stored holder might look like one of the names.

    Two names of ASCII look alike if they differ in case only, which a database can tell.
    """
    if len(names) > BATCH:
        return true()
    holder = KEYS.c.holder
    beyond_ascii = (
        holder.op("GLOB")("*[^ -~]*") if dialect == "sqlite" else holder.op("~")("[^ -~]")
    )
    return or_(func.lower(holder).in_([look(name) for name in names]), beyond_ascii)


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
