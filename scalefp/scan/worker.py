"""One worker: the release and the registry loaded once, then shard after shard.

What it writes of a shard is one Parquet file, whole or not there, so that a killed worker loses
nothing but time. It says of every image what ``attribute`` says of it alone.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from scalefp.attribution.evidence import Attribution, Form, attribute_each
from scalefp.errors import UserError
from scalefp.files import atomic_path
from scalefp.scan.items import Item, items
from scalefp.scan.reading import BATCH, How, read_batch
from scalefp.scan.shards import Shard, import_parquet

ATTRIBUTED, NOBODY, ERROR = "attributed", "nobody", "error"
ABOUT = b"scalefp"  # of a shard's file, in its metadata: JSON
ROWS = 1024  # that are kept until they are written

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """All that decides the rows of a scan, as every worker gets it.

    Attributes:
        model: release: a bundled name or a path.
        registry: path or URL.
        head: hash of the newest entry of the registry's log: keys issued later are not looked at.
        folder: that the files of the shards are written into.
    """

    model: str
    registry: str
    head: str
    folder: str
    fpr: float
    form: Form
    search: bool
    max_pixels: int


def schema() -> Any:
    """Columns of a shard's file."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            pa.field("path", text, nullable=False),
            ("digest", text),  # SHA-256 of the image's file
            pa.field("verdict", text, nullable=False),
            ("p_value", pa.float64()),  # of the best of those named
            ("holder", text),
            ("matches", pa.int32()),
            ("others", pa.list_(text)),  # further holders named
            ("error", text),
        ]
    )


def _row(item: Item, found: list[Attribution], problem: str) -> Row:
    row: Row = dict.fromkeys(schema().names) | {"path": _text(item.name), "digest": item.digest}
    if problem:
        return row | {"verdict": ERROR, "error": _text(problem)}
    if not found:
        return row | {"verdict": NOBODY}
    best, *others = found
    return row | {
        "verdict": ATTRIBUTED,
        "p_value": best.p_value,
        "holder": best.holder,
        "matches": best.matches,
        "others": [one.holder for one in others],
    }


def _text(name: str) -> str:
    """A name in UTF-8, whatever bytes it was made of."""
    return name.encode("utf-8", "backslashreplace").decode()


class Worker:
    """Scans shards, one after the other.

    Raises:
        UserError: release or registry cannot be used, or the registry has changed meanwhile.
    """

    def __init__(self, task: Task) -> None:
        import torch

        from scalefp.loading import load
        from scalefp.registry import Registry

        torch.set_num_threads(1)  # as many workers as there are cores
        self.task, self.model = task, load(task.model)
        self.registry = Registry(task.registry).snapshot()
        if self.registry.head != task.head:
            raise UserError(
                f"the registry {task.registry} has changed since this scan began: scan with "
                "another --out, so that one number of issued keys stands behind all p-values"
            )

    def _rows(self, shard: Shard, skipped: Counter[str]) -> Iterator[Row]:
        task, how = self.task, How(self.task.search, self.task.max_pixels)
        found = items(shard, skipped)
        while batch := list(islice(found, BATCH)):
            outcomes = read_batch(self.model, batch, how)
            readings = [one.reading for one in outcomes if one.reading is not None]
            answers = iter(attribute_each(readings, self.registry, task.fpr, form=task.form))
            for item, outcome in zip(batch, outcomes, strict=True):
                named = [] if outcome.reading is None else next(answers)
                yield _row(item, named, outcome.problem)

    def scan(self, number: int, shard: Shard) -> int:
        """Scan one shard and write its file; the number of its images."""
        import pyarrow as pa

        parquet, begun = import_parquet(), time.monotonic()
        skipped: Counter[str] = Counter()
        images, rows = 0, self._rows(shard, skipped)
        with (
            atomic_path(shard_file(Path(self.task.folder), number)) as temporary,
            parquet.ParquetWriter(temporary, schema()) as writer,
        ):
            while part := list(islice(rows, ROWS)):
                writer.write_table(pa.Table.from_pylist(part, schema()))
                images += len(part)
            about = {"skipped": skipped, "seconds": round(time.monotonic() - begun, 3)}
            writer.add_key_value_metadata({ABOUT: json.dumps(about).encode()})
        return images


def shard_file(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"{number:08d}.parquet"
