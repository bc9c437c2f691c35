"""Uploaded bytes -> pixels, in processes of their own.

An image decoder is the one part that runs on a stranger's bytes. A process can be killed when it
takes too long (a small JPEG can ask for minutes of work) and, if it crashes, takes nothing along.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalefp.data.images import read_image, to_tensor
from scalefp.data.processes import serve_owner
from scalefp.errors import UserError
from scalefp.service.limits import Limits, Refused, busy

START_SECONDS = 60.0
# Private memory that one process may have: what it has imported, and generously for each pixel.
BASE_BYTES, PIXEL_BYTES = 1 << 30, 40
# A process that took so much for an image is replaced: what it has freed it may keep for itself.
RETIRE_BYTES = 128 << 20

Pixels = NDArray[np.uint8]


class Upload(NamedTuple):
    """One file as it was sent."""

    name: str
    data: bytes


def _peak_memory() -> int:
    """The most memory that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10  # Linux counts KiB


def _serve(connection: Connection, resolution: int, max_pixels: int) -> None:
    """The process: an Upload in; pixels [3, R, R] or a sentence out, until the pipe closes."""
    serve_owner()
    memory = BASE_BYTES + PIXEL_BYTES * max_pixels
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold the image
    connection.send(None)
    without_image = _peak_memory()
    while True:
        try:
            name, data = connection.recv()
        except EOFError:
            return
        answer: Pixels | str
        try:
            image = read_image(data, name, max_pixels=max_pixels)
            answer = to_tensor([image], resolution)[0].numpy()
        except UserError as error:
            answer = str(error)
        connection.send(answer)
        if _peak_memory() - without_image > RETIRE_BYTES:
            return


class _Reader:
    """One process and the pipe to it; started again after it had to be killed, or has ended."""

    def __init__(self, resolution: int, limits: Limits) -> None:
        self.resolution, self.limits = resolution, limits
        self._start()

    def _start(self) -> None:
        # Children are forked from a server that has imported everything but started no thread.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, self.resolution, self.limits.pixels), daemon=True
        )
        self.process.start()
        theirs.close()
        self.alive = True
        self.answer(START_SECONDS)

    def answer(self, seconds: float) -> Pixels | str | None:
        """What the process says next.

        Raises:
            TimeoutError, EOFError, OSError: it said nothing in time, or has died.
        """
        try:
            if not self.connection.poll(seconds):
                raise TimeoutError
            answer: Pixels | str | None = self.connection.recv()
        except (EOFError, OSError):  # TimeoutError is an OSError
            self.stop()
            raise
        return answer

    def stop(self) -> None:
        self.alive = False
        self.process.kill()
        self.process.join()
        self.connection.close()

    def read(self, upload: Upload) -> Pixels | Refused:
        """uint8 [3, R, R], or why there are no pixels."""
        for _ in range(2):  # twice, since the process may have died before it got this image
            if not self.alive:
                self._start()
            try:
                self.connection.send(upload)
                answer = self.answer(self.limits.image_seconds)
            except TimeoutError:
                return Refused(
                    422,
                    "image_too_slow",
                    f"{upload.name} could not be decoded within {self.limits.image_seconds:g} s: "
                    "save it anew, or make it smaller",
                )
            except (EOFError, OSError):
                self.stop()
                continue
            if isinstance(answer, str):
                return Refused(422, "image_refused", answer)
            assert answer is not None
            return answer
        return Refused(422, "image_refused", f"{upload.name} cannot be decoded: save it anew")


class Readers:
    """``count`` processes, each reading the images of one request at a time.

    Args:
        resolution: R, of the pixels returned.
    """

    def __init__(self, count: int, resolution: int, limits: Limits) -> None:
        self._idle: SimpleQueue[_Reader] = SimpleQueue()
        self._all = [_Reader(resolution, limits) for _ in range(count)]
        for reader in self._all:
            self._idle.put(reader)
        self.threads = ThreadPoolExecutor(count, thread_name_prefix="reader")
        self.seconds = limits.work_seconds

    def read(self, uploads: Sequence[Upload]) -> list[Pixels | Refused]:
        """For each image uint8 [3, R, R], or why it is refused: broken, too large, too slow.

        Blocks: call it in ``threads``, which are as many as processes.

        Raises:
            Refused: all of them together take too long.
        """
        reader, end = self._idle.get(), time.monotonic() + self.seconds
        try:
            answers = []
            for upload in uploads:
                if time.monotonic() > end:
                    raise busy()  # nobody waits for it any longer
                answers.append(reader.read(upload))
            return answers
        finally:
            self._idle.put(reader)

    def close(self) -> None:
        """Stop the processes; what they are reading is lost."""
        for reader in self._all:
            reader.stop()
        self.threads.shutdown(cancel_futures=True)
