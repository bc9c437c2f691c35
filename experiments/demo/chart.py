"""A curve as inline SVG, without a plotting library."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

# In units of the SVG's view box.
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 320, 170, 40, 22, 24, 10


def line_chart(
    title: str,
    points: Sequence[tuple[float, float]],
    low: float,
    high: float,
    label: Callable[[float], str],
) -> str:
    """One curve as inline SVG; values from ``low`` to ``high``, places from 0 to the last."""
    end = points[-1][0]

    def place(x: float, y: float) -> str:
        share = (min(max(y, low), high) - low) / (high - low)
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / end
        return f"{across:.1f},{HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share:.1f}"

    axes = ""
    for y in (low, (low + high) / 2, high):
        (x1, height), (x2, _) = (place(x, y).split(",") for x in (0, end))
        axes += f'<line class="axis" x1="{x1}" x2="{x2}" y1="{height}" y2="{height}"/>'
        axes += f'<text x="{LEFT - 5}" y="{float(height) + 4:.1f}" text-anchor="end">{label(y)}'
        axes += "</text>"
    path = " ".join(place(x, y) for x, y in points)
    title = html.escape(title)
    return f"""<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">
<text x="0" y="12">{title}</text>{axes}
<text x="{LEFT}" y="{HEIGHT - 6}">0</text>
<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{end:,.0f} images</text>
<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="2"
stroke-linejoin="round"/></svg></figure>"""
