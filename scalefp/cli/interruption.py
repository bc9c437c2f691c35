"""Ctrl-C: answered in one way from a command's first moment to its last."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 130  # exit code


@contextmanager
def interruption(*, process: bool) -> Iterator[list[int]]:
    """Within this, the first Ctrl-C raises KeyboardInterrupt and is noted in the list.

    The second ends the process at once. Whoever ignores Ctrl-C goes on ignoring it.

    Args:
        process: the process ends with this, so that afterwards Ctrl-C is left to the system.
    """
    signals: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if signals:
            os._exit(INTERRUPTED)
        signals.append(number)
        raise KeyboardInterrupt

    def unraisable(lost: Any) -> None:
        """A finalizer cannot raise what interrupts it: the process ends here, or would go on."""
        if issubclass(lost.exc_type, KeyboardInterrupt):
            os._exit(INTERRUPTED)
        hook(lost)

    hook = sys.unraisablehook
    signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook = unraisable
    try:
        yield signals
    except Exception as error:
        # A library may turn the interruption of its import into an error of its own.
        if signals:
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGINT, signal.SIG_DFL if process else before or signal.SIG_DFL)
