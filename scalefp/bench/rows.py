"""The rows of the table: a figure, what stands beside it, and its target. Imports no torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scalefp.experiment import markdown_table

HEAD = ("what", "unit", "median", "quartiles", "beside it", "median", "ratio", "target")


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing: median and quartiles."""

    what: str
    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, what: str, values: Sequence[float]) -> Spread:
        """Of the values themselves; a single one has no spread."""
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
        return cls(what, statistics.median(values), low, high, len(values))

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Spread:
        """As a row of ``results.json`` holds it."""
        return cls(*(found[name] for name in ("what", "median", "low", "high", "repeats")))


@dataclass(frozen=True)
class Row:
    """What was measured, and what stands beside it.

    Attributes:
        unit: of the values, and of those beside.
        beside: a peer or a limit.
        target: for the ratio of the medians, own : beside, such as ">= 4"; empty for none.
    """

    own: Spread
    unit: str
    beside: Spread | None = None
    target: str = ""

    @property
    def ratio(self) -> float | None:
        """Of the medians; None with nothing beside."""
        return None if self.beside is None else self.own.median / self.beside.median

    @property
    def verdict(self) -> str:
        """The target, and that it was missed where it was."""
        if not self.target or self.ratio is None:
            return ""
        sign, limit = self.target.split()
        met = self.ratio >= float(limit) if sign == ">=" else self.ratio <= float(limit)
        return self.target + ("" if met else ", missed")

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Row:
        """As ``results.json`` holds it."""
        beside = Spread.from_json(found["beside"]) if "beside" in found else None
        return cls(Spread.from_json(found), found["unit"], beside, found["target"])

    def to_json(self) -> dict[str, Any]:
        """For ``results.json``."""
        row = {**asdict(self.own), "unit": self.unit, "target": self.target}
        if self.beside is None:
            return row
        return {**row, "beside": asdict(self.beside), "ratio": self.ratio}


def row(
    what: str,
    unit: str,
    values: Sequence[float],
    *,
    beside: tuple[str, Sequence[float]] | None = None,
    target: str = "",
) -> Row:
    """A :class:`Row` of repeated measurements; ``beside``: name and measurements."""
    other = None if beside is None else Spread.of(*beside)
    return Row(Spread.of(what, values), unit, other, target)


def figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:#.3g}".rstrip(".")


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = []
    for made in rows:
        own, beside, ratio = made.own, made.beside, made.ratio
        quartiles = f"{figure(own.low)} to {figure(own.high)}" if own.repeats > 1 else ""
        peer = ["", "", ""]
        if beside is not None and ratio is not None:
            peer = [beside.what, figure(beside.median), figure(ratio)]
        lines.append([own.what, made.unit, figure(own.median), quartiles, *peer, made.verdict])
    return markdown_table(HEAD, lines, right={2, 5, 6})
