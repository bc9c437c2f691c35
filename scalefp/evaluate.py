"""``scalefp evaluate``: a release in, measured figures out, targets beside what was reached."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import nn
from tqdm import tqdm

from scalefp import plots, published
from scalefp.compare import measure_features, measure_hiding
from scalefp.config import conf_dir
from scalefp.errors import UserError
from scalefp.features import INSTALL_HINT, choose_extractor
from scalefp.images import save_png
from scalefp.measure import EvaluateConfig, Samples
from scalefp.model import Model
from scalefp.parts import Parts
from scalefp.perceptual import Lpips
from scalefp.release import load_model
from scalefp.removal import UNTOUCHED, Tampered, attempts, fine_tuning_wanted, losses_met
from scalefp.results import markdown, write_results
from scalefp.robustness import measure_point, points
from scalefp.sheets import perturbation_sheet, tampering_sheet
from scalefp.source import Source, resolve_source
from scalefp.targets import LOSS, target_rows
from scalefp.unrelated import load_twin, measure_unrelated

__all__ = ["EvaluateConfig", "EvaluateOptions", "evaluate", "hardware", "markdown", "write_results"]

SHEETS = ("strengths.png", "tampered.png")
# What no part depends on: files, which digests tell better, speed, and the choice of parts.
NOT_SETTINGS = {
    *("data", "unrelated", "twin", "feature_weights", "lpips_backbone"),
    *("batch_size", "perturbations", "tamperings"),
}


def hardware() -> str:
    """Processor (or GPU) and number of threads, for reports."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [ln for ln in cpuinfo.read_text().splitlines() if ln.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{gpu}{name} ({os.cpu_count()} cores), {torch.get_num_threads()} threads used"


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
        digests["twin"] = config.twin  # a bundled name
        if (path := Path(config.twin)).is_file():
            digests["twin"] = hashlib.sha256(path.read_bytes()).hexdigest()
    digests |= {"features": getattr(extractor, "name", None), "lpips": getattr(lpips, "name", None)}
    return Inputs(extractor, lpips, digests)


def _settings(model: Model, config: EvaluateConfig, inputs: Inputs) -> dict[str, Any]:
    from scalefp import __version__

    numbers = {name: x for name, x in asdict(config).items() if name not in NOT_SETTINGS}
    return {
        "scalefp": __version__,
        "release": model.digest,
        "config": numbers,
        "inputs": inputs.digests,
    }


def _left_out(config: EvaluateConfig, inputs: Inputs) -> list[str]:
    """A sentence for everything that needs what is not there."""
    sentences = []
    if inputs.extractor is None:
        hint = f": `{INSTALL_HINT}`" if config.features == "auto" else ""
        sentences.append(f"Left out: feature distances, without weights of an extractor{hint}.")
    if inputs.lpips is None:
        sentences.append("Left out: LPIPS, without a backbone (measure.lpips_backbone=FILE).")
    if not plots.available():
        sentences.append("Left out: plots, without matplotlib: `pip install scalefp[plot]`.")
    return sentences


