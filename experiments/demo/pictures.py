"""Pictures of the results: bit strips, differences, and the sheet that shows all at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import scalefp
from scalefp.attribution.odds import in_words
from scalefp.data.images import read_image
from verdicts import Group, Results, Verdict, bits_off

# Colours of a bit that is read as 0 or 1: rightly in blue, wrongly in red.
RIGHT_COLOURS = np.array([[176, 200, 228], [38, 84, 140]], np.uint8)
WRONG_COLOURS = np.array([[255, 150, 130], [200, 20, 40]], np.uint8)

DIFFERENCE_GAIN = 10

# The sheet, in pixels.
CELL, GAP, MARGIN = 76, 6, 28
COLUMNS = 8  # images of a group that are shown
LINE = 15
BLACK, GREY, GREEN, RED = "#1a1a1a", "#666666", "#14713a", "#c0142c"


def key_strip(key: scalefp.Key, wrong: np.ndarray | None = None) -> Image.Image:
    """One pixel a bit, [n x 1], light = 0, dark = 1; red where ``wrong`` [n] says so."""
    bits = key.bits
    colours = RIGHT_COLOURS[bits]
    if wrong is not None:
        colours = np.where(wrong[:, None], WRONG_COLOURS[bits], colours)
    return Image.fromarray(colours[None].astype(np.uint8))


def _plain(words: str) -> str:
    """Only what Pillow's own font can draw."""
    return words.replace("×", "x")


