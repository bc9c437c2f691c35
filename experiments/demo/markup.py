"""What the report's sections are made of: text, commands, pictures and tables as HTML."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from scalefp.attribution.odds import in_words

MIME = {".png": "image/png", ".jpg": "image/jpeg"}


def escape(text: object) -> str:
    return html.escape(str(text))


def odds(p: float) -> str:
    """``in_words`` with a real exponent."""
    words, caret, exponent = in_words(p).partition("^")
    return escape(words) + (f"<sup>{exponent}</sup>" if caret else "")


def commands(*lines: str) -> str:
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def _data_uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def file_image(path: Path, alt: str, kind: str = "photo") -> str:
    """An image file as it is, byte for byte."""
    uri = _data_uri(MIME[path.suffix], path.read_bytes())
    return f'<img class="{kind}" src="{uri}" alt="{escape(alt)}" loading="lazy">'


def drawn_image(image: Image.Image, alt: str, kind: str = "photo") -> str:
    """A picture made for the report."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    uri = _data_uri("image/png", buffer.getvalue())
    return f'<img class="{kind}" src="{uri}" alt="{escape(alt)}">'


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Cells are HTML already; each says its column, since a narrow screen shows a row as a list."""
    lines = ["".join(f"<th>{cell}</th>" for cell in head)]
    lines += [
        "".join(
            f'<td data-label="{escape(name)}"><span>{cell}</span></td>'
            for name, cell in zip(head, row, strict=True)
        )
        for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table class="{kind}">{body}</table></div>'
