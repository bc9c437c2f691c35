"""Finished jobs of transfer.py, found again by what they were trained on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalefp.artificial.marker import Marker
from scalefp.errors import UserError
from scalefp.key import Key


@dataclass(frozen=True)
class Job:
    """A generator that was trained, and for which key.

    Attributes:
        folder: with result.json, samples.zip and generator.safetensors.
        settings: what the result depends on.
        key: written into the data, or only searched for if the data was not marked.
    """

    folder: Path
    settings: dict[str, Any]
    key: Key

    @property
    def samples(self) -> Path:
        """The images it made."""
        return self.folder / "samples.zip"


def find_jobs(folder: Path, marker: Marker, *, generator: str, marked: bool) -> list[Job]:
    """All finished jobs in ``folder`` on this marker's data, ordered by seed.

    Raises:
        UserError: there is none.
    """
    found = []
    for path in sorted(folder.glob("*/result.json")):
        result = json.loads(path.read_bytes())
        settings = result["settings"]
        wanted = {"marker": marker.digest, "generator": generator, "marked": marked}
        if wanted.items() <= settings.items():
            key = Key.from_hex(result["key"], marker.config.n_bits)
            found.append(Job(path.parent, settings, key))
    if not found:
        kind = "marked" if marked else "clean"
        raise UserError(
            f"{folder} holds no finished job of a {generator} on {kind} data of this marker: "
            "run transfer.py first"
        )
    return sorted(found, key=lambda job: int(job.settings["seed"]))
