"""``scalefp scan``: whose instances made any of very many images, by shards and many workers."""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

from scalefp.cli.arguments import (
    add_command,
    add_form,
    add_list,
    add_options,
    count,
    new_name,
    probability,
    threads,
)
from scalefp.cli.output import MISTAKE, OK, say, show
from scalefp.cli.reading import add_decoding_options
from scalefp.files import counted

MAX_NAMED = 10  # holders and failed shards that are named


def add_scan_command(to: Any) -> None:
    scan = add_command(
        to, "scan", run_scan, "attribute very many images by shards, in processes or on a cluster",
        "scalefp scan crawl/ --model emoji --registry keys.db --out scanned --workers 8\n"
        "  scalefp scan shards/*.tar part*.parquet --model emoji --registry keys.db --out found\n"
        "  scalefp scan crawl/ --model emoji --registry keys.db --out scanned --ray auto",
    )  # fmt: skip
    add_options(scan, "model", "registry")
    scan.add_argument(
        "--out", required=True, type=new_name, metavar="DIR",
        help="folder of the results; the same command goes on with what it holds",
    )  # fmt: skip
    scan.add_argument(
        "--fpr", type=probability, default=1e-6,
        help="accepted probability of naming anybody wrongly, for each image (default: 1e-6)",
    )  # fmt: skip
    add_form(scan)
    scan.add_argument(
        "--workers", type=threads, default=1, metavar="N",
        help="processes, each with a release of its own (default: 1)",
    )  # fmt: skip
    scan.add_argument(
        "--ray", metavar="ADDRESS",
        help="workers of a Ray cluster instead: local starts one here, auto joins that of this "
        "machine, HOST:PORT another",
    )  # fmt: skip
    scan.add_argument(
        "--shard", type=count, default=1000, metavar="N",
        help="files, or entries of a zip, that a worker takes at a time (default: 1000)",
    )  # fmt: skip
    add_decoding_options(scan)
    add_list(
        scan, "sources", "SOURCE", "+",
        "folder, zip, tar (WebDataset), Parquet with a column of image bytes, image, or - for a "
        "list of such paths on standard input",
    )  # fmt: skip


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Within this, SIGTERM ends the command as Ctrl-C does, so that its workers end with it."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def lines(result: dict[str, Any], out: Path) -> Iterator[str]:
    """The summary for a reader."""
    named = [f"{name} {times}" for name, times in result["holders"].items()]
    more = f" and {len(named) - MAX_NAMED} more holders" if len(named) > MAX_NAMED else ""
    whose = f": {', '.join(named[:MAX_NAMED])}{more}" if named else ""
    settings = result["settings"]
    yield f"{result['attributed']} of {counted(result['images'], 'image')} attributed{whose}"
    yield (
        f"by chance alone at most {result['expected_false']:.2g} of them would be, on average "
        f"(fpr {settings['fpr']:g} an image, {counted(settings['issued'], 'key')} issued)"
    )
    if result["unreadable"]:
        yield f"{result['unreadable']} could not be read"
    if result["skipped"]:
        kinds = ", ".join(f"{ending} {times}" for ending, times in result["skipped"].items())
        files = counted(sum(result["skipped"].values()), "file")
        yield f"{files} skipped, being no images: {kinds}"
    yield f"written in {out}: summary.json, and shards/ with a row for each image"


def run_scan(args: argparse.Namespace) -> int:
    from scalefp.attribution.odds import why_never
    from scalefp.data.gather import LIST, read_list
    from scalefp.loading import load
    from scalefp.registry import Registry, check_pair
    from scalefp.scan.pool import scan_in_processes
    from scalefp.scan.run import Settings, scan
    from scalefp.scan.worker import Task

    out, model, snapshot = Path(args.out), load(args.model), Registry(args.registry).snapshot()
    check_pair(snapshot, model)
    never = why_never(model.config.n_bits, len(snapshot), args.fpr)
    if never is not None:
        say(never)
    # Read before a scan is taken up, too: another list is another scan.
    listed = read_list(sys.stdin.buffer) if LIST in args.sources else b""
    settings = Settings(
        args.sources, model.digest, snapshot.head, len(snapshot), args.fpr, args.form, args.search,
        args.max_megapixels, args.shard, sha256(listed).hexdigest() if listed else "",
    )  # fmt: skip
    task = Task(
        args.model, args.registry, snapshot.head, str((out / "shards").absolute()), args.fpr,
        args.form, args.search, args.max_megapixels * 10**6,
    )  # fmt: skip
    pool = partial(scan_in_processes, workers=args.workers)
    if args.ray is not None:
        from scalefp.scan.cluster import import_ray, scan_on_ray

        import_ray()  # if that fails, then before anything is written
        pool = partial(scan_on_ray, address=args.ray, workers=args.workers)
    with stopped_by_sigterm():
        try:
            result = scan(out, task, settings, pool, BytesIO(listed), progress=True)
        except (SystemExit, KeyboardInterrupt):
            say("stopped; the same command goes on with the shards that are missing")
            raise
    show(args, result, lines(result, out))
    for one in result["failed"][:MAX_NAMED]:
        say(f"shard {one['shard']} ({one['of']}) could not be scanned: {one['problem']}")
    if not result["failed"]:
        return OK
    failed = counted(len(result["failed"]), "shard")
    say(f"{failed} could not be scanned; the same command tries again what is missing")
    return MISTAKE
