"""The plot of a sweep: a panel for each kind of figure, over what was varied."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scalefp.experiment import error_bars, new_figure
from scalefp.studies.metrics import of_keys, title
from scalefp.studies.table import as_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Curve = dict[str, Mapping[str, Any]]  # value of the scale's setting, as text -> figure
COLUMNS = 3  # panels beside each other, at most
LONG = 40  # letters: longer names of curves stand below all panels, once
MANY = 8  # times the least: from there on a scale is logarithmic


@dataclass(frozen=True)
class Scale:
    """Where the values of one setting are drawn.

    Attributes:
        name: of the setting.
        places: value as text -> place, in the order of the rows.
        named: the values are words: points beside their names instead of a curve.
        logarithmic: the places are.
    """

    name: str
    places: Mapping[str, float]
    named: bool
    logarithmic: bool


def make_scale(rows: Sequence[Row], name: str) -> Scale:
    """The scale of a setting; ``null`` beside numbers is one step beyond the largest."""
    values = [row["setting"][name] for row in rows]
    numbers = sorted({float(value) for value in values if isinstance(value, int | float)})
    if not numbers or len({as_text(value) for value in values} - {"null"}) > len(numbers):
        names = dict.fromkeys(map(as_text, values))
        return Scale(name, {word: float(i) for i, word in enumerate(names)}, True, False)
    least, most, before = numbers[0], numbers[-1], numbers[-2:][0]
    logarithmic = least > 0 and most >= MANY * least
    beyond = most * most / before if logarithmic else most + max(most - before, 1)
    places = {as_text(v): beyond if v is None else float(v) for v in values}
    return Scale(name, places, False, logarithmic)


def plot(report: Mapping[str, Any]) -> Figure | None:
    """Each metric over what was varied; None where there is nothing to draw.

    Figures of one kind, as those of seen and unseen keys, share a panel. The first setting whose
    values are numbers is the scale, else the first; the others name the curves.

    Args:
        report: see :func:`scalefp.studies.report.make_report`.
    """
    rows = [row for row in report["rows"] if row["figures"]]
    scales = [make_scale(rows, name) for name in report["settings"] if rows]
    if not scales:
        return None
    scale = next((one for one in scales if not one.named), scales[0])
    panels: dict[str, list[str]] = {}
    for metric in report["metrics"]:
        panels.setdefault(title(metric), []).append(metric)
    columns = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    height = 0.9 + 0.25 * len(scale.places) if scale.named else 2.8
    figure = new_figure(max(3.6 * columns, 5), lines * height + 0.3)
    grid = figure.subplots(lines, columns, squeeze=False, sharey="row" if scale.named else False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, (words, metrics) in zip(grid.flat, panels.items(), strict=False):
        for label, curve in _curves(rows, scale, metrics).items():
            _draw(axes, scale, curve, label)
        _finish(axes, scale, words)
        _show_published(
            axes, scale, [one for m in metrics for one in report["published"].get(m, [])]
        )
    _name_curves(figure)
    figure.suptitle(report["question"] or report["folder"], fontsize=10)
    return figure


def _curves(rows: Sequence[Row], scale: Scale, metrics: Sequence[str]) -> dict[str, Curve]:
    """The curves of a panel by their labels; "" where one needs none."""
    curves: dict[str, Curve] = {}
    for metric in metrics:
        for row in rows:
            others = [f"{k}={as_text(v)}" for k, v in row["setting"].items() if k != scale.name]
            keys = [of_keys(metric) or "in training"] if len(metrics) > 1 else []
            figure = row["figures"].get(metric)
            if figure and figure["mean"] is not None:
                curve = curves.setdefault(", ".join(keys + others), {})
                curve[as_text(row["setting"][scale.name])] = figure
    return curves


def _draw(axes: Axes, scale: Scale, curve: Curve, label: str) -> None:
    """One curve, or points beside the names of a scale, with their intervals."""
    places = [scale.places[value] for value in curve]
    means = [figure["mean"] for figure in curve.values()]
    ends = [figure["ci95"] or [figure["mean"]] * 2 for figure in curve.values()]
    error_bars(
        axes, places, means, ends, flat=scale.named, marker="o", ms=4, lw=1.2,
        ls="none" if scale.named else "-", label=label or None,
    )  # fmt: skip


def _finish(axes: Axes, scale: Scale, words: str) -> None:
    """Scale, names and lines of a panel."""
    places, names = list(scale.places.values()), list(scale.places)
    if scale.named:
        axes.set_yticks(places, names)
        axes.set_ylim(places[-1] + 0.5, -0.5)  # the first on top
    else:
        if scale.logarithmic:
            axes.set_xscale("log")
            axes.minorticks_off()
        if scale.logarithmic or "null" in names:
            axes.set_xticks(places, names)
        axes.set_xlabel(scale.name, fontsize=8)
    axes.set_title(words, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def _name_curves(figure: Figure) -> None:
    """A legend in each panel that needs one, or one below all where names would cover a panel."""
    found = [(axes, *axes.get_legend_handles_labels()) for axes in figure.axes]
    named = {label: handle for _, *pair in found for handle, label in zip(*pair, strict=True)}
    if max(map(len, named), default=0) > LONG:
        figure.set_figheight(figure.get_figheight() + 0.2 * len(named))
        figure.legend(list(named.values()), list(named), fontsize=6, loc="outside lower center")
        return
    for axes, _, labels in found:
        if labels:
            axes.legend(fontsize=6)


def _show_published(axes: Axes, scale: Scale, published: Sequence[Mapping[str, Any]]) -> None:
    """The first of the published figures as a dashed line."""
    for one in published[:1]:
        label = f"published {one['source']}: {one['bits']} bits, {one['data']}"
        line = axes.axvline if scale.named else axes.axhline
        line(one["value"], color="#777777", lw=1, ls="--", label=label)
