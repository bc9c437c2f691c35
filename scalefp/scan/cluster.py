"""Workers on a Ray cluster: the same worker and the same files as in processes of one machine.

All machines see release, registry, sources and results under the same paths. Ray puts up a worker
anew if its process or machine dies, and gives it the same shard again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from scalefp.errors import UserError
from scalefp.scan.pool import ATTEMPTS, Done, Work, scan_shard
from scalefp.scan.worker import Task, Worker

RAY_HINT = "`pip install 'scalefp[ray]'`"


def import_ray() -> Any:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(f"--ray needs Ray, which is not installed: {RAY_HINT}") from error
    return ray


class _Actor:
    """A worker, as an actor of Ray."""

    def __init__(self, task: Task, folder: str) -> None:
        os.chdir(folder)  # relative paths mean what they mean to whoever typed them
        self.task, self.worker = task, None

    worker: Worker | None

    def scan(self, work: Work) -> Done | UserError:
        try:
            self.worker = self.worker or Worker(self.task)
            return scan_shard(self.worker, work)
        except UserError as error:
            return error


def connect(address: str, workers: int) -> Any:
    """Ray, connected to a cluster.

    Args:
        address: ``local`` starts one on this machine for as long as this process lives.
        workers: processor cores that a local one has.

    Raises:
        UserError: Ray is not installed, or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no word of this leaves the machine
    ray = import_ray()
    own = {"num_cpus": workers, "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, logging_level="ERROR", log_to_driver=False, **own)
    except Exception as error:  # of Ray's own kinds, and the network's
        why = " ".join(str(error).split())[:200]
        raise UserError(f"no Ray cluster can be reached at {address} ({why})") from error
    return ray


def scan_on_ray(task: Task, works: Iterable[Work], workers: int, address: str) -> Iterator[Done]:
    """As :func:`scalefp.scan.pool.scan_in_processes`, on a cluster.

    Args:
        address: see :func:`connect`.
    """
    ray = connect(address, workers)
    try:
        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=ATTEMPTS - 1)(_Actor)
        waiting = iter(works)
        at_work: dict[Any, tuple[Any, Work]] = {}  # answer to come -> who gives it, and to what

        def give(one: Any) -> None:
            if (work := next(waiting, None)) is not None:
                at_work[one.scan.remote(work)] = one, work

        for one in [actor.remote(task, os.getcwd()) for _ in range(workers)]:
            give(one)
        while at_work:
            (answer,), _ = ray.wait(list(at_work))
            one, work = at_work.pop(answer)
            try:
                done = ray.get(answer)
            except ray.exceptions.RayError:
                done = Done(work, 0, f"{ATTEMPTS} workers died of it, perhaps for lack of memory")
            if isinstance(done, UserError):
                raise done
            yield done
            give(one)
    finally:
        ray.shutdown()
