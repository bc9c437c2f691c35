"""Processes that read images for another one, and end when it does, however it ends."""

import multiprocessing
import os
import signal
from threading import Thread


def _end_with_owner() -> None:
    """Wait for the end of the process that started this one, and end with it.

    A pipe that closes would tell as well, but is not looked at while an image is being decoded.
    """
    owner = multiprocessing.parent_process()
    if owner is not None:
        owner.join()
        os._exit(1)


def serve_owner() -> None:
    """Called first in a process that works for the one that started it.

    Ctrl+C reaches every process of the terminal: this one goes on until its owner stops it or ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_owner, daemon=True).start()