def wrapped(strip: Image.Image, rows: int = 2) -> Image.Image:
    """A strip cut into rows, for narrow places; the last row may end in white."""
    width = -(-strip.width // rows)
    block = Image.new("RGB", (width, rows), "white")
    for row in range(rows):
        block.paste(strip.crop((row * width, 0, min(strip.width, (row + 1) * width), 1)), (0, row))
    return block


def difference(a: Image.Image, b: Image.Image) -> Image.Image:
    """(b - a) x 10 around mid grey."""
    gap = np.asarray(b, np.int16) - np.asarray(a, np.int16)
    return Image.fromarray((128 + DIFFERENCE_GAIN * gap).clip(0, 255).astype(np.uint8))


# The sheet.


class _Pen:
    """Draws onto the sheet and keeps its place from top to bottom of one column."""

    def __init__(self, sheet: Image.Image, left: int, top: int, width: int) -> None:
        self.sheet, self.draw = sheet, ImageDraw.Draw(sheet)
        self.left, self.y, self.width = left, top, width

    def text(self, text: str, size: int = 13, colour: str = BLACK, dx: int = 0) -> None:
        self.draw.text((self.left + dx, self.y), text, colour, ImageFont.load_default(size))

    def centred(self, text: str, x: int, y: int, colour: str) -> None:
        self.draw.text((x, y), text, colour, ImageFont.load_default(11), anchor="ma")

    def image(self, image: Image.Image, dx: int, size: tuple[int, int], smooth: bool) -> None:
        how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
        self.sheet.paste(image.resize(size, how), (self.left + dx, self.y))


def _caption(pen: _Pen, verdict: Verdict, right: bool, x: int) -> None:
    colour = RED if not right else GREEN if verdict.named else GREY
    pen.centred(verdict.answer, x, pen.y, colour)
    pen.centred(bits_off(verdict.n_errors), x, pen.y + 13, BLACK)
    pen.centred(_plain(in_words(verdict.p_value)), x, pen.y + 26, BLACK)


def _draw_group(pen: _Pen, group: Group) -> None:
    together = group.together
    pen.text(group.title, 16)
    pen.y += LINE + 7
    for label, key, wrong in (
        (f"key of {together.closest}", together.issued, None),
        (f"read from all {len(group.files)}", together.read, together.errors),
    ):
        pen.text(label, 11, GREY)
        pen.text(str(key), 11, BLACK, dx=100)
        pen.image(key_strip(key, wrong), 340, (pen.width - 340, LINE - 3), smooth=False)
        pen.y += LINE
    odds = _plain(in_words(together.p_value))
    pen.text(
        f"all together: {together.answer} ({bits_off(together.n_errors)}, {odds});  "
        f"one by one: {group.n_right} of {len(group.each)} right",
        13,
        GREEN if group.right else RED,
    )
    pen.y += LINE + 5
    shown = list(zip(group.files, group.each, strict=True))[:COLUMNS]
    for column, (file, _) in enumerate(shown):
        pen.image(read_image(file), column * (CELL + GAP), (CELL, CELL), smooth=True)
    pen.y += CELL + 2
    for column, (_, verdict) in enumerate(shown):
        middle = pen.left + column * (CELL + GAP) + CELL // 2
        _caption(pen, verdict, group.as_expected(verdict), middle)
    pen.y += 3 * 13 + 20


def _draw_shared(pen: _Pen, results: Results) -> None:
    holders = [recipient.holder for recipient in results.recipients]
    pen.text("The same latents under each key", 16)
    pen.y += LINE + 7
    pen.text(f"PSNR between recipients {results.psnr:.1f} dB; differences x{DIFFERENCE_GAIN}", 12)
    pen.y += LINE + 5
    latents = list(zip(*results.shared, strict=True))
    heads = [*holders, *(f"{holder} - {holders[0]}" for holder in holders[1:])]
    for pair in range(0, len(latents), 2):  # two latents side by side fill the width
        for half, images in enumerate(latents[pair : pair + 2]):
            cells = [*images, *(difference(images[0], other) for other in images[1:])]
            size = (pen.width // 2 - 10) // len(cells) - 4
            for column, (head, cell) in enumerate(zip(heads, cells, strict=True)):
                dx = half * (pen.width // 2 + 6) + column * (size + 4)
                pen.image(cell, dx, (size, size), smooth=True)
                pen.centred(head, pen.left + dx + size // 2, pen.y + size + 2, GREY)
        pen.y += size + 22


def _columns(groups: Sequence[Group], count: int) -> list[list[Group]]:
    height = -(-len(groups) // count)
    return [list(groups[i * height : (i + 1) * height]) for i in range(count)]


def draw_sheet(results: Results) -> Image.Image:
    """All groups, ``COLUMNS`` images of each, and the same latents under each key."""
    width = COLUMNS * (CELL + GAP) - GAP
    sheet = Image.new("RGB", (2 * width + 3 * MARGIN, 4000), "white")
    head = _Pen(sheet, MARGIN, MARGIN, 2 * width + MARGIN)
    head.text("One training, three recipients: whose instance made which image?", 24)
    head.y += 36
    head.text(
        f"Release {results.model.digest[:12]}, {results.model.config.resolution} px, "
        f"{results.model.config.n_bits} bits. Of each set the first {COLUMNS} images, with the "
        "holder named, the bits read wrongly (red), and how likely chance alone gives so close",
        13,
        GREY,
    )
    head.y += 18
    head.text(
        f"a match with any issued key; a holder is named only below {in_words(results.fpr)}. "
        "Where nobody is named, the closest issued key is shown for comparison.",
        13,
        GREY,
    )
    head.y += 32
    bottoms = []
    for number, groups in enumerate(_columns(results.groups, 2)):
        pen = _Pen(sheet, MARGIN + number * (width + MARGIN), head.y, width)
        for group in groups:
            _draw_group(pen, group)
        bottoms.append(pen.y)
    shortest = bottoms.index(min(bottoms))
    pen = _Pen(sheet, MARGIN + shortest * (width + MARGIN), bottoms[shortest], width)
    _draw_shared(pen, results)
    return sheet.crop((0, 0, sheet.width, max(*bottoms, pen.y) + MARGIN))


def save_sheet(path: Path, results: Results) -> None:
    """Write the sheet as PNG."""
    draw_sheet(results).save(path, optimize=True)
