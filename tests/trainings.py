"""What the tests of trainings share."""

import json
from pathlib import Path
from typing import Any


def change_options(config: Any, changes: dict[str, Any]) -> None:
    """Set options of a training by their dotted names."""
    for name, value in changes.items():
        *path, last = name.split(".")
        part = config
        for step in path:
            part = getattr(part, step)
        assert hasattr(part, last), name
        setattr(part, last, value)


def log_of(run_dir: Path) -> list[dict[str, float]]:
    """Lines of the log without what depends on the clock."""
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]
