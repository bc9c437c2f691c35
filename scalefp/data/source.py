"""Where images come from: a folder or a StyleGAN zip, given by path or by bundled name.

A zip is read in place, never extracted, and no file in either kind is trusted to be what its name
says: ``Source.read`` gives RGB pixels or one sentence that names the file.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from lzma import LZMAError
from pathlib import Path
from typing import Any, Self

from PIL import Image

from scalefp.data.formats import MAX_FILE_BYTES
from scalefp.data.images import read_image, read_size
from scalefp.errors import UserError

BUNDLED = ("emoji64",)
# What the entry of a zip may unpack to: metadata, and the largest kind of pixel.
_SPARE_BYTES, _PIXEL_BYTES = 64 * 2**20, 16

_ASSETS = Path(str(files("scalefp") / "assets"))
_BROKEN_ENTRY = (zipfile.BadZipFile, zlib.error, LZMAError, OSError, EOFError, RuntimeError)


def bundled_data(name: str = "emoji64") -> Path:
    """The zip of a data set that is installed with the package."""
    if name not in BUNDLED:
        raise UserError(f"there is no bundled data set {name!r}: choose {' or '.join(BUNDLED)}")
    return _ASSETS / f"{name}.zip"


def resolve_source(source: str | Path) -> Path:
    """A bundled name (it wins over a file of that name: write ``./emoji64`` for that) or a path."""
    if source in BUNDLED:
        return bundled_data(str(source))
    if not str(source).strip():
        raise UserError("no data is named: give a folder, a zip or a bundled name, such as emoji64")
    path = Path(source)
    if path.exists() and not (path.is_dir() or path.is_file()):
        raise UserError(f"data {path} is a device or a pipe: give a folder or a zip")
    if not path.exists():
        raise UserError(
            f"data {path} does not exist: give a folder, a zip or a bundled name "
            f"({', '.join(BUNDLED)})"
        )
    return path


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file, to read its entries by :func:`read_entry`.

    Raises:
        UserError: it is none, or damaged.
    """
    try:
        return zipfile.ZipFile(path)
    except (*_BROKEN_ENTRY, ValueError) as error:
        raise UserError(
            f"{path} is not a folder and not a whole zip file ({error}): "
            "if it was copied or downloaded, do that again"
        ) from error


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> bytes:
    if entry.file_size > MAX_FILE_BYTES:
        raise UserError(
            f"{name} unpacks to {entry.file_size >> 20} MiB, over the limit of "
            f"{MAX_FILE_BYTES >> 20} MiB"
        )
    try:
        return archive.read(entry)  # never more than the declared size
    except _BROKEN_ENTRY as error:
        raise UserError(f"{name} cannot be read from the zip ({error})") from error


def entry_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> tuple[int, int]:
    """Width and height by the header of an image in a zip, for :func:`read_image`'s errors."""
    try:
        with archive.open(entry) as stream:
            return read_size(stream, name)
    except _BROKEN_ENTRY as error:
        raise UserError(f"{name} cannot be read from the zip ({error})") from error


def read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> bytes:
    """The bytes of an image in a zip; ``name`` stands for it in messages.

    Raises:
        UserError: a damaged entry, no image, one of too many pixels, or far more bytes than its
            pixels need. All but the first show before much is unpacked.
    """
    width, height = entry_size(archive, entry, name)
    if entry.file_size > _SPARE_BYTES + _PIXEL_BYTES * width * height:
        raise UserError(
            f"{name} unpacks to {entry.file_size >> 20} MiB, far more than a picture of "
            f"{width}x{height} pixels needs: save it anew"
        )
    return _unpack(archive, entry, name)


def _files_below(folder: Path) -> Iterator[Path]:
    """The regular files at any depth below a folder."""

    def refuse(error: OSError) -> None:
        raise UserError(
            f"folder {os.fsdecode(error.filename)} may not be read ({error.strerror}): check its "
            "permissions, or leave it out"
        )

    for inside, _, names in os.walk(folder, onerror=refuse):
        yield from (file for name in names if (file := Path(inside, name)).is_file())


