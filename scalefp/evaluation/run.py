"""A release in, measured figures out, targets beside what was reached."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scalefp.data.images import save_png
from scalefp.data.source import Source, resolve_source
from scalefp.errors import UserError
from scalefp.evaluation import plots, published
from scalefp.evaluation.attacks import attacks_left_out, lifting_parts, lifting_results
from scalefp.evaluation.estimators import knowledges
from scalefp.evaluation.features import INSTALL_HINT, choose_extractor
from scalefp.evaluation.method import Measured, Method, OtherMethod, as_measured
from scalefp.evaluation.quality import measure_features, measure_hiding
from scalefp.evaluation.removal import (
    FINE_TUNING,
    OWN_PICTURES,
    UNTOUCHED,
    Attempt,
    Tampered,
    attempts,
    losses_met,
    possible,
    tunings,
)
from scalefp.evaluation.report import markdown, write_results
from scalefp.evaluation.robustness import measure_point, points
from scalefp.evaluation.samples import EvaluateConfig, Samples
from scalefp.evaluation.sheets import perturbation_sheet, tampering_sheet
from scalefp.evaluation.targets import LOSS, target_rows
from scalefp.evaluation.unrelated import load_twin, measure_unrelated
from scalefp.experiment import Parts, content_digest, hardware, has_matplotlib
from scalefp.networks.perceptual import Lpips

__all__ = ["EvaluateConfig", "evaluate", "markdown", "write_results"]

PARTS = "parts"  # folder of finished parts, in that of the results
SHEETS = ("strengths.png", "tampered.png")
# What no part depends on: files, which digests tell better, speed, and the choice of parts.
NOT_SETTINGS = {
    *("data", "unrelated", "twin", "feature_weights", "lpips_backbone"),
    *("batch_size", "perturbations", "tamperings"),
}


def _public(config: EvaluateConfig) -> dict[str, Any]:
    """The configuration without the folders of this machine, since results are published."""
    named = {
        name: path and Path(path).name
        for name in ("data", "twin", "feature_weights", "lpips_backbone")
        for path in [getattr(config, name)]
    }
    return asdict(config) | named | {"unrelated": [Path(s).name for s in config.unrelated]}


@dataclass(frozen=True)
class Inputs:
    """What is opened before the first measurement, so that mistakes are found at once."""

    extractor: nn.Module | None
    lpips: Lpips | None
    digests: dict[str, Any]  # of what is measured against


def open_inputs(config: EvaluateConfig) -> Inputs:
    """Check the configuration and open all that it names.

    Raises:
        UserError: numbers that cannot work, unknown names, missing or wrong weights, sources
            without files.
    """
    config.check()
    points(config)
    attempts(config)
    knowledges(config)
    extractor = choose_extractor(config.features, config.feature_weights)
    lpips = None if config.lpips_backbone is None else Lpips(config.lpips_backbone)
    digests: dict[str, Any] = {"sources": []}
    for source in [config.data, *config.unrelated]:
        with Source(resolve_source(source)) as files:
            if not files.names:
                raise UserError(f"{source} holds no image: give another source.")
            digests["sources"].append(files.digest())
    if config.twin is not None:
        load_twin(config.twin, config)
        digests["twin"] = content_digest(config.twin)
    digests |= {"features": getattr(extractor, "name", None), "lpips": getattr(lpips, "name", None)}
    return Inputs(extractor, lpips, digests)


def _settings(model: Measured, config: EvaluateConfig, inputs: Inputs) -> dict[str, Any]:
    from scalefp import __version__

    numbers = {name: x for name, x in asdict(config).items() if name not in NOT_SETTINGS}
    return {
        "scalefp": __version__,
        "release": model.digest,
        "config": numbers,
        "inputs": inputs.digests,
    }


def _left_out(model: Measured, config: EvaluateConfig, inputs: Inputs) -> list[str]:
    """A sentence for everything that needs what is not there."""
    sentences = []
    if isinstance(model, OtherMethod):
        sentences.append("Left out: changes of weights, since this method gives images alone.")
    elif possible(model, config) != attempts(config):
        sentences.append(
            "Left out: flattening of constant maps, since this generator's copies have none."
        )
    sentences += attacks_left_out(model, config)
    if inputs.extractor is None:
        hint = f": `{INSTALL_HINT}`" if config.features == "auto" else ""
        sentences.append(f"Left out: feature distances, without weights of an extractor{hint}.")
    if inputs.lpips is None:
        sentences.append("Left out: LPIPS, without a backbone (measure.lpips_backbone=FILE).")
    if not has_matplotlib():
        sentences.append("Left out: plots, without matplotlib: `pip install scalefp[plot]`.")
    return sentences


def _work(
    model: Measured, samples: Samples, inputs: Inputs, config: EvaluateConfig
) -> dict[str, Callable[[], Any]]:
    """Every part that is measured, by the name under which it is kept."""
    work: dict[str, Callable[[], Any]] = {
        point.name: partial(measure_point, model, samples, point, config)
        for point in points(config)
    }
    work["hiding"] = partial(measure_hiding, samples, inputs.lpips)
    if inputs.extractor is not None:
        work["features"] = partial(measure_features, inputs.extractor, samples, config)
    work["unrelated"] = partial(measure_unrelated, model, samples, config)
    tampered = Tampered(model, samples, inputs.extractor, config)
    tries, tunes = possible(model, config), tunings(model, config)
    if tries or tunes:
        work[UNTOUCHED] = tampered.nothing
    for attempt in tries:
        work[_tampering(attempt)] = partial(tampered.attempt, attempt)
    for name in tunes:
        work[name] = partial(tampered.fine_tuning, name)
    return work | lifting_parts(model, samples, config)


def _tampering(attempt: Attempt) -> str:
    """The name of its part."""
    return f"tampering {attempt.name}"


def _figures(found: dict[str, Any], config: EvaluateConfig) -> dict[str, Any]:
    """The measured parts in the order of the report."""
    tried = [found.get(_tampering(attempt)) for attempt in attempts(config)]
    rows = [row for row in tried if row is not None]
    rows += [row for name in (FINE_TUNING, OWN_PICTURES) for row in found.get(name, [])]
    return {
        "reading": [found[point.name] for point in points(config)],
        "tampering": {
            "untouched": found.get(UNTOUCHED),
            "rows": rows,
            "at_loss": losses_met(found[UNTOUCHED], rows, LOSS) if rows else {},
        },
        "hiding": found["hiding"],
        "features": found.get("features"),
        "unrelated": found["unrelated"],
        "lifting": lifting_results(found, config),
    }


def _save_sheets(
    folder: Path, model: Measured, samples: Samples, config: EvaluateConfig
) -> list[str]:
    """Draw the contact sheets into ``folder``; their names."""
    strengths, weights = SHEETS
    save_png(folder / strengths, perturbation_sheet(samples, points(config), config))
    if isinstance(model, OtherMethod):
        return [strengths]
    save_png(folder / weights, tampering_sheet(samples, possible(model, config), config))
    return [strengths, weights]


def evaluate(
    measured: Measured | Method,
    config: EvaluateConfig,
    folder: str | Path | None = None,
) -> dict[str, Any]:
    """Measure a release, or another method.

    Args:
        measured: a release, or any object that offers what
            :class:`scalefp.evaluation.method.Method` asks for.
        folder: where finished parts are kept (in ``parts/``, so that the same call after an
            interruption goes on from there) and contact sheets are written; None for neither.

    Returns:
        Nested dictionaries of numbers, strings and lists, ready for JSON: ``model``, ``config``,
        ``left_out``, ``reading`` (a list of points, clean files first), ``tampering``, ``hiding``,
        ``features`` (None without an extractor), ``unrelated``, ``lifting`` (None if no estimator
        is wanted), ``targets``, ``published``, ``pictures``, ``environment``.
        All but the last are the same for the same release, configuration and machine.

    Raises:
        UserError: as :func:`open_inputs` (all before the first measurement), sources in which no
            image is usable, or a folder that cannot be written.
    """
    inputs = open_inputs(config)
    model = as_measured(measured)
    begun = time.perf_counter()
    samples = Samples(model, config)
    kept = None if folder is None else Path(folder) / PARTS
    parts = Parts(kept, _settings(model, config, inputs))
    found = parts.measure(_work(model, samples, inputs, config), "evaluating")

    results: dict[str, Any] = {
        "model": {"digest": model.digest, **asdict(model.config)},
        "config": _public(config),
        "left_out": _left_out(model, config, inputs),
        **_figures(found, config),
    }
    results["targets"] = target_rows(results)
    results["published"] = published.sources()
    results["pictures"] = list(plots.drawable(results)) if has_matplotlib() else []
    if folder is not None:
        results["pictures"] += _save_sheets(Path(folder), model, samples, config)
    results["environment"] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - begun, 1),
        "parts_taken_over": parts.finished,
        "hardware": hardware(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    return results
