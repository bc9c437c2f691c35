"""The report of a sweep: Markdown to read, CSV and JSON for programs, and a plot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalefp.evaluation.published import singles
from scalefp.experiment import (
    csv_table,
    error_bars,
    has_matplotlib,
    markdown_table,
    new_figure,
    write_json,
    write_page,
)
from scalefp.files import atomic_path, counted
from scalefp.studies.gather import FAILED, FINISHED, UNFINISHED, StudyJob, about, at_work, gather
from scalefp.studies.table import chosen_metrics, make_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE, TABLE, DATA, PLOT = "report.md", "report.csv", "report.json", "report.png"
Report = dict[str, Any]


def make_report(folder: Path, metrics: Sequence[str] = ()) -> Report:
    """Everything that the jobs of a folder say together, ready for JSON.

    Args:
        folder: of a sweep or a study, or of several.
        metrics: figures to show; none = those of the study, or the usual ones.

    Returns:
        ``folder``, ``question``, ``jobs`` (number in each state), ``running``, ``versions``
        (version of the code -> jobs), ``metrics``, ``settings`` (names of what was varied),
        ``rows`` (``setting``, ``states``, ``seeds``, ``figures``: metric -> ``mean``, ``ci95``,
        ``jobs``), ``failed`` (``job``, ``error``), ``repeated`` (rows with one seed twice) and
        ``published`` (metric -> figures).

    Raises:
        UserError: no jobs there, or no such metric.
    """
    jobs, study = gather(folder), about(folder)
    metrics = chosen_metrics(jobs, metrics or study.metrics)
    rows = make_rows(jobs, metrics)
    return {
        "folder": folder.name,
        "question": study.question,
        "jobs": {state: _count(jobs, state) for state in (FINISHED, FAILED, UNFINISHED)},
        "running": at_work(folder),
        "versions": dict(Counter(job.version for job in jobs if job.state == FINISHED)),
        "metrics": metrics,
        "settings": list(rows[0].setting),
        "rows": [asdict(row) for row in rows],
        "failed": [{"job": j.name, "error": j.error} for j in jobs if j.state == FAILED],
        "repeated": sum(len(set(row.seeds)) < len(row.seeds) for row in rows),
        "published": {
            metric: [asdict(one) for one in found]
            for metric in metrics
            if (found := singles(metric.removeprefix("unseen_")))
        },
    }


def _count(jobs: Sequence[StudyJob], state: str) -> int:
    return sum(job.state == state for job in jobs)


# Words.


def number(value: Any) -> str:
    """Four figures of a number; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return ""
    if figure["mean"] is None:
        return "not finite"
    mean = number(float(figure["mean"]))
    if figure["ci95"] is None:
        return mean
    low, high = figure["ci95"]
    return f"{mean} ({number(low)} to {number(high)})"


def _remarks(report: Report) -> Iterator[str]:
    """What a reader must know before believing the table."""
    if len(report["versions"]) > 1:
        named = ", ".join(
            f"{v or 'unknown'} ({counted(n, 'job')})" for v, n in report["versions"].items()
        )
        yield (
            f"**These jobs were run by different versions of the code**: {named}. Their figures "
            "may differ for that reason alone; remove the folders of the old ones and run the "
            "sweep again."
        )
    if report["repeated"]:
        yield (
            f"Several jobs of a row have one seed ({counted(report['repeated'], 'row')}): they are "
            "no independent runs, and the interval is too narrow."
        )
    if report["jobs"][UNFINISHED]:
        more = "it is at work" if report["running"] else "the same command goes on"
        yield f"Not finished: {counted(report['jobs'][UNFINISHED], 'job')}; {more}."
    yield from (f"Failed: {one['job']}: {one['error']}" for one in report["failed"])


