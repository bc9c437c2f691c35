"""The published curves that ours are drawn beside; figures and sources are in published.json."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

FILE = files("scalefp") / "assets" / "published.json"


@dataclass(frozen=True)
class Curve:
    """Published bit accuracies: one for each strength, in the unit of our table."""

    name: str
    strengths: tuple[float, ...]
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class TamperedCurve(Curve):
    """As :class:`Curve`, for a change of weights; ``losses``: relative increase of the FID."""

    losses: tuple[float, ...]


@dataclass(frozen=True)
class Single:
    """One published figure of images as they were made."""

    source: str  # a year, of :func:`sources`
    data: str
    bits: int  # length of the keys
    value: float


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def sources() -> dict[str, str]:
    """Year -> reference and how the figures were taken from it."""
    return dict(_content()["sources"])


def curves(perturbation: str) -> list[Curve]:
    """Published curves of an image perturbation of our table; empty where there is none."""
    entry = _content()["curves"].get(perturbation, {"series": {}})
    return [
        Curve(name, tuple(x * entry["unit_in_ours"] for x in series["x"]), tuple(series["y"]))
        for name, series in entry["series"].items()
    ]


def tampered_curves(tampering: str) -> list[TamperedCurve]:
    """Published curves of a tampering of our table; empty where there is none."""
    return [
        TamperedCurve(
            name,
            tuple(series["strength"]),
            tuple(series["accuracy"]),
            tuple(fid / series["fid"][0] - 1 for fid in series["fid"]),
        )
        for name, series in _content()["tampering"].get(tampering, {}).items()
    ]


def singles(metric: str) -> list[Single]:
    """What was published of a metric of ours, on images as they were made; perhaps nothing."""
    return [Single(**entry) for entry in _content()["clean"].get(metric, [])]
