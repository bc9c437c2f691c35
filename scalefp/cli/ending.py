"""How a command ends: its exit code, and one sentence for whatever went wrong.

Exit codes: 0 done, 1 nobody (``attribute``, and nothing else), 2 what the user can mend, 3 what
was not foreseen, 130 interrupted, 141 the reader of the output has gone.
"""

import os
import sys
from collections.abc import Callable, Sequence

from scalefp.cli.interruption import INTERRUPTED
from scalefp.cli.output import BROKEN_PIPE, MISTAKE, UNFORESEEN, say, without_keys, write
from scalefp.errors import UserError

DEBUG = "SCALEFP_DEBUG"  # environment: 1 shows where an error came from


def ended(answer: Callable[[], int], signals: Sequence[int] = ()) -> int:
    """The exit code of a command, with its one sentence said if it fails.

    Args:
        answer: runs it.
        signals: holds something once the command was interrupted.

    Raises:
        SystemExit: what ``answer`` raised.
    """
    try:
        _open_streams()
        return _written(answer)
    except SystemExit:
        raise
    except BaseException as error:
        if signals or isinstance(error, KeyboardInterrupt):
            return INTERRUPTED
        return _code_of(error)
    finally:
        _drop_output()


def _written(answer: Callable[[], int]) -> int:
    """The exit code of ``answer`` when everything that it printed is out."""
    try:
        code = answer()
    except SystemExit:  # --help and --version
        write("")
        raise
    write("")
    return code


def _code_of(error: BaseException) -> int:
    """The exit code for what a command raised, said in one sentence where there is one to say."""
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    if os.environ.get(DEBUG) == "1":
        import traceback

        sys.stderr.write(without_keys("".join(traceback.format_exception(error))))
    if isinstance(error, UserError):
        say(str(error))
        return MISTAKE
    if isinstance(error, OSError):
        why = error.strerror or str(error) or type(error).__name__
        say(f"{error.filename}: {why}" if error.filename is not None else why)
        return MISTAKE
    say(_unforeseen(error))
    return UNFORESEEN


def _unforeseen(error: BaseException) -> str:
    text = " ".join(str(error).split())
    # Torch has no kind of its own for this.
    if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text:
        return "the memory is not enough for this: ask for less at once, or use a larger machine"
    about = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return (
        f"this was not foreseen ({about[:500]}): please report it with what {DEBUG}=1 shows "
        "before the same command"
    )


def _open_streams() -> None:
    """Have all three standard streams open: a file must not get the number of a closed one."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        raise UserError("standard output is closed: send the result to a file, or to /dev/null")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal has every letter


def _drop_output() -> None:
    """Drop what standard output cannot take, or Python would complain of it at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