def page(report: Report) -> str:
    """The report in Markdown."""
    metrics, settings = report["metrics"], report["settings"]
    head = [*settings, "seeds", *metrics]
    rows = [
        [
            *(number(row["setting"][name]) for name in settings),
            f"{len(row['seeds'])} of {sum(row['states'].values())}",
            *(_cell(row["figures"].get(metric)) for metric in metrics),
        ]
        for row in report["rows"]
    ]
    parts = [f"# {report['folder']}"]
    if report["question"]:
        parts.append(str(report["question"]))
    parts.append(markdown_table(head, rows, right=range(len(settings), len(head))))
    parts.append("Mean over the seeds, and its 95% interval (Student's t) where there are several.")
    parts += _remarks(report)
    published = [
        f"{one['value']} with {one['bits']} bits on {one['data']} ({one['source']})"
        for found in report["published"].values()
        for one in found
    ]
    if published:
        parts.append(f"Published bit accuracy: {'; '.join(published)}.")
    return "\n\n".join(parts) + "\n"


def table(report: Report) -> str:
    """The report as CSV: a line for each row, four columns for each metric."""
    ends = ("mean", "low", "high", "jobs")
    head = [*report["settings"], "seeds", *(f"{m}_{e}" for m in report["metrics"] for e in ends)]
    lines: list[list[object]] = []
    for row in report["rows"]:
        cells: list[object] = [*row["setting"].values(), " ".join(map(str, row["seeds"]))]
        for metric in report["metrics"]:
            figure = row["figures"].get(metric)
            low, high = (figure and figure["ci95"]) or ("", "")
            cells += [figure["mean"], low, high, figure["jobs"]] if figure else [""] * len(ends)
        lines.append(cells)
    return csv_table(head, lines)


# The plot.


def plot(report: Report) -> Figure | None:
    """A curve of each metric over what was varied; None where there is nothing to draw.

    The first setting whose values are numbers is the axis; the others name the curves.
    """
    rows = [row for row in report["rows"] if row["figures"]]
    numeric = [
        name
        for name in report["settings"]
        if all(isinstance(row["setting"][name], int | float) for row in rows)
    ]
    if not rows or not numeric:
        return None
    axis, metrics = numeric[0], report["metrics"]
    figure = new_figure(3.6 * len(metrics), 2.8)
    for axes, metric in zip(
        figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True
    ):
        _draw(axes, rows, axis, metric)
        for one in report["published"].get(metric, [])[:1]:
            label = f"published {one['source']}, {one['data']}"
            axes.axhline(one["value"], color="#d08b2c", lw=1, ls="--", label=label)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=6)
    return figure


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], axis: str, metric: str) -> None:
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        others = ", ".join(f"{k}={v}" for k, v in row["setting"].items() if k != axis)
        if row["figures"].get(metric, {}).get("mean") is not None:
            curves.setdefault(others, []).append(row)
    for name, points in curves.items():
        x = [float(row["setting"][axis]) for row in points]
        figures = [row["figures"][metric] for row in points]
        y = [figure["mean"] for figure in figures]
        ends = [figure["ci95"] or (figure["mean"],) * 2 for figure in figures]
        error_bars(axes, x, y, ends, marker="o", ms=3, lw=1.2, label=name or None)
        if min(x) > 0 and max(x) >= 8 * min(x):
            axes.set_xscale("log", base=2)
            axes.set_xticks(x, [f"{value:g}" for value in x])
            axes.minorticks_off()
    axes.set_xlabel(axis, fontsize=8)
    axes.set_title(metric, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def write_report(folder: Path, report: Report) -> list[str]:
    """Write the report beside the jobs; the names of its files.

    Raises:
        UserError: they cannot be written.
    """
    figure = plot(report) if has_matplotlib() else None
    write_json(folder / DATA, report)
    with atomic_path(folder / TABLE) as temporary:
        temporary.write_text(table(report), encoding="utf-8")
    text = page(report) + (f"\n![{', '.join(report['metrics'])}]({PLOT})\n" if figure else "")
    write_page(folder / PAGE, text, {PLOT: figure} if figure else None)
    return [PAGE, TABLE, DATA, *([PLOT] if figure else [])]
