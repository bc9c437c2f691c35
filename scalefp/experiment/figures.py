"""The style of all plots, and how they become files.

matplotlib is an extra (``pip install scalefp[plot]``) and imported only where something is drawn.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalefp.errors import UserError
from scalefp.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110


def has_matplotlib() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches. It needs no display and is not kept by matplotlib.

    Raises:
        UserError: matplotlib is not installed.
    """
    if not has_matplotlib():
        raise UserError("plots need matplotlib: `pip install scalefp[plot]`")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def error_bars(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    intervals: Sequence[Any],
    *,
    flat: bool = False,
    **style: Any,
) -> None:
    """A curve of ``y`` over ``x`` with the interval [low, high] of each ``y``.

    ``flat``: lying on its side, ``y`` to the right.
    """
    below = [max(value - low, 0) for value, (low, _) in zip(y, intervals, strict=True)]
    above = [max(high - value, 0) for value, (_, high) in zip(y, intervals, strict=True)]
    if flat:
        axes.errorbar(y, x, xerr=(below, above), capsize=2, **style)
    else:
        axes.errorbar(x, y, (below, above), capsize=2, **style)


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a PNG file, whole.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        # No date and no version inside: the same results give the same file.
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
