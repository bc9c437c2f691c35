"""``results.json``: what a training reached, by which options and which version of the code."""

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scalefp.experiment import code_version, content_digest, hardware, write_json

RESULTS = "results.json"
HOW = ("name", "run.")  # options that change no figure


def write_training(
    release: Path, figures: Mapping[str, float], options: Mapping[str, Any], seconds: float
) -> None:
    """Write what a training reached, beside its release.

    Args:
        figures: the last line of its log.
        options: all of them, by dotted name.
        seconds: that this process took; those of finished ones before it are added.
    """
    import torch  # not needed by whoever reads results

    folder = release.parent
    before = (read_results(folder) or {}).get("environment", {}).get("seconds", 0)

    write_json(
        folder / RESULTS,
        {
            "figures": dict(figures),
            "options": dict(options),
            "release": content_digest(release),
            "version": code_version(),
            "environment": {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(before + seconds, 1),
                "hardware": hardware(),
                "python": platform.python_version(),
                "torch": torch.__version__,
            },
        },
    )


def read_results(folder: Path) -> dict[str, Any] | None:
    """What a job left; None if it left nothing, or nothing whole."""
    try:
        results = json.loads((folder / RESULTS).read_bytes())
    except (OSError, ValueError):
        return None
    return results if isinstance(results, dict) else None


def finished(folder: Path, options: Mapping[str, Any]) -> dict[str, float] | None:
    """The figures of a training that a folder holds whole; None if there is something to do.

    Args:
        options: of the training that is asked for; of one with others nothing is taken.
    """
    results = read_results(folder) or {}
    before, figures = results.get("options"), results.get("figures")
    if not isinstance(before, dict) or not isinstance(figures, dict):
        return None
    names = {name for name in before.keys() | options.keys() if not name.startswith(HOW)}
    now = json.loads(json.dumps(dict(options)))
    same = all(name in before and name in now and before[name] == now[name] for name in names)
    return figures if same and (folder / "release.safetensors").is_file() else None
