"""Files: written whole or not at all, and text read line by line."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scalefp.errors import UserError


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to ``path`` if the block succeeds, else removed.

    Raises:
        UserError: the file cannot be written (an OSError inside the block counts as that).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"cannot write {path} ({why}): choose another place") from error
    finally:
        with suppress(OSError):  # gone already after the rename
            temporary.unlink()


def text_lines(path: Path | str, max_bytes: int) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file without their ends, each with its number from 1.

    Raises:
        UserError: the file cannot be read, or a line, which is named, is not UTF-8 or holds more
            than ``max_bytes``.
    """
    number = 0
    try:
        with open(path, "rb") as file:
            # A bounded read, because a file without line breaks must not fill the memory.
            while line := file.readline(max_bytes + 2):
                number += 1
                content = line.rstrip(b"\r\n")
                if len(content) > max_bytes:
                    raise UserError(f"{path}, line {number}: more than {max_bytes} bytes")
                yield number, content.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {number}: this is not UTF-8 text") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
