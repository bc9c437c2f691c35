"""Files: written whole or not at all, safe from a power loss, read line by line, and named.

Every file that the package writes goes through :func:`atomic_path`.
"""

import fcntl
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from scalefp.errors import FolderTakenError, UserError

NUMBERED = 8  # temporary names of one file that are tried before a random one
SECRET = 0o600  # mode of what nobody but its owner may read


@contextmanager
def atomic_path(path: Path | str, *, secret: bool = False, durable: bool = True) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to ``path`` if the block succeeds, else removed.

    The block finds an empty file under that name and writes into it. What a killed process left
    under such a name is removed by the next who writes the same file. A symbolic link is followed;
    a file that is replaced hands its permissions on.

    Args:
        secret: only the owner may read the file, whatever the umask and its mode before.
        durable: sync file and folder, so that a power loss cannot undo what was reported; False
            for what can be made again.

    Raises:
        UserError: the file cannot be written (an OSError inside the block counts as that), or
            something that is no regular file has its name.
    """
    real = Path(os.path.realpath(path))
    try:
        before = _mode_before(real)
        mode = SECRET if secret else before
        temporary, lock = _open_temporary(real, SECRET if secret else 0o666)
        try:
            if mode is not None:
                os.fchmod(lock, mode)
            yield temporary
            if durable:
                sync(temporary)
            os.replace(temporary, real)
            if durable:
                _sync_names(real.parent)
        finally:
            with suppress(OSError):  # gone already after the rename
                temporary.unlink()
            os.close(lock)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"cannot write {path} ({why}): choose another place") from error


def append_line(path: Path | str, line: str) -> None:
    """Add a line to a text file in one write, so that lines of several processes stay whole.

    Args:
        line: without a line break.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
        try:
            os.write(descriptor, f"{line}\n".encode("utf-8", "backslashreplace"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another place") from error


def _mode_before(path: Path) -> int | None:
    """Permissions of the regular file that ``path`` names; None if it names nothing."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise UserError(f"cannot write {path}: {kind_of_entry(mode)} has that name")
    return stat.S_IMODE(mode)


def _open_temporary(path: Path, mode: int) -> tuple[Path, int]:
    """Make the temporary file of ``path``; returns its name and a descriptor that locks it.

    The lock dies with its process: an unlocked file was left by one that was killed.
    """
    names = [f".{path.name}.tmp", *(f".{path.name}.{n}.tmp" for n in range(1, NUMBERED))]
    for name in [*names, *(f".{path.name}.{uuid.uuid4().hex}.tmp" for _ in range(3))]:
        temporary = path.with_name(name)
        with suppress(OSError):  # another user's, or no file: to be left alone
            _remove_leftover(temporary)
        try:
            lock = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
        except FileExistsError:
            continue
        with suppress(OSError):  # a file system without locks: its leftovers stay
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_open_as(lock, temporary):
            return temporary, lock
        os.close(lock)  # somebody took it for a leftover before it was locked
    raise FileExistsError(f"too many files {names[0]} are being written")


def _remove_leftover(temporary: Path) -> None:
    """Remove a temporary file whose process was killed; one that is being written stays."""
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_open_as(descriptor, temporary):
            temporary.unlink()
    finally:
        os.close(descriptor)


def _is_open_as(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def sync(path: Path) -> None:
    """Have a file's content, or the names in a folder, on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_names(folder: Path) -> None:
    """As :func:`sync`, for a folder whose file system may not be able to."""
    with suppress(OSError):
        sync(folder)


def publish(unfinished: Path, path: Path) -> None:
    """Give a folder of finished files, or one file, its name, once all of it is on the disk.

    Raises:
        UserError: that fails; nothing has changed then.
    """
    try:
        if unfinished.is_file():
            sync(unfinished)
        for folder, _, names in os.walk(unfinished):
            for name in names:
                sync(Path(folder, name))
            _sync_names(Path(folder))
        os.replace(unfinished, path)
        _sync_names(path.parent)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}): mend that and repeat the command"
        ) from error


def work_folder(path: Path, *, private: bool = False) -> None:
    """Make the folder of unfinished work, or take up that of an earlier run.

    Args:
        private: only its owner may look into it.

    Raises:
        UserError: it cannot be made, or it is there and somebody else's: who made it could read,
            or exchange, what is written there.
    """
    try:
        path.mkdir(0o700 if private else 0o777)
        return
    except FileExistsError:
        about = path.lstat()
    except OSError as error:
        raise UserError(
            f"cannot write in {path} ({error.strerror}): choose another --out"
        ) from error
    if not stat.S_ISDIR(about.st_mode):
        raise UserError(f"{path} is not a folder: remove it, or choose another --out")
    if about.st_uid != os.geteuid():
        raise UserError(f"{path} belongs to another user: choose another --out")
    if private and about.st_mode & 0o077:
        raise UserError(
            f"{path} is open to other users: remove it, or run chmod 700 {path} if you made it"
        )


@contextmanager
def held(lock: Path, taken: str) -> Iterator[None]:
    """Hold a lock file within this; the lock is gone with the process, however it ends.

    Args:
        lock: made if missing, and left there.
        taken: said if another process holds it.

    Raises:
        FolderTakenError: another process does.
    """
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderTakenError(taken) from error
        yield


# Reading.


def kind_of_entry(mode: int) -> str:
    """What stands under a name, by its ``st_mode``, in words."""
    kinds = {stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe"}
    return kinds.get(stat.S_IFMT(mode), "a device or socket")


def check_regular(path: Path | str, what: str) -> None:
    """Raise UserError unless ``path`` is a regular file: a pipe could block a reader for ever.

    Args:
        what: what it should hold, for the message: "release".
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"there is no {what} file {path}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', error)}") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is {kind_of_entry(mode)}: give a {what} file")


def open_regular(path: Path | str) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        UserError: it cannot be read, or is a folder, pipe, device or socket.
    """
    try:
        # Non-blocking, or a named pipe would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', error)}") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise UserError(f"cannot read {path}: it is {kind_of_entry(mode)}, not a file")
    return open(descriptor, "rb")


def text_lines(path: Path | str, max_bytes: int) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file without their ends, each with its number from 1.

    Raises:
        UserError: the file cannot be read, or a line, which is named, is not UTF-8 or holds more
            than ``max_bytes``.
    """
    number = 0
    try:
        with open_regular(path) as file:
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


# Printing.


def counted(number: float, one: str, many: str = "") -> str:
    """A whole number, or one to be rounded, and what it counts: "1 file", "3 files"."""
    text = f"{number:.0f}"
    return f"{text} {one if text == '1' else many or one + 's'}"


def printable(text: object) -> str:
    """Text in which every character is seen: others are escaped (``\\n``, ``\\x1b``, ``\\u202e``).

    The name of a file may hold line breaks and control sequences, which would forge a line of
    output or reach the terminal, and bytes that are no text at all.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )
