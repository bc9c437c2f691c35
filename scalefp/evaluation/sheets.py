"""Contact sheets: what each strength of each perturbation or tampering looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

from scalefp.data.images import to_pil
from scalefp.evaluation.copies import tampered
from scalefp.evaluation.removal import UNTOUCHED, Attempt
from scalefp.evaluation.robustness import CLEAN, Point
from scalefp.evaluation.samples import EvaluateConfig, Samples, from_files, stream

CELL = 72  # pixels a side of each picture on a sheet
LABEL, TITLE = 12, 110  # height of a label, width of a row's title
TEXT = ImageFont.load_default(10)


def sheet(rows: Mapping[str, Sequence[tuple[str, Image.Image]]]) -> Image.Image:
    """One row a name: the name, then labelled pictures, all at ``CELL`` pixels."""
    columns = max(len(cells) for cells in rows.values())
    height = CELL + LABEL + 4
    canvas = Image.new("RGB", (TITLE + columns * (CELL + 4), len(rows) * height), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (name, cells) in enumerate(rows.items()):
        draw.text((4, row * height + CELL // 2), name, "black", TEXT)
        for column, (label, picture) in enumerate(cells):
            left, top = TITLE + column * (CELL + 4), row * height
            canvas.paste(picture.resize((CELL, CELL), Image.Resampling.BICUBIC), (left, top))
            draw.text((left, top + CELL), label, "black", TEXT)
    return canvas


def perturbation_sheet(
    samples: Samples, points: Sequence[Point], config: EvaluateConfig
) -> Image.Image:
    """One picture of the first instance at every point."""
    seed = int(stream(config, "sheet").integers(2**31))
    (picture,) = to_pil(from_files(samples.instance(0).sample(1, seed=seed)))
    rows: dict[str, list[tuple[str, Image.Image]]] = {}
    for point in points:
        if point.perturbation == CLEAN:
            rows[CLEAN] = [("", picture)]
            continue
        (changed,) = point.apply([picture], stream(config, f"sheet, {point.name}"))
        rows.setdefault(point.perturbation, []).append((f"{point.strength:.3g}", changed))
    return sheet(rows)


def tampering_sheet(
    samples: Samples, attempts: Sequence[Attempt], config: EvaluateConfig
) -> Image.Image:
    """The same picture of the first instance after every attempt at its weights."""
    copies = [samples.instance(0), samples.instance(1)]
    seed = int(stream(config, "sheet").integers(2**31))
    (picture,) = to_pil(from_files(copies[0].sample(1, seed=seed)))
    rows = {UNTOUCHED: [("", picture)]}
    for attempt in attempts:
        draw = torch.Generator().manual_seed(seed)
        changed = tampered(copies, attempt.tampering, attempt.strength, draw)
        (picture,) = to_pil(from_files(changed.sample(1, seed=seed)))
        rows.setdefault(attempt.tampering, []).append((f"{attempt.strength:.3g}", picture))
    return sheet(rows)