def evaluate(
    model: Model, config: EvaluateConfig, folder: str | Path | None = None
) -> dict[str, Any]:
    """Measure a release.

    Args:
        folder: where finished parts are kept (in ``parts/``, so that the same call after an
            interruption goes on from there) and contact sheets are written; None for neither.

    Returns:
        Nested dictionaries of numbers, strings and lists, ready for JSON: ``model``, ``config``,
        ``left_out``, ``reading`` (a list of points, clean files first), ``tampering``, ``hiding``,
        ``features`` (None without an extractor), ``unrelated``, ``targets``, ``published``,
        ``pictures``, ``environment``. All but the last are the same for the same release,
        configuration and machine.

    Raises:
        UserError: as :func:`open_inputs` (all before the first measurement), sources in which no
            image is usable, or a folder that cannot be written.
    """
    inputs = open_inputs(config)
    begun = time.perf_counter()
    samples = Samples(model, config)
    tampered = Tampered(model, samples, inputs.extractor, config)
    tries = attempts(config)

    work: dict[str, Callable[[], Any]] = {
        point.name: partial(measure_point, model, samples, point, config)
        for point in points(config)
    }
    readings = list(work)
    work["hiding"] = partial(measure_hiding, samples, inputs.lpips)
    if inputs.extractor is not None:
        work["features"] = partial(measure_features, inputs.extractor, samples, config)
    work["unrelated"] = partial(measure_unrelated, model, samples, config)
    if tries or fine_tuning_wanted(config):
        work[UNTOUCHED] = tampered.nothing
    for attempt in tries:
        work[f"tampering {attempt.name}"] = partial(tampered.attempt, attempt)
    if fine_tuning_wanted(config):
        work["fine-tuning"] = tampered.fine_tuning

    kept = None if folder is None else Path(folder) / "parts"
    parts = Parts(kept, _settings(model, config, inputs))
    for count, what in (
        (parts.finished, "finished parts are taken over"),
        (parts.foreign, "parts of another release or configuration are measured again"),
    ):
        if count:
            print(f"{kept}: {count} {what}", file=sys.stderr)
    found = {}
    with tqdm(work.items(), "evaluating", unit="part") as bar:
        for name, measure in bar:
            bar.set_postfix_str(name)
            found[name] = parts.get(name, measure)

    rows = [found[f"tampering {attempt.name}"] for attempt in tries] + found.get("fine-tuning", [])
    results: dict[str, Any] = {
        "model": {"digest": model.digest, **asdict(model.config)},
        "config": _public(config),
        "left_out": _left_out(config, inputs),
        "reading": [found[name] for name in readings],
        "tampering": {
            "untouched": found.get(UNTOUCHED),
            "rows": rows,
            "at_loss": losses_met(found[UNTOUCHED], rows, LOSS) if rows else {},
        },
        "hiding": found["hiding"],
        "features": found.get("features"),
        "unrelated": found["unrelated"],
    }
    results["targets"] = target_rows(results)
    results["published"] = published.sources()
    results["pictures"] = list(plots.drawable(results)) if plots.available() else []
    if folder is not None:
        strengths, weights = (Path(folder) / name for name in SHEETS)
        save_png(strengths, perturbation_sheet(samples, points(config), config))
        save_png(weights, tampering_sheet(samples, tries, config))
        results["pictures"] += SHEETS
    results["environment"] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - begun, 1),
        "parts_taken_over": parts.finished,
        "hardware": hardware(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    return results


# The Hydra entry point.


@dataclass
class EvaluateOptions:
    """Everything ``scalefp evaluate`` knows."""

    checkpoint: str = ""  # the release: a bundled name or the path of a release file
    out: str | None = None  # folder of the results; null = evaluation/NAME OF THE RELEASE
    show: str = "markdown"  # what goes to standard output: markdown or json
    threads: int = 1  # CPU threads
    # Of its own, since `data=` on the command line would choose from conf/data.
    measure: EvaluateConfig = field(default_factory=EvaluateConfig)

    def check(self) -> None:
        """Raise :class:`UserError` for options that cannot work, the release included."""
        if not self.checkpoint:
            raise UserError("say which release to evaluate: checkpoint=NAME or checkpoint=PATH.")
        if self.show not in ("markdown", "json"):
            raise UserError(f"show must be markdown or json, not {self.show!r}.")
        if self.threads < 1:
            raise UserError(f"threads must be at least 1, not {self.threads}.")
        open_inputs(self.measure)
        load_model(self.checkpoint)


def results_folder(checkpoint: str, out: str | None) -> str:
    """The absolute folder of the results; a run's release is named after its run folder."""
    path = Path(checkpoint)
    name = path.absolute().parent.name if path.stem == "release" else path.stem
    return str(Path(out or f"evaluation/{name}").absolute())


OmegaConf.register_new_resolver("results_folder", results_folder, replace=True)
ConfigStore.instance().store(name="evaluate_schema", node=EvaluateOptions)


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="evaluate")
def main(options: DictConfig) -> float:
    """Hydra entry point; returns the bit accuracy of clean PNG files, for sweepers."""
    settings = OmegaConf.to_object(options)
    assert isinstance(settings, EvaluateOptions)
    folder = HydraConfig.get().runtime.output_dir
    try:
        settings.check()
        torch.set_num_threads(settings.threads)
        results = evaluate(load_model(settings.checkpoint), settings.measure, folder)
        write_results(results, folder)
    except UserError as error:
        print(f"scalefp: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    print(json.dumps(results, indent=1) if settings.show == "json" else markdown(results))
    return float(results["reading"][0]["mean"])


if __name__ == "__main__":
    main()
