"""How every command answers: exit codes, results as text or JSON, and sentences to the user.

Results go to standard output, everything else to standard error. Names come from outside: what
cannot be seen in them is escaped wherever text is printed, so that no file name forges a line.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from scalefp.errors import UserError
from scalefp.files import printable

OK, NOBODY, MISTAKE, UNFORESEEN, BROKEN_PIPE = 0, 1, 2, 3, 141

WORD = re.compile("[0-9A-Za-z]+")
HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
MISTYPED = 2  # characters of a key that may be no hexadecimal digits


def without_keys(text: str, least: int = 16) -> str:
    """Text in which whatever looks like a key is cut to its first four digits.

    Args:
        least: number of hexadecimal digits from which a word counts as a key, mistyped or not.
    """

    def cut(word: re.Match[str]) -> str:
        digits = sum(character in HEX_DIGITS for character in word[0])
        secret = digits >= least and len(word[0]) - digits <= MISTYPED
        return f"{word[0][:4]}\u2026" if secret else word[0]

    return WORD.sub(cut, text)


def say(sentence: str) -> None:
    """Tell the user something beside the result; no key is repeated."""
    with suppress(OSError):  # nobody listens
        print(f"scalefp: {printable(without_keys(sentence))}", file=sys.stderr)


def write(text: str, done: str = "") -> None:
    """Write a piece of the result to standard output, now and not when its buffer is full.

    Args:
        done: what has happened and stays so, in a clause, even if nobody can read the result.

    Raises:
        UserError: it cannot be written, for example because the disk is full.
        BrokenPipeError: its reader has gone.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        if done:
            say(f"{done}, though nobody read the result")
        raise
    except OSError as error:
        about = f"{done}, but the result" if done else "the result"
        raise UserError(
            f"{about} could not be written to standard output ({error.strerror})"
        ) from error


def show(args: argparse.Namespace, result: Any, lines: Iterable[str], done: str = "") -> None:
    """Write ``result`` as JSON if ``--json`` was given, else the lines for a reader.

    Args:
        done: see :func:`write`.
    """
    text = json.dumps(result, indent=1) if args.json else "\n".join(map(printable, lines))
    write(f"{text}\n" if text else "", done)
