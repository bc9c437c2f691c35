"""Cells of the tables of an evaluation: figures as they are written there."""

from collections.abc import Mapping, Sequence
from typing import Any

VERDICTS = {True: "yes", False: "**no**", None: ""}


def verdict(row: Mapping[str, Any]) -> str:
    """Whether a target was met."""
    return "not judged: too few images" if row.get("few") else VERDICTS[row["met"]]


def share(value: float) -> str:
    """A share as whole percent, but never 100 or 0 for what is not quite that."""
    percent = round(100 * value)
    return str(percent) if percent not in (0, 100) or value in (0, 1) else f"{100 * value:.2f}"


def accuracy_cells(figures: Mapping[str, Any]) -> list[str]:
    """Number of images, bit accuracy, its 95% interval over keys, and its 5th percentile."""
    low, high = figures["ci95"]
    accuracy = [f"{figures['mean']:.4f}", f"{low:.4f} - {high:.4f}", f"{figures['p5']:.3f}"]
    return [f"{figures['images']:,}", *accuracy]


def attribution_cells(
    figures: Mapping[str, Any], pools: Sequence[int], forms: Sequence[str]
) -> list[str]:
    """For each form and pool the shares at every number of issued keys, "100 / 99 / 95"."""
    found = figures["attributed"]
    return [
        " / ".join(share(each) for each in found[str(pool)][form].values())
        if str(pool) in found
        else ""
        for form in forms
        for pool in pools
    ]


def compared_cell(compared: Mapping[str, Any] | None) -> str:
    """Bit accuracy of the same images read as they are and searched, and how many they are."""
    if compared is None:
        return ""
    return f"{compared['plain']:.3f} / {compared['thorough']:.3f} ({compared['images']})"
