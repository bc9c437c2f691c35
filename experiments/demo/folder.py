"""The folder that the demo writes: claimed safely, filled with image files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

import scalefp
from scalefp.data.images import save_png

HOLDERS = ("alice", "bob", "carol")
ABOUT = "about.txt"
ABOUT_TEXT = "Written by experiments/demo/demo.py, whose next run replaces everything here.\n"
OWN_FILES = re.compile(
    r"about\.txt|(keys|marks|photos|bound)\.db(-journal)?|report\.html|sheet\.png|images/data-set\.marks\.json"
    rf"|({'|'.join(HOLDERS)})(-decoder|-bound)?\.(safetensors|onnx)|bound\.safetensors"
    rf"|images/(({'|'.join(HOLDERS)})(-decoder)?(-jpeg|-onnx)?|decoder|never-issued|training-data|synthetic"
    r"|unmarked-set|lifted|data-set(-jpeg)?)"
    r"/\d{4}\.(png|jpg)"
    r"|training/(log\.jsonl|state\.pt|release\.safetensors|grids/[\w-]+\.png)"
)


def claim(out: Path) -> None:
    """Make the folder, or empty it if it holds nothing but an earlier run of this demo.

    Raises:
        UserError: it holds anything else, or cannot be written.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise scalefp.UserError(f"{out} is not a folder: choose another --out.")
    inside = sorted(out.rglob("*")) if out.exists() else []
    files = [path for path in inside if path.is_symlink() or not path.is_dir()]
    for path in files:
        name = path.relative_to(out).as_posix()
        if path.is_symlink() or not OWN_FILES.fullmatch(name):
            raise scalefp.UserError(
                f"{out} holds {name}, which this demo did not write: choose another --out."
            )
    if files and not (out / ABOUT).is_file():
        raise scalefp.UserError(f"{out} is not from this demo (no {ABOUT}): choose another --out.")
    try:
        # The mark goes last, so that an interrupted clean-up can be repeated.
        for path in sorted(files, key=lambda path: path.name == ABOUT):
            path.unlink()
        for folder in reversed([path for path in inside if path not in files]):
            folder.rmdir()
        out.mkdir(parents=True, exist_ok=True)
        (out / ABOUT).write_text(ABOUT_TEXT, encoding="utf-8")
    except OSError as error:
        raise scalefp.UserError(f"cannot write {out} ({error.strerror}).") from error


def save_images(folder: Path, images: Iterable[Image.Image]) -> list[Path]:
    """Write PNG files 0000.png, 0001.png, ... as `scalefp sample` does."""
    folder.mkdir(parents=True)
    files = []
    for number, image in enumerate(images):
        files.append(folder / f"{number:04d}.png")
        save_png(files[-1], image)
    return files


def save_jpegs(folder: Path, originals: Sequence[Path], quality: int) -> list[Path]:
    """Copies of image files, re-encoded with loss."""
    folder.mkdir(parents=True)
    files = [folder / f"{original.stem}.jpg" for original in originals]
    for original, file in zip(originals, files, strict=True):
        with Image.open(original) as image:
            image.save(file, quality=quality)
    return files
