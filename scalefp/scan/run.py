"""A scan from its plan to its summary, taken up where it was left.

The folder holds ``plan.jsonl`` (what the scan depends on, then a shard a line), ``shards/`` (one
Parquet file for each shard that is done) and, in the end, ``summary.json``. Whoever repeats the
command scans the shards that have no file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tqdm import tqdm

from scalefp import __version__
from scalefp.errors import UserError
from scalefp.experiment import make_folder, write_json
from scalefp.files import atomic_path, check_regular, held, open_regular
from scalefp.scan.pool import Done, Work
from scalefp.scan.shards import Shard, divide, import_parquet
from scalefp.scan.worker import ABOUT, ATTRIBUTED, ERROR, NOBODY, Task, shard_file

PLAN, SHARDS, SUMMARY, LOCK = "plan.jsonl", "shards", "summary.json", ".lock"
Summary = dict[str, Any]
Pool = Callable[[Task, Iterable[Work]], Iterator[Done]]


@dataclass(frozen=True)
class Settings:
    """All that the rows of a scan depend on; a scan is taken up only with the same.

    Attributes:
        model: digest of the release.
        registry: hash of the newest entry of its log.
        shard: most files, or entries of a zip, in a shard.
        listed: SHA-256 of the list of paths on standard input; "" if none of the sources is ``-``.
    """

    sources: list[str]
    model: str
    registry: str
    issued: int
    fpr: float
    form: str
    search: bool
    max_megapixels: int
    shard: int
    listed: str
    version: str = __version__


def make_plan(folder: Path, settings: Settings, stdin: BinaryIO) -> int:
    """Write the plan, or take up the one that is there; its number of shards.

    Args:
        stdin: the list that the source ``-`` stands for.

    Raises:
        UserError: the folder holds something else, a scan with other settings, or a damaged plan.
    """
    path = folder / PLAN
    if not path.exists():
        if any(
            entry.name not in (LOCK, SHARDS) and entry.suffix != ".tmp"
            for entry in folder.iterdir()
        ):
            raise UserError(f"{folder} holds something else than a scan: choose another --out")
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"settings": asdict(settings)}) + "\n")
            for shard in divide(settings.sources, settings.shard, stdin):
                file.write(json.dumps(shard.note()) + "\n")
    before, shards = read_plan(folder)
    for name, now in asdict(settings).items():
        if before.get(name) != now:
            raise UserError(
                f"{folder} holds a scan with {name} = {before.get(name)}, not {now}: choose "
                "another --out, or repeat the command that began it"
            )
    return sum(1 for _ in shards)


def read_plan(folder: Path) -> tuple[dict[str, Any], Iterator[Shard]]:
    """The settings of the plan in a folder, and its shards, read one after the other.

    Raises:
        UserError: the plan is damaged or cannot be read; while the shards are read, too.
    """
    path = folder / PLAN
    damaged = UserError(
        f"{path} is damaged: choose another --out, or remove {folder} and scan anew"
    )

    def read() -> Iterator[Any]:
        with TextIOWrapper(open_regular(path), encoding="utf-8") as file:
            try:
                yield json.loads(file.readline())["settings"].copy()
                for line in file:
                    yield Shard.noted(json.loads(line))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                raise damaged from None

    entries = read()
    settings = next(entries)
    if not isinstance(settings, dict):
        raise damaged
    return settings, entries


def works(folder: Path) -> Iterator[Work]:
    """The shards that have no file yet."""
    for number, shard in enumerate(read_plan(folder)[1]):
        if not shard_file(folder / SHARDS, number).exists():
            yield Work(number, shard)


def scan(
    folder: Path, task: Task, settings: Settings, pool: Pool, stdin: BinaryIO, *, progress: bool
) -> Summary:
    """Scan what is missing in a folder and sum up all of it.

    Args:
        folder: made if missing.
        pool: scans shards by some workers.
        stdin: see :func:`make_plan`.
        progress: show a bar on standard error.

    Returns:
        As :func:`summary`.

    Raises:
        UserError: sources, release, registry or folder cannot be used, or another scan is at work
            in the folder.
    """
    import_parquet()
    make_folder(folder / SHARDS)
    with held(folder / LOCK, f"another scan is at work in {folder}: wait for its end"):
        shards = make_plan(folder, settings, stdin)
        done = sum(shard_file(folder / SHARDS, n).exists() for n in range(shards))
        failed, images = list[dict[str, Any]](), 0
        with tqdm(
            total=shards, initial=done, desc="scan", unit="shard", delay=2, disable=not progress
        ) as bar:
            for one in pool(task, works(folder)):
                images += one.images
                bar.set_postfix_str(f"{images:,} images")
                bar.update()
                if one.problem:
                    where = {"shard": one.work.number, "of": str(one.work.shard)}
                    failed.append(where | {"problem": one.problem})
        result = summary(folder, settings)
        result["failed"] = failed + result["failed"]
        write_json(folder / SUMMARY, result)
    return result


class Tally(NamedTuple):
    """What the file of one shard says: images by verdict and by holder, files that are none."""

    verdicts: Counter[str]
    holders: Counter[str]
    skipped: Counter[str]
    seconds: float


def tally(path: Path) -> Tally:
    """Count the rows of a shard's file.

    Raises:
        UserError: it is damaged.
    """
    verdicts, holders = Counter[str](), Counter[str]()
    try:
        check_regular(path, "Parquet")
        with import_parquet().ParquetFile(path) as file:
            about = json.loads(file.metadata.metadata[ABOUT])
            for batch in file.iter_batches(columns=["verdict", "holder"]):
                rows = batch.to_pydict()
                verdicts.update(rows["verdict"])
                holders.update(name for name in rows["holder"] if name is not None)
        skipped = Counter({str(name): int(files) for name, files in about["skipped"].items()})
        if not verdicts.keys() <= {ATTRIBUTED, NOBODY, ERROR}:
            raise ValueError("no such verdict")
        return Tally(verdicts, holders, skipped, float(about["seconds"]))
    except Exception as error:  # of pyarrow's own kinds
        raise UserError(f"its file {path} is damaged: remove it") from error


def summary(folder: Path, settings: Settings) -> Summary:
    """What all shards say together, read one after the other.

    Returns:
        ``images``, of which ``attributed``, ``nobody`` and ``unreadable``; ``holders`` (images of
        each), ``skipped`` (files that are no images, by ending), ``expected_false`` (images that
        chance attributes to an innocent, at most, on average), ``shards``, ``worker_seconds``,
        ``settings`` and ``failed`` (shards whose file is damaged: ``shard``, ``of``, ``problem``).
    """
    verdicts, holders, skipped = Counter[str](), Counter[str](), Counter[str]()
    seconds, shards, done, failed = 0.0, 0, 0, list[dict[str, Any]]()
    for number, shard in enumerate(read_plan(folder)[1]):
        shards += 1
        path = shard_file(folder / SHARDS, number)
        if not path.exists():
            continue
        try:
            one = tally(path)
        except UserError as error:
            failed.append({"shard": number, "of": str(shard), "problem": str(error)})
            continue
        verdicts += one.verdicts
        holders += one.holders
        skipped += one.skipped
        seconds, done = seconds + one.seconds, done + 1
    images = verdicts.total()
    judged = images - verdicts[ERROR]
    return {
        "images": images,
        "attributed": verdicts[ATTRIBUTED],
        "nobody": judged - verdicts[ATTRIBUTED],
        "unreadable": verdicts[ERROR],
        "holders": dict(holders.most_common()),
        "skipped": dict(skipped.most_common()),
        "expected_false": settings.fpr * judged,
        "shards": {"done": done, "all": shards},
        "worker_seconds": round(seconds, 1),
        "settings": asdict(settings),
        "failed": failed,
    }
