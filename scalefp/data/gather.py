"""What somebody points at, as one list of images: files, folders, zips, a list of paths.

Nothing is left out in silence: whatever claims to be an image, by its content, its name or by being
asked for, is in the list, readable or not, and the rest is counted.
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple
from zipfile import ZipFile

from PIL import Image

from scalefp.data.formats import HEAD_BYTES, recognise
from scalefp.data.images import SUFFIXES, read_image
from scalefp.data.source import open_zip, read_entry
from scalefp.errors import UserError

LIST = "-"  # stands for a list of paths on standard input
MAX_LIST = 256 << 20  # bytes of such a list: millions of paths, and an end for one that has none
MAX_PATH = 4096  # bytes; no system takes a longer one
_ZIP = b"PK\3\4"

_open_zip = lru_cache(maxsize=4)(open_zip)


class Found(NamedTuple):
    """An image to be read.

    Attributes:
        name: how answers call it: its path, or the path of the zip and its name in there.
        path: of the file or of the zip.
        entry: position among the entries of the zip; None for a file.
        problem: why there is nothing to read, in one sentence; "" if it is worth trying.
    """

    name: str
    path: str
    entry: int | None = None
    problem: str = ""

    def read(self, max_pixels: int) -> Image.Image:
        """8-bit RGB, by :func:`scalefp.data.images.read_image`, whose errors name it."""
        if self.problem:
            raise UserError(self.problem)
        if self.entry is None:
            return read_image(self.path, self.name, max_pixels=max_pixels)
        archive = _open_zip(Path(self.path))
        data = read_entry(archive, archive.infolist()[self.entry], self.name)
        return read_image(data, self.name, max_pixels=max_pixels)


class Gathered(NamedTuple):
    """All images that were pointed at, in order, and a count of the files that are none."""

    images: list[Found]
    skipped: Counter[str]  # by the ending of their names


def promises_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower() or "without ending"


def _head(path: str) -> bytes | None:
    """The first bytes of a regular file; None if it may not be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device could block for ever
            return b""
        with open(path, "rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError:
        return None


def _in_folder(folder: str, skipped: Counter[str]) -> Iterator[Found]:
    """The images at any depth below a folder, sorted by path."""
    problems: list[Found] = []

    def refused(error: OSError) -> None:
        name = os.fsdecode(error.filename)
        problem = f"folder {name} may not be read ({error.strerror}): check its permissions"
        problems.append(Found(name, name, problem=problem))

    files = [
        Path(inside, name)
        for inside, _, names in os.walk(folder, onerror=refused)
        for name in names
    ]
    for path in map(str, sorted(files)):
        head = _head(path)
        # What may not be read could be anything: reading it says so.
        if head is None or recognise(head) is not None or promises_image(path):
            yield Found(path, path)
        else:
            skipped[ending(path)] += 1
    yield from problems


def _in_zip(path: str, skipped: Counter[str]) -> Iterator[Found]:
    """The images in a zip, sorted by name."""
    archive: ZipFile = _open_zip(Path(path))
    for name, number in sorted((e.filename, i) for i, e in enumerate(archive.infolist())):
        entry = archive.infolist()[number]
        if entry.is_dir():
            continue
        found = Found(f"{path}/{name}", path, number)
        if name.startswith("__MACOSX/"):  # holds attributes of the files, under their names
            skipped[ending(name)] += 1
            continue
        try:
            with archive.open(entry) as stream:
                is_image = recognise(stream.read(HEAD_BYTES)) is not None
        except Exception as error:  # a password, a damaged entry, an unknown compression
            problem = f"{found.name} cannot be read from the zip ({error})"
            yield found._replace(problem=problem)
            continue
        if is_image or promises_image(name):
            yield found
        else:
            skipped[ending(name)] += 1


def _one(argument: str, skipped: Counter[str]) -> Iterator[Found]:
    if os.path.isdir(argument):
        inside: Iterable[Found] = _in_folder(argument, skipped)
        kind = "folder"
    elif (_head(argument) or b"").startswith(_ZIP):
        try:
            inside = list(_in_zip(argument, skipped))
        except UserError as error:
            inside = [Found(argument, argument, problem=str(error))]
        kind = "zip"
    else:
        yield Found(argument, argument)
        return
    none = True
    for image in inside:
        none = False
        yield image
    if none:
        problem = f"{kind} {argument} holds no image: give another"
        yield Found(argument, argument, problem=problem)


def read_list(stream: BinaryIO) -> bytes:
    """A list of paths as it stands on standard input.

    Raises:
        UserError: it is longer than ``MAX_LIST`` bytes: perhaps it never ends.
    """
    text = stream.read(MAX_LIST + 1)
    if len(text) > MAX_LIST:
        raise UserError(
            f"the list on standard input is longer than {MAX_LIST >> 20} MiB: give the folder of "
            "the images, or a part of the list at a time"
        )
    return text


def listed(stream: BinaryIO) -> list[str]:
    """The paths of a list, one a line, or separated by NUL (``find -print0``) if there is one.

    Raises:
        UserError: the list, or a name in it, is longer than one can be.
    """
    text = read_list(stream)
    if b"\0" in text:
        paths = re.findall(rb"[^\0]+", text)
    else:
        paths = [path.removesuffix(b"\r") for path in re.findall(rb"[^\n]+", text)]
    if any(len(path) > MAX_PATH for path in paths):
        raise UserError(
            f"the list on standard input holds a name of more than {MAX_PATH} bytes, which no path "
            "can have: write a path in each line"
        )
    return [os.fsdecode(path) for path in paths if path]


def gather(arguments: Iterable[str], stdin: BinaryIO) -> Gathered:
    """Every image that the arguments name.

    Args:
        arguments: image files, folders (looked through at any depth), zips, or ``-`` for a list of
            such paths on ``stdin``.

    Raises:
        UserError: the list is longer than one can be.
    """
    images: list[Found] = []
    skipped: Counter[str] = Counter()
    for argument in arguments:
        paths = listed(stdin) if argument == LIST else [argument]
        if not paths:
            problem = "the list on standard input names no image: write a path in each line"
            images.append(Found(LIST, LIST, problem=problem))
        for path in paths:
            images += _one(path, skipped)
    return Gathered(images, skipped)
