"""How figures came about: date, hardware, processor time, command and version of the code."""

import hashlib
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from scalefp import __version__


def processor() -> str:
    """Name of the processor, as Linux tells it; elsewhere what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hardware() -> str:
    """Processor and cores; where the program has loaded torch, also GPU and number of threads."""
    name = f"{processor()} ({os.cpu_count()} cores)"
    torch = sys.modules.get("torch")  # what runs without it should not load it for this note
    if torch is None:
        return name
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{gpu}{name}, {torch.get_num_threads()} threads used"


def command() -> str:
    """The command line of this script of ``experiments/``, without the folders of this machine."""
    script = Path(sys.argv[0])
    words = [part.rsplit("/", 1)[-1] if part.startswith(("/", "..")) else part for part in sys.argv]
    return shlex.join(["python", f"experiments/{script.parent.name}/{script.name}", *words[1:]])


@cache
def code_version() -> str:
    """The version of the package and a digest of its code, as ``0.4.0+1f9de66c``."""
    package = Path(str(files("scalefp")))
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"


def making(cpu_seconds: float) -> dict[str, Any]:
    """``date`` (UTC), ``hardware``, ``cpu_seconds`` and ``command`` of this run."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "cpu_seconds": round(cpu_seconds),
        "command": command(),
    }


def made(figures: Mapping[str, Any]) -> str:
    """How figures with ``seed`` and :func:`making` came about, for the head of a table."""
    return (
        f"seed {figures['seed']}; {figures['date']}; {figures['hardware']}; "
        f"{figures['cpu_seconds']:,} s of processor time; `{figures['command']}`."
    )
