"""Workers in processes of this machine. One that dies is replaced, and its shard begun again."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from threading import RLock
from typing import NamedTuple

from tqdm import tqdm

from scalefp.data.processes import serve_owner
from scalefp.errors import UserError
from scalefp.scan.shards import Shard
from scalefp.scan.worker import Task, Worker

ATTEMPTS = 3  # at a shard whose worker dies


class Work(NamedTuple):
    """A shard to be scanned.

    Attributes:
        number: of the shard, and of its file.
        deaths: workers that have died of it.
    """

    number: int
    shard: Shard
    deaths: int = 0


class Done(NamedTuple):
    """What came of a shard: its number of images, or why it could not be scanned."""

    work: Work
    images: int
    problem: str = ""


def scan_shard(worker: Worker, work: Work) -> Done:
    """Scan a shard; what nobody foresaw is its own problem, and no other shard's.

    Raises:
        UserError: no shard can be scanned: the disk is full, the registry was tampered with.
    """
    try:
        return Done(work, worker.scan(work.number, work.shard))
    except UserError:
        raise
    except Exception as error:
        return Done(work, 0, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _serve(connection: Connection, task: Task) -> None:
    """The process: work in, what came of it out, until the pipe closes; or the last word."""
    serve_owner()
    tqdm.set_lock(RLock())  # its own is shared between processes, and outlives one that is killed
    try:
        worker = Worker(task)
        connection.send(None)
        while True:
            connection.send(scan_shard(worker, connection.recv()))
    except UserError as error:
        connection.send(error)
    except EOFError:
        pass


class _Process:
    """A worker's process, the pipe to it, and what it is at."""

    def __init__(self, task: Task) -> None:
        # A fresh interpreter: torch's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, task), daemon=True)
        self.process.start()
        theirs.close()
        self.work: Work | None = None

    def answer(self) -> Done | UserError | None:
        """What it says: None once it is ready.

        Raises:
            EOFError, OSError: it has died.
        """
        answer: Done | UserError | None = self.connection.recv()
        return answer

    def give(self, work: Work) -> None:
        self.work = work
        with suppress(OSError):  # it has died meanwhile, as its pipe will say
            self.connection.send(work)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class _Queue:
    """What is to be done: first what a worker died of, then what is new."""

    def __init__(self, works: Iterable[Work]) -> None:
        self._new, self._again = iter(works), list[Work]()

    def next(self) -> Work | None:
        return self._again.pop() if self._again else next(self._new, None)

    def died(self, work: Work | None) -> Done | None:
        """A worker died of this; what is to be said of it if it was not the first.

        Raises:
            UserError: it died before it was given any work.
        """
        if work is None:
            raise UserError(
                "a worker died before it read anything, perhaps for lack of memory: take fewer "
                "--workers"
            )
        if work.deaths + 1 == ATTEMPTS:
            return Done(work, 0, f"{ATTEMPTS} workers died of it, perhaps for lack of memory")
        self._again.append(work._replace(deaths=work.deaths + 1))
        return None


def scan_in_processes(task: Task, works: Iterable[Work], workers: int) -> Iterator[Done]:
    """Scan all shards; what came of each, as soon as it is done.

    Args:
        works: read as they are needed.
        workers: number of processes.

    Raises:
        UserError: no shard can be scanned: release, registry or disk cannot be used.
    """
    queue, processes = _Queue(works), [_Process(task) for _ in range(workers)]
    try:
        while processes:
            said = wait([process.connection for process in processes])
            for process in [one for one in processes if one.connection in said]:
                try:
                    answer = process.answer()
                except (EOFError, OSError):
                    processes.remove(process)
                    process.stop()
                    if (failed := queue.died(process.work)) is not None:
                        yield failed
                    processes.append(_Process(task))
                    continue
                if isinstance(answer, UserError):
                    raise answer
                if answer is not None:
                    yield answer
                if (work := queue.next()) is not None:
                    process.give(work)
                else:
                    processes.remove(process)
                    process.stop()
    finally:
        for process in processes:
            process.stop()
