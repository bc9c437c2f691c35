"""Killing a piece of work at any point at which a file gets or loses its name."""

import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

KILLED = 77


def killed_at(number: int, work: Callable[[], Any], *operations: str) -> bool:
    """Run ``work`` in a process of its own that ends, as by ``kill -9``, before the ``number``-th
    of these operations of ``os`` (from 1); whether it came that far."""
    child = os.fork()
    if child == 0:
        try:
            seen = 0

            def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
                def call(*arguments: Any, **options: Any) -> Any:
                    nonlocal seen
                    seen += 1
                    if seen == number:
                        os._exit(KILLED)
                    return operation(*arguments, **options)

                return call

            for name in operations:
                patch.object(os, name, counted(getattr(os, name))).start()
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED), "the work failed by itself"
    return code == KILLED
