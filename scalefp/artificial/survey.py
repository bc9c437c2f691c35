"""What is looked at before a data set is marked: where it goes, and what it holds."""

from pathlib import Path

from scalefp.artificial.marks import record_path
from scalefp.data.dataset import for_each, report_skipped
from scalefp.data.renaming import check_png_names
from scalefp.data.source import Source
from scalefp.errors import UserError


def check_out(out: Path, partial: Path) -> None:
    """Raise UserError if anything is in the place of the output or of the record of its keys."""
    if out.suffix.lower() == ".zip":
        if out.exists():
            raise UserError(f"{out} exists already: remove it or choose another --out")
    elif out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose a folder, or a name that ends in .zip")
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"folder {out} holds other files: choose an empty or a new one as --out")
    marks = record_path(out)
    if marks.exists() and not partial.exists():
        raise UserError(
            f"{marks} exists already, and may be the only record of earlier marks: "
            "move it away or choose another --out"
        )


def survey(entries: Source, resolution: int, workers: int, progress: bool) -> list[str | None]:
    """For every file why it is no image, or None; by the headers alone.

    Raises:
        UserError: an image of another resolution, or names that the marked set cannot have.
    """

    def look(index: int) -> str | None:
        try:
            width, height = entries.size(index)
        except UserError as error:
            return str(error)
        if (width, height) == (resolution, resolution):
            return None
        raise UserError(
            f"{entries.names[index]} is {width}x{height}, and this marker marks "
            f"{resolution}x{resolution} only: make such a set by `scalefp data prepare "
            f"{entries.path} --resolution {resolution} --out NEW.zip`"
        )

    reasons = for_each(look, len(entries.names), workers, progress, "checking images")
    usable = [index for index, why in enumerate(reasons) if why is None]
    if not usable:
        report_skipped(entries, reasons)  # says so
    # Marks do not go into JPEGs.
    check_png_names([entries.names[index] for index in usable])
    return reasons
