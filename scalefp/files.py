"""Writing files: whole or not at all."""

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
