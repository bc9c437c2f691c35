"""A shard -> the images in it, one after the other; what is no image is counted."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalefp.data.formats import HEAD_BYTES, MAX_FILE_BYTES, recognise
from scalefp.data.gather import ending, promises_image
from scalefp.data.images import read_image
from scalefp.data.source import open_zip, read_entry
from scalefp.errors import UserError
from scalefp.files import open_regular
from scalefp.scan.shards import Shard, import_parquet

if TYPE_CHECKING:
    from PIL import Image

ROWS = 16  # of Parquet that are in memory at a time


@dataclass(frozen=True)
class Item:
    """One image: its bytes, or the sentence that says why there are none."""

    name: str
    data: bytes = b""
    problem: str = ""

    def read(self, max_pixels: int) -> Image.Image:
        """8-bit RGB; UserError names it if it cannot be read."""
        if self.problem:
            raise UserError(self.problem)
        return read_image(self.data, self.name, max_pixels=max_pixels)

    @property
    def digest(self) -> str | None:
        """SHA-256 of its bytes, 64 hexadecimal digits; None if they were not read."""
        return None if self.problem else sha256(self.data).hexdigest()


def items(shard: Shard, skipped: Counter[str]) -> Iterator[Item]:
    """The images of a shard. A damaged archive ends with an item that says so.

    Args:
        skipped: gets the number of files that are no images, by the ending of their names.
    """
    found = {"files": _files, "zip": _zip, "tar": _tar, "parquet": _parquet}[shard.kind]
    for item in found(shard):
        # A row of Parquet and what calls itself an image is read, which says what is wrong with it.
        claims = shard.kind == "parquet" or bool(item.problem) or promises_image(item.name)
        if claims or recognise(item.data[:HEAD_BYTES]):
            yield item
        else:
            skipped[ending(item.name)] += 1


def _too_large(name: str, size: int) -> Item:
    problem = f"{name} has {size >> 20} MiB, over the limit of {MAX_FILE_BYTES >> 20} MiB"
    return Item(name, problem=problem)


def _is_special(path: str) -> bool:
    """Whether it is a pipe, a device or a socket."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _files(shard: Shard) -> Iterator[Item]:
    for name in shard.files:
        try:
            if _is_special(name) and not promises_image(name):
                yield Item(name)
                continue
            with open_regular(name) as file:
                head = file.read(HEAD_BYTES)
                if not recognise(head) and not promises_image(name):
                    yield Item(name, head)
                    continue
                data = head + file.read(MAX_FILE_BYTES + 1 - len(head))
        except UserError as error:
            yield Item(name, problem=str(error))
        except OSError as error:
            yield Item(name, problem=f"cannot read {name}: {error.strerror}")
        else:
            yield _too_large(name, len(data)) if len(data) > MAX_FILE_BYTES else Item(name, data)


def _zip(shard: Shard) -> Iterator[Item]:
    try:
        archive = open_zip(Path(shard.path))
    except UserError as error:
        yield Item(shard.path, problem=str(error))
        return
    with archive:
        for entry in archive.infolist()[shard.start : shard.stop]:
            if entry.is_dir() or entry.filename.startswith("__MACOSX/"):
                continue
            name = f"{shard.path}/{entry.filename}"
            try:
                with archive.open(entry) as stream:
                    head = stream.read(HEAD_BYTES)
                if recognise(head) or promises_image(name):
                    yield Item(name, read_entry(archive, entry, name))
                else:
                    yield Item(name, head)
            except UserError as error:
                yield Item(name, problem=str(error))
            except Exception as error:  # a password, a damaged entry, an unknown compression
                yield Item(name, problem=f"{name} cannot be read from the zip ({error})")


def _tar(shard: Shard) -> Iterator[Item]:
    """The files of a tar as they come; it is read once, from its start to its end."""
    name = shard.path
    try:
        with tarfile.open(shard.path, "r|*") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                name = f"{shard.path}/{member.name}"
                if member.size > MAX_FILE_BYTES:
                    yield _too_large(name, member.size)
                    continue
                stream = archive.extractfile(member)
                yield Item(name, stream.read() if stream is not None else b"")
    except Exception as error:  # a damaged tar raises many kinds
        yield Item(name, problem=f"{shard.path} is damaged at or after {name} ({error})")


def _parquet(shard: Shard) -> Iterator[Item]:
    """The rows of a row group, named ``FILE/ROW GROUP/ROW``, each counted from 0."""
    parquet, row = import_parquet(), 0
    base = f"{shard.path}/{shard.start}"
    try:
        with parquet.ParquetFile(shard.path) as file:
            column = image_column(file.schema_arrow, shard.path)
            for batch in file.iter_batches(ROWS, [shard.start], columns=[column]):
                for value in batch.column(0).to_pylist():
                    yield _cell(value, f"{base}/{row}")
                    row += 1
    except UserError as error:
        yield Item(base, problem=str(error))
    except Exception as error:  # of pyarrow's own kinds
        yield Item(base, problem=f"{shard.path} is damaged after row {row} ({error})")


def _cell(value: Any, name: str) -> Item:
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        return Item(name, problem=f"{name} holds no bytes: it may name a file that is not there")
    if len(data) > MAX_FILE_BYTES:
        return _too_large(name, len(data))
    return Item(name, bytes(data))


def image_column(schema: Any, path: str) -> str:
    """The column that holds images: bytes, or a struct with ``bytes`` in it as of data sets.

    Raises:
        UserError: there is none, or several and none of them is called ``image``.
    """
    import pyarrow as pa

    def holds_bytes(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    names = [field.name for field in schema if holds_bytes(field.type)]
    if len(names) == 1 or "image" in names:
        return "image" if "image" in names else names[0]
    found = f"several ({', '.join(names)})" if names else "none"
    raise UserError(
        f"of the columns of {path} one must hold the bytes of images, but {found} do: call it image"
    )
