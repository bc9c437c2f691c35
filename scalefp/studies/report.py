"""The report of a sweep: Markdown to read, CSV and JSON for programs, and a plot."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scalefp.evaluation.published import singles
from scalefp.experiment import (
    csv_table,
    has_matplotlib,
    markdown_table,
    write_json,
    write_page,
)
from scalefp.files import atomic_path, counted
from scalefp.studies.gather import FAILED, FINISHED, UNFINISHED, StudyJob, about, at_work, gather
from scalefp.studies.metrics import meaning
from scalefp.studies.pictures import newest_grid, sheet
from scalefp.studies.plot import plot
from scalefp.studies.table import SEED, as_text, chosen_metrics, make_rows, value_of, varied

PAGE, TABLE, DATA, PLOT = "report.md", "report.csv", "report.json", "report.png"
PICTURES = "pictures.png"
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
        ``jobs``), ``finished`` (``job``, ``setting``, ``seed``, ``figures``, all of them,
        ``version``, ``release``, ``environment``, and ``pictures``, a file in its folder),
        ``options`` (those that all jobs share, by dotted name), ``failed`` (``job``, ``error``),
        ``repeated`` (rows with one seed twice) and ``published`` (metric -> figures).

    Raises:
        UserError: no jobs there, or no such metric.
    """
    jobs, study = gather(folder), about(folder)
    metrics = chosen_metrics(jobs, metrics or study.metrics)
    rows = make_rows(jobs, metrics)
    settings = varied(jobs)
    return {
        "folder": folder.name,
        "question": study.question,
        "jobs": {state: _count(jobs, state) for state in (FINISHED, FAILED, UNFINISHED)},
        "running": at_work(folder),
        "versions": dict(Counter(job.version for job in jobs if job.state == FINISHED)),
        "metrics": metrics,
        "settings": settings,
        "rows": [asdict(row) for row in rows],
        "finished": [_of_job(folder, job, settings) for job in jobs if job.state == FINISHED],
        "options": _shared(jobs),
        "failed": [{"job": j.name, "error": j.error} for j in jobs if j.state == FAILED],
        "repeated": sum(len(set(row.seeds)) < len(row.seeds) for row in rows),
        "published": {
            metric: [asdict(one) for one in found]
            for metric in metrics
            if (found := singles(metric.removeprefix("unseen_")))
        },
    }


def _of_job(root: Path, job: StudyJob, settings: Sequence[str]) -> dict[str, Any]:
    return {
        "job": job.name,
        "setting": {name: value_of(job, name) for name in settings},
        "seed": job.options.get(SEED),
        # A figure that is not finite is no number of JSON.
        "figures": {n: x if math.isfinite(x) else None for n, x in job.figures.items()},
        "version": job.version,
        "release": job.release,
        "environment": dict(job.environment),
        "pictures": newest_grid(root / job.name),
    }


def _shared(jobs: Sequence[StudyJob]) -> dict[str, Any]:
    """The options that are the same in all jobs."""
    shared = dict(jobs[0].options)
    for job in jobs:
        shared = {
            name: value for name, value in job.options.items() if shared.get(name, job) == value
        }
    return shared


def _count(jobs: Sequence[StudyJob], state: str) -> int:
    return sum(job.state == state for job in jobs)


# Words.


def _decimals(report: Report, metric: str) -> int:
    """Of all numbers of a column: four figures of the largest, none if they are counts."""
    means = [row["figures"][metric]["mean"] for row in report["rows"] if metric in row["figures"]]
    largest = max((abs(mean) for mean in means if mean), default=1.0)
    if largest > 1 and all(mean == int(mean) for mean in means if mean):
        return 0
    return max(0, 4 - math.ceil(math.log10(largest)))


def _cell(figure: Mapping[str, Any] | None, decimals: int) -> str:
    if figure is None:
        return ""
    if figure["mean"] is None:
        return "not finite"
    mean = f"{figure['mean']:.{decimals}f}"
    if figure["ci95"] is None:
        return mean
    low, high = figure["ci95"]
    return f"{mean} ({low:.{decimals}f} to {high:.{decimals}f})"


def _intervals(report: Report) -> str:
    """What the table shows beside the means."""
    seeds = [len(row["seeds"]) for row in report["rows"]]
    if max(seeds) > 1:
        alone = " A single seed has none." if min(seeds) == 1 else ""
        return f"Mean over the seeds, and its 95% interval (Student's t).{alone}"
    return (
        "One seed for each setting, so there are no intervals: how far another seed would be from "
        "it is not known."
    )


def _made(report: Report) -> str | None:
    """How long the jobs took, and on what; None if they do not say."""
    made = [job["environment"] for job in report["finished"]]
    minutes = sorted(one["seconds"] / 60 for one in made if "seconds" in one)
    if not minutes:
        return None
    hardware = " and ".join(sorted({str(one["hardware"]) for one in made if "hardware" in one}))
    took = f"{minutes[0]:.1f} to {minutes[-1]:.1f} minutes" if minutes[1:] else f"{minutes[0]:.1f}"
    return f"{counted(len(minutes), 'job')}, {took} each, on {hardware or 'unknown hardware'}."


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
    decimals = {metric: _decimals(report, metric) for metric in metrics}
    rows = [
        [
            *(as_text(row["setting"][name]) for name in settings),
            f"{len(row['seeds'])} of {sum(row['states'].values())}",
            *(_cell(row["figures"].get(m), digits) for m, digits in decimals.items()),
        ]
        for row in report["rows"]
    ]
    parts = [f"# {report['folder']}"]
    if report["question"]:
        parts.append(str(report["question"]))
    parts.append(markdown_table(head, rows, right=range(len(settings), len(head))))
    parts.append(_intervals(report))
    if known := [f"- `{metric}`: {words}" for metric in metrics if (words := meaning(metric))]:
        parts.append("\n".join(known))
    if made := _made(report):
        parts.append(made)
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
        cells: list[object] = [
            "null" if value is None else value for value in row["setting"].values()
        ]
        cells.append(" ".join(map(str, row["seeds"])))
        for metric in report["metrics"]:
            figure = row["figures"].get(metric)
            low, high = (figure and figure["ci95"]) or ("", "")
            cells += [figure["mean"], low, high, figure["jobs"]] if figure else [""] * len(ends)
        lines.append(cells)
    return csv_table(head, lines)


def write_report(folder: Path, report: Report, sweep: Path | None = None) -> list[str]:
    """Write a report into a folder; the names of its files.

    Args:
        sweep: where its jobs lie, for their pictures; None = there are none, or they are in
            ``folder`` already.

    Raises:
        UserError: they cannot be written.
    """
    figure = plot(report) if has_matplotlib() else None
    pictures = sheet(sweep, report) if sweep else None
    write_json(folder / DATA, report)
    with atomic_path(folder / TABLE) as temporary:
        temporary.write_text(table(report), encoding="utf-8")
    text = page(report) + (f"\n![{', '.join(report['metrics'])}]({PLOT})\n" if figure else "")
    if any(job["pictures"] for job in report["finished"]):
        text += f"\n![The same latents under one key, a row for each setting]({PICTURES})\n"
    if pictures:
        with atomic_path(folder / PICTURES) as temporary:
            pictures.save(temporary, format="PNG")
    write_page(folder / PAGE, text, {PLOT: figure} if figure else None)
    return [PAGE, TABLE, DATA, *([PLOT] if figure else []), *([PICTURES] if pictures else [])]
