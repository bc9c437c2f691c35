"""What the result files of this folder have in common: how they were made and are kept."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scalefp.evaluation.run import hardware
from scalefp.files import atomic_path


def command() -> str:
    """The command line of this process, without the folders of this machine."""
    script = Path(sys.argv[0])
    words = [part.rsplit("/", 1)[-1] if part.startswith(("/", "..")) else part for part in sys.argv]
    return shlex.join(["python", f"experiments/{script.parent.name}/{script.name}", *words[1:]])


def making(seconds: float) -> dict[str, Any]:
    """Date, hardware, processor time and command of this run."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "cpu_seconds": round(seconds),
        "command": command(),
    }


def made(figures: Mapping[str, Any]) -> str:
    """How figures with :func:`making` came about, for the head of a table."""
    return (
        f"seed {figures['seed']}; {figures['date']}; {figures['hardware']}; "
        f"{figures['cpu_seconds']:,} s of processor time; `{figures['command']}`."
    )


def load_results(folder: Path) -> dict[str, Any]:
    """Name -> figures of earlier runs, those of other releases among them; or none."""
    path = folder / "results.json"
    results: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    return results


def write_results(folder: Path, results: Mapping[str, Any], table: str) -> None:
    """Write ``results.json`` and ``table.md``, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "results.json": json.dumps(results, indent=1, allow_nan=False) + "\n",
        "table.md": table,
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
