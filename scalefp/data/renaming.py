"""Names of images that are written anew as PNG files, under the names that they had."""

import os
from collections import Counter
from collections.abc import Sequence

from scalefp.data.images import SUFFIXES
from scalefp.errors import UserError


def png_name(name: str) -> str:
    """The name of the PNG file of an image: ``a/b.jpg`` becomes ``a/b.png``."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() == ".png":
        return name
    return f"{stem}.png" if suffix.lower() in SUFFIXES else f"{name}.png"


def _is_fit(name: str) -> bool:
    """Whether a name leads to a place below a folder (in a zip it may be any) and is text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "" not in name.split("/")  # ".." was never read: it counts as hidden


def check_png_names(names: Sequence[str]) -> None:
    """Raise UserError unless images of these names, as a source has them, get a file each."""
    for name in names:
        if not _is_fit(name):
            raise UserError(f"{name!r} is not a name that another file can have: rename that file")
    for name, times in Counter(map(png_name, names)).most_common(1):
        if times > 1:
            clash = [each for each in names if png_name(each) == name]
            raise UserError(f"{' and '.join(clash)} would both become {name}: rename one of them")
