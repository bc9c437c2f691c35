"""What is to be scanned, divided: each shard is some files, a part of a zip, a tar, or a row group.

Only names are looked at here, and never more than one shard of them is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from scalefp.data.gather import LIST, listed
from scalefp.data.source import open_zip
from scalefp.errors import UserError
from scalefp.files import check_regular

PARQUET_HINT = "`pip install 'scalefp[scan]'`"
KINDS = ("files", "zip", "tar", "parquet")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class Shard:
    """A part of what is to be scanned, read by one worker in one go.

    Attributes:
        kind: ``files``, ``zip``, ``tar`` or ``parquet``.
        path: of the archive; "" for files.
        start, stop: entries of a zip; of Parquet the row group ``start``.
        files: their paths.
    """

    kind: str
    path: str = ""
    start: int = 0
    stop: int = 0
    files: tuple[str, ...] = ()

    def note(self) -> dict[str, Any]:
        """For JSON, without what is empty."""
        return {name: value for name, value in asdict(self).items() if value not in ("", 0, ())}

    @classmethod
    def noted(cls, note: Any) -> Shard:
        """The shard of a :meth:`note`.

        Raises:
            ValueError: it is none.
        """
        try:
            shard = cls(**note | {"files": tuple(note.get("files", ()))})
        except (TypeError, AttributeError) as error:
            raise ValueError("no note of a shard") from error
        texts, places = (shard.kind, shard.path, *shard.files), (shard.start, shard.stop)
        if (
            not all(isinstance(text, str) for text in texts)
            or not all(isinstance(place, int) for place in places)
            or shard.kind not in KINDS
            or bool(shard.files) != (shard.kind == "files")
        ):
            raise ValueError("no note of a shard")
        return shard

    def __str__(self) -> str:
        if self.kind == "files":
            return f"{len(self.files)} files from {self.files[0]} on"
        part = {"zip": f" from entry {self.start} on", "parquet": f", row group {self.start}"}
        return self.path + part.get(self.kind, "")


def _files_below(folder: str) -> Iterator[str]:
    """The files at any depth, sorted inside each folder; and each folder that may not be read."""
    refused: list[str] = []
    for inside, folders, names in os.walk(
        folder, onerror=lambda error: refused.append(os.fsdecode(error.filename))
    ):
        folders.sort()
        for name in sorted(names):
            yield os.path.join(inside, name)
        yield from refused  # reading it will say what is wrong
        refused.clear()
    yield from refused


def import_parquet() -> Any:
    """pyarrow's module for Parquet.

    Raises:
        UserError: it is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"scanning writes Parquet, which needs pyarrow: {PARQUET_HINT}") from error
    return parquet


def _in_zip(path: str, size: int) -> Iterator[Shard]:
    try:
        with open_zip(Path(path)) as archive:
            entries = len(archive.infolist())
    except UserError:
        entries = 0
    if not entries:
        yield Shard("zip", path)  # reading it will say what is wrong
    for start in range(0, entries, size):
        yield Shard("zip", path, start, min(start + size, entries))


def _in_parquet(path: str) -> Iterator[Shard]:
    try:
        check_regular(path, "Parquet")
        with import_parquet().ParquetFile(path) as file:
            groups = int(file.num_row_groups)
    except Exception:  # of pyarrow's own kinds
        groups = 1  # reading it will say what is wrong
    yield from (Shard("parquet", path, group) for group in range(groups))


def _in_archive(path: str, size: int) -> Iterator[Shard]:
    low = path.lower()
    if low.endswith(".zip"):
        yield from _in_zip(path, size)
    elif low.endswith(".parquet"):
        yield from _in_parquet(path)
    else:
        yield Shard("tar", path)


def is_archive(path: str) -> bool:
    """Whether a file is looked into, by its name."""
    return path.lower().endswith((".zip", *TARS, ".parquet"))


def _paths(sources: Iterable[str], stdin: BinaryIO) -> Iterator[str]:
    for source in sources:
        for path in listed(stdin) if source == LIST else [source]:
            if os.path.isdir(path):
                yield from _files_below(path)
            elif os.path.exists(path):
                yield path
            else:
                raise UserError(f"there is no {path}: give folders, zips, tars, Parquet or images")


def divide(sources: Iterable[str], size: int, stdin: BinaryIO) -> Iterator[Shard]:
    """The shards of what somebody points at, in order.

    Args:
        sources: folders (looked through at any depth, archives in them included), zips, tars,
            Parquet files, image files, or ``-`` for a list of such paths on ``stdin``.
        size: most files or entries of a zip in a shard; tars and row groups stay whole.

    Raises:
        UserError: a source does not exist. What is damaged gets a shard, whose row says so.
    """
    waiting: list[str] = []
    for path in _paths(sources, stdin):
        if is_archive(path):
            yield from _in_archive(path, size)
            continue
        waiting.append(path)
        if len(waiting) == size:
            yield Shard("files", files=tuple(waiting))
            waiting = []
    if waiting:
        yield Shard("files", files=tuple(waiting))
