"""The images that a command was given -> what the decoder read in each, one after the other.

One process with one thread is the default: several threads that share few cores wait for each other
most of the time. Large folders are read by several processes, each with a release of its own.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

from scalefp.cli.arguments import Parser, add_list, count, threads
from scalefp.cli.output import without_keys
from scalefp.errors import UserError
from scalefp.files import counted
from scalefp.scan.reading import BATCH, How, Outcome, read_batch

if TYPE_CHECKING:
    from scalefp.data.gather import Found, Gathered
    from scalefp.release.reader import Reader

Load = Callable[[str], "Reader"]


def add_decoding_options(parser: Parser) -> None:
    """How each image is read."""
    parser.add_argument(
        "--no-search", dest="search", action="store_false",
        help="read images as they are, without trying crops and turns: much faster where most are "
        "unrelated",
    )  # fmt: skip
    parser.add_argument(
        "--max-megapixels", type=count, default=100, metavar="N",
        help="refuse larger images, by their header (default: 100)",
    )  # fmt: skip


def add_reading_options(parser: Parser) -> None:
    """Which images a command reads, and how."""
    parser.add_argument(
        "--workers", type=threads, default=1, metavar="N",
        help="processes that read images, for large folders (default: 1)",
    )  # fmt: skip
    add_decoding_options(parser)
    parser.add_argument(
        "--strict", action="store_true",
        help="stop with exit code 2 and no result if any image cannot be read",
    )  # fmt: skip
    add_list(
        parser, "images", "IMAGE", "+",
        "image, folder or zip of images, or - for a list of paths on standard input",
    )  # fmt: skip


# Several processes.

_own: tuple["Reader", How]  # of a worker: its release, and how to read


def _start_worker(load: Load, release: str, how: How) -> None:
    from scalefp.data.processes import serve_owner

    serve_owner()
    one_thread()
    global _own
    _own = load(release), how


def _work(images: Sequence["Found"]) -> list[Outcome]:
    return read_batch(_own[0], images, _own[1])


def _read_by_workers(
    load: Load, release: str, batches: Sequence[Sequence["Found"]], how: How, workers: int
) -> Iterator[list[Outcome]]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (load, release, how))
    try:
        yield from pool.map(_work, batches)
    except BrokenProcessPool as error:
        raise UserError(
            "a process that reads images died, perhaps for lack of memory: take fewer --workers or "
            "a lower --max-megapixels"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def one_thread() -> None:
    """Compute with one thread a process, unless OMP_NUM_THREADS says otherwise."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def no_keys(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The same, but what is no file may be a key, typed in the wrong place: it is cut."""
    return [
        one
        if one.reading is not None or os.sep in one.name or os.path.lexists(one.name)
        else Outcome(without_keys(one.name), None, without_keys(one.problem))
        for one in outcomes
    ]


class Images:
    """The images that a command was given, to be read; counts what came of them.

    Attributes:
        unread: number of images that could not be read.
        problem: why, of the first of them.
    """

    def __init__(self, args: argparse.Namespace, load: Load) -> None:
        from scalefp.data.gather import gather

        one_thread()
        self.args, self.load = args, load
        self.model = load(args.model)
        self.gathered: Gathered = gather(args.images, sys.stdin.buffer)
        self.unread, self.problem = 0, ""
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self.gathered.images)

    def _batches(self) -> Iterator[list[Outcome]]:
        images, args = self.gathered.images, self.args
        batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        how = How(args.search, args.max_megapixels * 10**6)
        workers = min(args.workers, len(batches))
        if workers > 1:
            yield from _read_by_workers(self.load, args.model, batches, how, workers)
            return
        for batch in batches:
            yield read_batch(self.model, batch, how)

    def read(self, *, progress: bool) -> Iterator[list[Outcome]]:
        """What came of the images, in their order, some at a time.

        Args:
            progress: show a bar on standard error if it takes long.

        Raises:
            UserError: with ``--strict``, or where there is but one image, it cannot be read.
        """
        from tqdm import tqdm

        begun = time.monotonic()
        fatal = self.args.strict or len(self) == 1
        bar = tqdm(
            total=len(self), unit="img", desc="reading", delay=2, leave=False, disable=not progress
        )
        with bar:
            for outcomes in map(no_keys, self._batches()):
                for outcome in outcomes:
                    if outcome.reading is None:
                        if fatal:
                            raise UserError(outcome.problem)
                        self.unread += 1
                        self.problem = self.problem or outcome.problem
                self.seconds = time.monotonic() - begun
                yield outcomes
                bar.update(len(outcomes))

    def report(self) -> list[str]:
        """What to say of all of them in the end; empty for a single image."""
        if len(self) == 1 and not self.gathered.skipped:
            return []
        lines = []
        if self.unread:
            lines.append(f"{self.unread} of {len(self)} could not be read")
        if skipped := self.gathered.skipped:
            kinds = ", ".join(f"{ending} {times}" for ending, times in skipped.most_common(5))
            more = ", ..." if len(skipped) > 5 else ""
            why = "it is no image" if skipped.total() == 1 else "they are no images"
            files = counted(skipped.total(), "file")
            lines.append(f"{files} skipped, for {why}: {kinds}{more}")
        rate = len(self) / max(self.seconds, 1e-3)
        lines.append(f"{counted(len(self), 'image')} in {self.seconds:.1f} s ({rate:.1f} images/s)")
        return lines

    def check_any(self) -> None:
        """Raise UserError if none of them could be read."""
        if self.unread == len(self):
            raise UserError(f"none of the {len(self)} images could be read; {self.problem}")