class Source:
    """The files of a folder or a zip, by position; a context manager.

    Attributes:
        path: the folder or zip.
        names: all files in it but ``dataset.json`` and hidden ones, images or not, sorted.

    Raises:
        UserError: neither a folder nor a whole zip, or a folder in it may not be read: training or
            marking a part of the images in silence would be worse.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._entries: list[zipfile.ZipInfo] = []
        if path.is_dir():
            names = sorted(file.relative_to(path).as_posix() for file in _files_below(path))
            self.names = [name for name in names if self._is_data(name)]
            return
        self._zip = open_zip(path)
        entries = sorted(self._zip.infolist(), key=lambda entry: entry.filename)
        self._entries = [e for e in entries if not e.is_dir() and self._is_data(e.filename)]
        self.names = [entry.filename for entry in self._entries]

    @staticmethod
    def _is_data(name: str) -> bool:
        """Neither the labels nor what file managers leave (.DS_Store, __MACOSX/._photo.jpg)."""
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
        return name != "dataset.json" and not hidden

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._zip is not None:
            self._zip.close()

    def read(self, index: int) -> Image.Image:
        """Image number ``index`` as RGB; UserError names a broken one. May be called by threads."""
        name = self.names[index]
        if self._zip is None:
            return read_image(self.path / name, name, whole=True)
        return read_image(read_entry(self._zip, self._entries[index], name), name, whole=True)

    def size(self, index: int) -> tuple[int, int]:
        """Width and height by the header of image number ``index``; UserError as :meth:`read`."""
        name = self.names[index]
        if self._zip is None:
            try:
                with (self.path / name).open("rb") as stream:
                    return read_size(stream, name)
            except OSError as error:
                raise UserError(f"{name} cannot be read ({error.strerror})") from error
        return entry_size(self._zip, self._entries[index], name)

    def _description(self) -> dict[str, Any]:
        """What ``dataset.json`` says, which has an entry for labels; empty if there is none."""
        try:
            if self._zip is None:
                text = (self.path / "dataset.json").read_bytes()
            else:
                entry = self._zip.getinfo("dataset.json")
                text = _unpack(self._zip, entry, "dataset.json")
        except (FileNotFoundError, KeyError):
            return {}
        try:
            about: dict[str, Any] = json.loads(text)
            about["labels"] = [
                (name.replace("\\", "/"), label) for name, label in about["labels"] or []
            ]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(
                f'dataset.json in {self.path} is not {{"labels": [[file, label], ...]}} or '
                '{"labels": null}: repair or remove it'
            ) from error
        return about

    def label_pairs(self) -> list[tuple[str, Any]]:
        """(file name, label) as ``dataset.json`` has them, whatever kind of label; or nothing."""
        pairs: list[tuple[str, Any]] = self._description().get("labels", [])
        return pairs

    def originals(self) -> dict[str, str]:
        """File name -> the user's file that it was made of, where ``data prepare`` noted that."""
        noted = self._description().get("originals")
        named = noted.items() if isinstance(noted, dict) else ()
        return {name: original for name, original in named if isinstance(original, str)}

    def labels(self) -> dict[str, int]:
        """File name -> integer label; empty where there are none, or none of that kind."""
        return {name: label for name, label in self.label_pairs() if type(label) is int}

    def digest(self) -> str:
        """Changes when a file is added, removed or changed."""
        if self._zip is None:
            stats = [(self.path / name).stat() for name in self.names]
            state = [(n, s.st_size, s.st_mtime_ns) for n, s in zip(self.names, stats, strict=True)]
        else:
            state = [(e.filename, e.file_size, e.CRC) for e in self._entries]
        return sha256(json.dumps(state).encode()).hexdigest()
