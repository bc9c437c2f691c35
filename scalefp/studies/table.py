"""Jobs -> one row for each setting: the mean over its seeds, and how sure that is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import Any

from scalefp.errors import UserError
from scalefp.experiment import student
from scalefp.studies.gather import FINISHED, StudyJob

SEED = "seed"
# What names or places a job and changes no figure.
NO_SETTING = ("name", "run.", "hydra", "study", "out", "show", "threads", SEED)
USUAL = ("bit_accuracy", "evidence", "psnr")  # metrics unless others are asked for


@dataclass(frozen=True)
class Figure:
    """A metric over the seeds of one setting."""

    mean: float | None  # None if what some job reached is no finite number
    ci95: list[float] | None  # None for a single job, and where there is no mean
    jobs: int


@dataclass(frozen=True)
class SettingRow:
    """What the jobs of one setting reached.

    Attributes:
        setting: what was varied, by name.
        states: number of its jobs in each state.
        seeds: of its finished jobs.
        figures: by metric; without those that no job reached.
    """

    setting: Mapping[str, Any]
    states: Mapping[str, int]
    seeds: tuple[int, ...]
    figures: Mapping[str, Figure]


def value_of(job: StudyJob, name: str) -> Any:
    """What an option, or a group of them, was in a job; "" if nobody said."""
    return job.options.get(name, job.overrides.get(name, ""))


def as_text(value: Any) -> str:
    """The value of a setting as it is shown: as it was typed, a long number in four figures."""
    if value is None:
        return "null"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def varied(jobs: Sequence[StudyJob]) -> list[str]:
    """Names of what was typed for some job and is not the same in all of them, but for the seed."""
    names = sorted({name for job in jobs for name in job.overrides})
    return [
        name
        for name in names
        if not name.startswith(NO_SETTING) and len({str(value_of(job, name)) for job in jobs}) > 1
    ]


def chosen_metrics(jobs: Sequence[StudyJob], wanted: Sequence[str]) -> list[str]:
    """The metrics of a table: those that are wanted, or the usual ones that some job reached.

    Raises:
        UserError: none of the finished jobs has a figure that is wanted.
    """
    known = {name for job in jobs for name in job.figures}
    names = ", ".join(sorted(known))
    for name in wanted:
        if known and name not in known:
            raise UserError(f"no job has a figure {name!r}: choose among {names}")
    return list(wanted) or [name for name in USUAL if name in known]


def _place(value: Any) -> tuple[bool, float, str]:
    """Sorts numbers by size, and before text."""
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, str(value)


def _figure(values: Sequence[float]) -> Figure:
    if not all(map(isfinite, values)):
        return Figure(None, None, len(values))
    return Figure(fmean(values), student(values), len(values))


def make_rows(jobs: Sequence[StudyJob], metrics: Sequence[str]) -> list[SettingRow]:
    """One row for each setting, in the order of the settings."""
    names = varied(jobs)
    settings: dict[tuple[str, ...], list[StudyJob]] = {}
    for job in sorted(jobs, key=lambda job: [_place(value_of(job, name)) for name in names]):
        settings.setdefault(tuple(str(value_of(job, name)) for name in names), []).append(job)
    rows = []
    for own in settings.values():
        done = [job for job in own if job.state == FINISHED]
        figures = {}
        for metric in metrics:
            if values := [job.figures[metric] for job in done if metric in job.figures]:
                figures[metric] = _figure(values)
        setting = {name: value_of(own[0], name) for name in names}
        seeds = tuple(sorted(int(job.options.get(SEED, 0)) for job in done))
        rows.append(SettingRow(setting, dict(Counter(job.state for job in own)), seeds, figures))
    return rows
