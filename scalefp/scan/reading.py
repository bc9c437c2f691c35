"""Some images -> what the decoder read in each, whatever the others are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from scalefp.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from scalefp.attribution.reading import Reading
    from scalefp.release.reader import Reader

BATCH = 8  # images decoded at a time


class Readable(Protocol):
    """An image that is somewhere."""

    @property
    def name(self) -> str: ...

    def read(self, max_pixels: int) -> Image.Image:
        """8-bit RGB; UserError names it if it cannot be read."""


class How(NamedTuple):
    """How images are read."""

    search: bool
    max_pixels: int


class Outcome(NamedTuple):
    """What came of one image: its reading, or the sentence that says why there is none."""

    name: str
    reading: Reading | None
    problem: str = ""


def read_batch(model: Reader, images: Sequence[Readable], how: How) -> list[Outcome]:
    """Read some images; those that cannot be read are no obstacle to the others."""
    pictures, problems = [], {}
    for number, image in enumerate(images):
        try:
            pictures.append(image.read(how.max_pixels))
        except UserError as error:
            problems[number] = str(error)
    readings = iter(model.decode(pictures, search=how.search, progress=False) if pictures else ())
    return [
        Outcome(image.name, None, problems[number])
        if number in problems
        else Outcome(image.name, next(readings))
        for number, image in enumerate(images)
    ]
