"""Writing data sets: finished images wait in a folder, and the set appears only when whole.

``prepare`` writes a data set at one resolution as the zip that ``ImageSet`` (and StyleGAN) reads.
"""

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from scalefp.data.dataset import check_resolution, for_each, report_skipped
from scalefp.data.images import fit, save_png
from scalefp.data.source import Source, resolve_source
from scalefp.data.unfinished import Unfinished
from scalefp.errors import UserError
from scalefp.files import atomic_path

WHOLE_ZIP = "dataset.zip"  # in the folder of unfinished work
CELEBA_SIZE = (178, 218)  # width, height of the aligned images


def _crop_celeba(image: Image.Image, name: str) -> Image.Image:
    """The published 128 x 128 crop of aligned CelebA, centred at column 89, row 121."""
    if image.size != CELEBA_SIZE:
        width, height = image.size
        raise UserError(f"{name} is {width}x{height}, not an aligned CelebA image (178x218)")
    return image.crop((89 - 64, 121 - 64, 89 + 64, 121 + 64))


@dataclass(frozen=True)
class PrepareReport:
    """What ``prepare`` did."""

    out: Path
    written: int  # images in the zip
    reused: int  # of these, finished by an earlier, interrupted run
    skipped: list[tuple[str, str]]  # (name, reason) of files that are no images or broken
    repeated: bool = False  # the same call had made the zip before: nothing was done


def check_place(out: Path, source: Path) -> None:
    """Raise UserError unless ``out`` has a folder to be in, and that is not the data itself."""
    if not out.parent.is_dir():
        raise UserError(f"folder {out.parent} does not exist: create it or choose another --out")
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{out} lies inside the data {source}: choose another --out")


def write_zip(out: Path, files: Iterable[tuple[str, Path]], about: dict[str, Any]) -> None:
    """PNG files under new names as one uncompressed zip, in StyleGAN's layout; always the same
    bytes. ``about`` is what ``dataset.json`` says: the pairs of ``labels``, or None."""
    with (
        atomic_path(out) as unfinished,
        zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, file in files:
            archive.writestr(zipfile.ZipInfo(name), file.read_bytes())
        archive.writestr(zipfile.ZipInfo("dataset.json"), json.dumps(about))


def _finished(partial: Path, index: int) -> Path:
    return partial / f"{index:08d}.png"


def _made_before(out: Path, settings: dict[str, object]) -> PrepareReport | None:
    """The report of a finished call with these settings, if that made ``out``."""
    try:
        with zipfile.ZipFile(out) as archive:
            about = json.loads(archive.read("dataset.json"))
            written = len(archive.namelist()) - 1
        made = about["prepared"]
        if made["settings"] != settings:
            return None
        skipped = [(str(name), str(why)) for name, why in made["skipped"]]
    # Whatever else has that name is somebody else's.
    except (OSError, zipfile.BadZipFile, ValueError, LookupError, TypeError, RuntimeError):
        return None
    return PrepareReport(out, written, written, skipped, repeated=True)


def prepare(
    source: str | Path,
    out_zip: str | Path,
    resolution: int,
    crop: str = "center",
    workers: int = 0,
    progress: bool = True,
) -> PrepareReport:
    """Write a data set at one resolution: an uncompressed zip of RGB PNGs with ``dataset.json``.

    Images are cropped (``center``: the largest centred square; ``celeba``: the published crop of
    aligned 178 x 218 CelebA) and resized with Lanczos; labels are kept, and ``originals`` in
    ``dataset.json`` says which of the user's files became which image. Finished images wait in
    ``OUT.partial/``: the same call after an interruption goes on from there, and the zip appears
    under its name only when whole. It tells what it was made of, so that the same call once more
    finds it and does nothing.

    Raises:
        UserError: as ``ImageSet``; or OUT exists, lies inside the source or cannot be written, or
            ``OUT.partial`` belongs to other settings.
    """
    check_resolution(resolution)
    if crop not in ("center", "celeba"):
        raise UserError(f"crop {crop!r} is not known: choose center or celeba")
    path, out = resolve_source(source), Path(out_zip)
    check_place(out, path)

    with Source(path) as entries:
        settings: dict[str, object] = {
            "source": entries.digest(),
            "resolution": resolution,
            "crop": crop,
        }
        unfinished = Unfinished(out, settings)
        partial = unfinished.folder
        if (earlier := unfinished.take_up_the_end()) is not None:
            return _report(out, earlier)
        if (made := _made_before(out, settings)) is not None:
            return made
        if out.exists():
            raise UserError(f"{out} exists already: remove it or choose another --out")
        labels = entries.labels()
        unfinished.claim()
        count = len(entries.names)
        reused = sum(_finished(partial, index).exists() for index in range(count))

        def convert(index: int) -> str | None:
            if _finished(partial, index).exists():
                return None
            try:
                image = entries.read(index)
                if crop == "celeba":
                    image = _crop_celeba(image, entries.names[index])
            except UserError as error:
                return str(error)
            save_png(_finished(partial, index), fit(image, resolution))
            return None

        reasons = for_each(convert, count, workers, progress, "preparing images")
        if all(why is not None for why in reasons):
            unfinished.discard()
        skipped = report_skipped(entries, reasons)
        kept = [index for index, why in enumerate(reasons) if why is None]
        names = [entries.names[index] for index in kept]
        kept_labels = [labels[name] for name in names if name in labels]
        named = entries.originals()

    members = [f"{row // 1000:05d}/img{row:08d}.png" for row in range(len(kept))]
    files = [(member, _finished(partial, i)) for member, i in zip(members, kept, strict=True)]
    # Labels of all images, or none.
    pairs = list(zip(members, kept_labels, strict=True)) if len(kept_labels) == len(kept) else None
    originals = {m: named.get(name, name) for m, name in zip(members, names, strict=True)}
    whole = partial / WHOLE_ZIP
    made_of = {"settings": settings, "skipped": skipped}
    write_zip(whole, files, {"labels": pairs, "originals": originals, "prepared": made_of})
    report = {"written": len(kept), "reused": reused, "skipped": skipped}
    unfinished.finish(whole, report)
    return _report(out, report)


def _report(out: Path, report: dict[str, Any]) -> PrepareReport:
    skipped = [(name, why) for name, why in report["skipped"]]
    return PrepareReport(out=out, **report | {"skipped": skipped})
