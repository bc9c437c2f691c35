"""What is known of the marks in a data set: the record beside it, and what the marker reads.

The record of a data set ``marked`` is the file ``marked.marks.json`` beside it. It holds the keys,
so it stays with the owner when the data is given away.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scalefp.artificial.marker import Marker
from scalefp.attribution.evidence import IssuedKeys
from scalefp.data.images import to_tensor
from scalefp.data.source import Source
from scalefp.errors import UserError
from scalefp.files import atomic_path, counted
from scalefp.key import Key
from scalefp.release.evenness import above_noise

SUFFIX = ".marks.json"
SAMPLE = 64  # images looked at
# Readings of unmarked images are about as even as noise: of a hundred hardly one exceeds it by 3 of
# its standard deviations, where marked images reach 3 to 10.
EVEN = 3.0
SHARE = 1 / 8  # of the sample that must read as marked


def record_path(data: Path) -> Path:
    """Where the record of a data set is, or would be."""
    return data.with_name(data.name + SUFFIX)


@dataclass(frozen=True)
class MarkRecord:
    """The keys in a marked data set, as attribution asks for them: a :class:`KeySource`.

    Attributes:
        model_digest: of the marker that wrote the marks.
        keys: key of each holder: of each image by the name of the user's file, or the one key of
            all images by the name of the data set.
    """

    model_digest: str
    keys: dict[str, Key]

    def __len__(self) -> int:
        """Number of keys."""
        return len(self.keys)

    @property
    def n_bits(self) -> int:
        """Key length."""
        return next(iter(self.keys.values())).n_bits

    def keys_and_holders(self) -> IssuedKeys:
        """All keys, packed, and whose they are."""
        packed = np.frombuffer(b"".join(key.bytes for key in self.keys.values()), np.uint8)
        return IssuedKeys(packed.reshape(len(self.keys), -1), list(self.keys))

    def confirm(self, issued: IssuedKeys, indices: Sequence[int]) -> None:
        """There is no log to compare with."""


def write_record(
    out: Path,
    marker: Marker,
    psnr: float | None,
    keys: Key | dict[str, Key],
    originals: dict[str, str] | None = None,
    made: dict[str, object] | None = None,
) -> None:
    """Write the record of a marked data set, for its owner's eyes only.

    Args:
        psnr: strength of the mark in dB, None if it was none that was set.
        keys: of all images, or of each by its name in the marked set.
        originals: image in the marked set -> the user's file that it was made of.
        made: ``settings`` of what marked the set, and its ``report``; see :func:`made_of`.
    """
    embedded: dict[str, object]
    if isinstance(keys, Key):
        embedded = {"key": str(keys)}
    else:
        embedded = {"keys": {name: str(key) for name, key in keys.items()}}
        embedded["originals"] = originals or {}
    note = "secret: whoever has the keys can tell, and forge, these marks"
    record = {"note": note, "model_digest": marker.digest, "psnr": psnr} | embedded
    if made is not None:
        record["made"] = made
    with atomic_path(record_path(out), secret=True) as temporary:
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")


def made_of(data: Path) -> dict[str, Any] | None:
    """``settings`` and ``report`` of what marked a data set, by its record; None if unknown."""
    try:
        made = json.loads(record_path(data).read_bytes())["made"]
        known = isinstance(made["settings"], dict) and isinstance(made["report"], dict)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return made if known else None


def read_record(path: str | Path) -> MarkRecord:
    """Read a file of :func:`write_record`.

    Raises:
        UserError: missing, or no whole record.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes())
        digest, hexadecimal = content["model_digest"], content.get("keys")
        if hexadecimal is None:
            hexadecimal = {path.name.removesuffix(SUFFIX): content["key"]}
        originals = content.get("originals", {})
        keys = {originals.get(name, name): Key.from_hex(key) for name, key in hexadecimal.items()}
        lengths = {key.n_bits for key in keys.values()}
        whole = isinstance(digest, str) and len(keys) == len(hexadecimal) and len(lengths) == 1
    except OSError as error:
        raise UserError(f"cannot read the record {path} ({error.strerror or error})") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise UserError(
            f"{path} is not a whole record of marks: give the file NAME{SUFFIX} that "
            "`scalefp artificial embed` wrote beside the marked data"
        )
    return MarkRecord(digest, keys)


def evenly(numbers: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the numbers, evenly spread over them."""
    places = torch.linspace(0, len(numbers) - 1, min(count, len(numbers))).long().tolist()
    return [numbers[place] for place in places]


def refuse_marked(marker: Marker, entries: Source, usable: Sequence[int]) -> None:
    """Raise UserError, saying what was found, if a data set carries marks of this marker.

    Some of its images are read. Marks of another marker are known only by their record.

    Args:
        usable: numbers of the images of the marker's resolution, at least one.
    """
    mend = "mark the original images instead, or mark these once more by --again"
    record = record_path(entries.path)
    if record.exists():
        raise UserError(f"{entries.path} is marked already, as {record} says: {mend}")
    images = []
    for index in evenly(usable, SAMPLE):
        try:
            images.append(entries.read(index))
        except UserError:  # broken, to be skipped later on
            continue
    if not images:
        return
    reading = marker.decode(to_tensor(images, marker.config.resolution), search=False)
    marked = int((above_noise(torch.from_numpy(reading.logits.copy())) > EVEN).sum())
    if marked >= SHARE * len(images):
        raise UserError(
            f"{entries.path} is marked already: this marker reads a mark in {marked} of "
            f"{counted(len(images), 'image')} looked at (`scalefp artificial detect` "
            f"shows the keys): {mend}"
        )
