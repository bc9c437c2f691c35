"""What the trainings of each setting make: a row of pictures each, to be judged by eye."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from scalefp.studies.table import as_text

GRIDS = "grids/latents-*.png"  # as trainings write them: 8 in a row, 2 pixels between
ACROSS, BETWEEN = 8, 2
SIDE = 64  # smaller pictures are enlarged to about this many pixels
TEXT = ImageFont.load_default(12)


def newest_grid(folder: Path) -> str | None:
    """The last grid of pictures in a training's folder, by its name there; None if it has none."""
    grids = sorted(folder.glob(GRIDS))
    return grids[-1].relative_to(folder).as_posix() if grids else None


def sheet(root: Path, report: Mapping[str, Any]) -> Image.Image | None:
    """The first row of the newest grid of each setting's first job; None if there are none.

    Args:
        root: of the sweep.
        report: see :func:`scalefp.studies.report.make_report`.
    """
    strips: dict[str, Image.Image] = {}
    for job in report["finished"]:
        if job["pictures"] is not None and (name := _label(job["setting"])) not in strips:
            with suppress(OSError, SyntaxError):  # a damaged file costs its own row
                strips[name] = _strip(root / job["job"] / job["pictures"])
    labels = [name for row in report["rows"] if (name := _label(row["setting"])) in strips]
    if not labels:
        return None
    left = 12 + max(round(TEXT.getlength(name)) for name in labels)
    width = left + max(strip.width for strip in strips.values())
    canvas = Image.new("RGB", (width, sum(strips[name].height for name in labels)), "white")
    draw, top = ImageDraw.Draw(canvas), 0
    for name in labels:
        canvas.paste(strips[name], (left, top))
        draw.text((6, top + strips[name].height // 2 - 7), name, "black", TEXT)
        top += strips[name].height
    return canvas


def _label(setting: Mapping[str, Any]) -> str:
    """The values of a setting, with their names where there are several."""
    if len(setting) == 1:
        return as_text(*setting.values())
    return ", ".join(f"{name}={as_text(value)}" for name, value in setting.items())


def _strip(path: Path) -> Image.Image:
    with Image.open(path) as file:
        cell = (file.width - BETWEEN) // ACROSS
        strip = file.convert("RGB").crop((0, 0, file.width, cell + BETWEEN))
    times = max(1, round(SIDE / cell))
    return strip.resize((strip.width * times, strip.height * times), Image.Resampling.NEAREST)
