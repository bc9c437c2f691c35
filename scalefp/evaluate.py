"""``scalefp evaluate``: a release in, measured figures out, targets beside what was reached."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from scalefp.attribution import matches_needed
from scalefp.compare import measure_features, measure_unrelated
from scalefp.config import conf_dir
from scalefp.errors import UserError
from scalefp.features import mobilenet_features
from scalefp.measure import EvaluateConfig, generate, measure_hiding, measure_reading
from scalefp.model import Model, load
from scalefp.results import markdown, write_results
from scalefp.source import Source, resolve_source

__all__ = ["EvaluateConfig", "EvaluateOptions", "evaluate", "hardware", "markdown", "write_results"]

# Of the project's first release; at least this many unrelated images have to be searched.
MIN_BIT_ACCURACY, MIN_PSNR, MIN_UNRELATED = 0.99, 28.0, 2000


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
    return asdict(config) | {
        "data": Path(config.data).name,
        "unrelated": [Path(source).name for source in config.unrelated],
        "feature_weights": config.feature_weights and Path(config.feature_weights).name,
    }


def _targets(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Target beside what was reached; met is None where a figure is only reported."""
    single = results["reading"]["PNG"]["single"]
    pooled = results["reading"]["PNG"]["pooled"]
    hiding = results["hiding"]["same_latent_two_keys"]
    features, unrelated = results["features"], results["unrelated"]
    config, rule = results["config"], results["attribution"]
    among = f"at fpr {rule['fpr']:g} among {rule['issued']:,} issued keys"
    rows: list[tuple[str, str, str, bool | None]] = [
        (
            "bit accuracy per image (mean)",
            f">= {MIN_BIT_ACCURACY}",
            f"{single['mean']:.4f} ({single['sources']:,} images of {config['keys']} keys)",
            single["mean"] >= MIN_BIT_ACCURACY,
        ),
        (f"single images attributed {among}", "reported", f"{single['attributed']:.2%}", None),
        (
            f"sets of {config['pooled']} images attributed {among}",
            "reported",
            f"{pooled['attributed']:.2%}",
            None,
        ),
        (
            "PSNR of one latent under two keys (mean)",
            f">= {MIN_PSNR:g} dB (25 accepted)",
            f"{hiding['psnr']:.1f} dB ({hiding['pairs']:,} pairs)",
            hiding["psnr"] >= MIN_PSNR,
        ),
        (
            f"unrelated images attributed to anybody {among}",
            f"0 of >= {MIN_UNRELATED:,}",
            f"{unrelated['attributed']} of {unrelated['images']:,}",
            unrelated["attributed"] == 0 and unrelated["images"] >= MIN_UNRELATED,
        ),
    ]
    if features:
        ratio = features["diversity"] / features["diversity_data"]
        distances = f"{features['distance']:.1f} (data to itself {features['distance_floor']:.1f})"
        rows.append(("feature diversity, relative to the data", "reported", f"{ratio:.2f}", None))
        rows.append(("feature distance to the data", "reported", distances, None))
    return [dict(zip(("what", "target", "reached", "met"), row, strict=True)) for row in rows]


def evaluate(model: Model, config: EvaluateConfig) -> dict[str, Any]:
    """Measure a release.

    Returns:
        Nested dictionaries of numbers, strings and lists, ready for JSON: ``model``, ``config``,
        ``attribution`` (the rule), ``reading`` (copy -> single and pooled), ``hiding``,
        ``features`` (None if switched off), ``unrelated``, ``targets``, ``environment``. All but
        the last are the same for the same release, configuration and machine.

    Raises:
        UserError: numbers that cannot work, missing feature weights or sources without files (all
            before the first measurement), or sources in which no image is usable.
    """
    config.check()
    begun = time.perf_counter()
    extractor = mobilenet_features(config.feature_weights) if config.features else None
    for source in [config.data, *config.unrelated]:
        with Source(resolve_source(source)) as files:
            if not files.names:
                raise UserError(f"{source} holds no image: give another source.")

    n_bits = model.config.n_bits
    needed = matches_needed(n_bits, config.issued, config.fpr)
    generated = generate(model, config)
    reading, png_logits = measure_reading(model, generated, needed, config)
    results: dict[str, Any] = {
        "model": {"digest": model.digest, **asdict(model.config)},
        "config": _public(config),
        "attribution": {
            "fpr": config.fpr,
            "issued": config.issued,
            "n_bits": n_bits,
            "matches_needed": needed,
        },
        "reading": reading,
        "hiding": measure_hiding(generated),
        "features": measure_features(extractor, generated, config) if extractor else None,
        "unrelated": measure_unrelated(model, png_logits, needed, config),
    }
    results["targets"] = _targets(results)
    results["environment"] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - begun, 1),
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
        self.measure.check()
        load(self.checkpoint)


def results_folder(checkpoint: str, out: str | None) -> str:
    """The absolute folder of the results; a run's release is named after its run folder."""
    path = Path(checkpoint)
    name = path.absolute().parent.name if path.stem == "release" else path.stem
    return str(Path(out or f"evaluation/{name}").absolute())


OmegaConf.register_new_resolver("results_folder", results_folder, replace=True)
ConfigStore.instance().store(name="evaluate_schema", node=EvaluateOptions)


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="evaluate")
def main(options: DictConfig) -> float:
    """Hydra entry point; returns the bit accuracy of single PNG files, for sweepers."""
    settings = OmegaConf.to_object(options)
    assert isinstance(settings, EvaluateOptions)
    try:
        settings.check()
        torch.set_num_threads(settings.threads)
        results = evaluate(load(settings.checkpoint), settings.measure)
        write_results(results, HydraConfig.get().runtime.output_dir)
    except UserError as error:
        print(f"scalefp: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    print(json.dumps(results, indent=1) if settings.show == "json" else markdown(results))
    return float(results["reading"]["PNG"]["single"]["mean"])


if __name__ == "__main__":
    main()
