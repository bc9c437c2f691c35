"""Plots of an evaluation: accuracy and attribution against strength, tampering against quality."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from scalefp.evaluation.published import curves, tampered_curves
from scalefp.evaluation.quality import MAX_PSNR
from scalefp.evaluation.removal import FINE_TUNING
from scalefp.evaluation.robustness import CLEAN
from scalefp.evaluation.tamper import TAMPERINGS
from scalefp.experiment import new_figure
from scalefp.perturb import PERTURBATIONS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 5
OURS, PUBLISHED = "#1f4e79", ("#b0b0b0", "#707070", "#d08b2c")
SHARE_ISSUED = 1_000_000  # issued keys of the plot of attribution, where they were measured
MAX_LOSS = 1.0  # of the axis; what loses more is ruined anyway

Row = Mapping[str, Any]


def _figure(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """A grid of ``count`` plots."""
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = new_figure(3.2 * columns, 2.6 * rows)
    figure.suptitle(title)
    flat = list(figure.subplots(rows, columns, squeeze=False).flat)
    for empty in flat[count:]:
        empty.axis("off")
    return figure, flat[:count]


def _legend(figure: Figure, axes: Sequence[Axes], columns: int) -> None:
    """One legend below all plots, with everything that any of them shows."""
    shown: dict[str, Artist] = {}
    for axis in axes:
        own_handles, own_labels = axis.get_legend_handles_labels()
        shown |= dict(zip(own_labels, own_handles, strict=True))
    handles, labels = list(shown.values()), list(shown)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8)


def by_perturbation(points: Sequence[Row]) -> dict[str, list[Row]]:
    """Perturbation -> its points by rising strength, the clean one at the identity among them."""
    clean = next(p for p in points if p["perturbation"] == CLEAN)
    groups: dict[str, list[Row]] = {}
    for point in points:
        if (name := point["perturbation"]) != CLEAN:
            identity = {**clean, "strength": PERTURBATIONS[name].identity}
            groups.setdefault(name, [identity]).append(point)
    return {name: sorted(rows, key=lambda p: p["strength"]) for name, rows in groups.items()}


def _strength_axis(axis: Axes, name: str, unit: str, *, falling: bool) -> None:
    axis.set_title(name, fontsize=10)
    axis.set_xlabel(unit, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
    if falling:  # from the mildest strength on the left
        axis.invert_xaxis()


def _falling(name: str) -> bool:
    entry = PERTURBATIONS[name]
    return entry.severe < entry.identity and not entry.signed


def plot_robustness(points: Sequence[Row]) -> Figure:
    """Bit accuracy against strength, our mean, interval and 5th percentile beside the published."""
    groups = by_perturbation(points)
    figure, axes = _figure(len(groups), "Bit accuracy of perturbed 8-bit files")
    for axis, (name, rows) in zip(axes, groups.items(), strict=True):
        for curve, colour in zip(curves(name), PUBLISHED, strict=False):
            axis.plot(curve.strengths, curve.accuracies, "--", color=colour, lw=1, label=curve.name)
        x = [p["strength"] for p in rows]
        low, high = zip(*(p["ci95"] for p in rows), strict=True)
        axis.fill_between(x, low, high, color=OURS, alpha=0.2, lw=0)
        axis.plot(x, [p["mean"] for p in rows], "o-", color=OURS, ms=3, label="ours, mean")
        axis.plot(x, [p["p5"] for p in rows], ":", color=OURS, lw=1, label="ours, 5th percentile")
        axis.set_ylim(min(0.35, *(p["p5"] - 0.02 for p in rows)), 1.02)
        _strength_axis(axis, name, PERTURBATIONS[name].unit, falling=_falling(name))
    _legend(figure, axes, len(PUBLISHED) + 2)
    return figure


def plot_attribution(points: Sequence[Row], fpr: float) -> Figure:
    """Share of sources attributed against strength, for 1, 4, ... images of one source."""
    groups = by_perturbation(points)
    one = next(iter(points[0]["attributed"].values()))["soft"]
    issued = str(SHARE_ISSUED) if str(SHARE_ISSUED) in one else list(one)[-1]
    title = f"Sources attributed at fpr {fpr:g} among {int(issued):,} issued keys"
    figure, axes = _figure(len(groups), f"{title} (lines: soft form, dots: hard form)")
    for axis, (name, rows) in zip(axes, groups.items(), strict=True):
        pools = sorted({pool for row in rows for pool in row["attributed"]}, key=int)
        for index, pool in enumerate(pools):
            some = [row for row in rows if pool in row["attributed"]]
            x = [row["strength"] for row in some]
            label = f"{pool} image{'s' if pool != '1' else ''}"
            for form, style in (("soft", "-"), ("hard", ".")):
                y = [row["attributed"][pool][form][issued] for row in some]
                text = label if form == "soft" else None
                axis.plot(x, y, style, color=f"C{index}", label=text, ms=4)
        axis.set_ylim(-0.03, 1.03)
        _strength_axis(axis, name, PERTURBATIONS[name].unit, falling=_falling(name))
    _legend(figure, axes, len(points[0]["attributed"]))
    return figure


def plot_tampering(untouched: Row, rows: Sequence[Row]) -> Figure:
    """Bit accuracy against what the pictures lose: one line for each way to change the weights.

    Without feature distances the loss is in PSNR to the untouched picture.
    """
    measured = all("loss" in row for row in rows)
    figure, axes = _figure(2, "Changing the weights: bit accuracy against image quality")
    for index, name in enumerate(dict.fromkeys(row["tampering"] for row in rows)):
        own = [row for row in rows if row["tampering"] == name]
        style = {"color": f"C{index}", "ms": 4, "lw": 1, "label": name}
        begins = [] if name.startswith(FINE_TUNING) else [untouched]
        if measured:
            x = [row["loss"] for row in [*begins, *own]]
            axes[0].plot(x, [row["mean"] for row in [*begins, *own]], "o-", **style)
        moved = [row for row in own if row["psnr"] < MAX_PSNR]
        axes[1].plot([row["psnr"] for row in moved], [row["mean"] for row in moved], "o-", **style)
    if measured:
        for curve in tampered_curves("noise"):
            axes[0].plot(
                curve.losses, curve.accuracies, "k--", lw=1, label=f"noise, {curve.name} (FID)"
            )
    axes[0].set_xlim(-0.3, MAX_LOSS)
    axes[0].set_xlabel("increase of the feature distance to the data")
    axes[1].set_xlabel("PSNR to the untouched picture, dB")
    axes[1].invert_xaxis()
    for axis in axes:
        axis.set_ylim(0.4, 1.02)
        axis.set_ylabel("bit accuracy")
        axis.grid(alpha=0.3)
    _legend(figure, axes, COLUMNS)
    figure.set_size_inches(11, 5.5)
    return figure


def plot_tampering_strengths(untouched: Row, rows: Sequence[Row]) -> Figure:
    """Bit accuracy and loss of quality against the strength, of tamperings that have several."""
    counts = Counter(row["tampering"] for row in rows)
    names = [name for name, count in counts.items() if count > 1]
    figure, axes = _figure(len(names), "Changing the weights: bit accuracy (left), loss (right)")
    for axis, name in zip(axes, names, strict=True):
        own = [row for row in rows if row["tampering"] == name]
        entry = TAMPERINGS.get(name)
        if entry is not None and entry.identity is not None:
            own = [{**untouched, "strength": entry.identity}, *own]
        x = [row["strength"] for row in own]
        axis.plot(x, [row["mean"] for row in own], "o-", color=OURS, ms=3)
        axis.set_ylim(0.4, 1.02)
        unit = entry.unit if entry else "images trained on"
        _strength_axis(axis, name, unit, falling=x[0] > x[-1])
        if all("loss" in row for row in own):
            right = axis.twinx()
            right.plot(x, [row["loss"] for row in own], "s:", color="#b03030", ms=3, lw=1)
            right.set_ylim(-0.3, 2)
            right.tick_params(labelsize=7, colors="#b03030")
    return figure


def drawable(results: Mapping[str, Any]) -> dict[str, Callable[[], Figure]]:
    """File name -> what draws the plot, for all plots that the results hold enough for."""
    points, tampering = results["reading"], results["tampering"]
    plots: dict[str, Callable[[], Figure]] = {}
    if len(points) > 1:
        plots["robustness.png"] = partial(plot_robustness, points)
        plots["attribution.png"] = partial(plot_attribution, points, results["config"]["fpr"])
    if tampering["rows"]:
        rows = tampering["untouched"], tampering["rows"]
        plots["tampering.png"] = partial(plot_tampering, *rows)
        if len({row["tampering"] for row in tampering["rows"]}) < len(tampering["rows"]):
            plots["tampering-strengths.png"] = partial(plot_tampering_strengths, *rows)
    return plots
