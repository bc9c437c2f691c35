"""Hydra's jobs: what each command does with its composed options, once a job."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import scalefp.training.compose  # noqa: F401  registers the schema of trainings
from scalefp.artificial.config import MarkTrainConfig
from scalefp.cli.study import unseen_metrics
from scalefp.config import flat_options
from scalefp.evaluation.options import EvaluateOptions, results_folder, results_name, results_root
from scalefp.evaluation.report import markdown, write_results
from scalefp.evaluation.run import evaluate
from scalefp.files import held
from scalefp.release.container import kind_of, load_header
from scalefp.studies.results import finished, write_training
from scalefp.studies.unseen import measure_unseen
from scalefp.training.distributed import is_main
from scalefp.training.ending import ending
from scalefp.training.run import locked, make_run_folder

for name, schema in (
    ("artificial_schema", MarkTrainConfig),
    ("evaluate_schema", EvaluateOptions),
):
    ConfigStore.instance().store(name=name, node=schema)
for resolver in (results_folder, results_name, results_root):
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def job_folder() -> Path:
    """Where the present job puts what it writes."""
    return Path(HydraConfig.get().runtime.output_dir)


def check_training(config: Any) -> None:
    """Raise UserError for options of a training that cannot work, the images included."""
    if getattr(config, "generator", None):
        from scalefp.pretrained.train import check
    else:
        from scalefp.training.loop import check

    check(config)


def trained(train: Callable[[Any, Path], dict[str, float]], options: DictConfig) -> float:
    """Train and print the path of the release, and on standard error what it is good for.

    A training that its folder holds whole is not opened again.

    Returns:
        The bits of evidence that one image carries, for sweepers.
    """
    config: Any = OmegaConf.to_object(options)
    torch.set_num_threads(config.run.threads)
    folder, asked = job_folder(), flat_options(config)
    release, begun = folder / "release.safetensors", time.monotonic()
    with locked(make_run_folder(folder), here=is_main()):
        kept = finished(folder, asked)
    figures = kept or train(config, folder)
    # Of a generator with keys; of a finished one only what its study asks for by now.
    unseen = {"n_active", "evidence"} <= figures.keys() and not unseen_metrics() <= figures.keys()
    if is_main() and (unseen or not kept):
        if unseen:
            known = getattr(config, "training_keys", None)
            figures = figures | measure_unseen(release, config.seed, known)
        write_training(release, figures, asked, time.monotonic() - begun)
    if is_main():
        print(release, flush=True)
        # As the release itself says whenever it is used, not as the last line of the log does.
        note = load_header(release, kind_of(release) or "release")["training"].get("reached", {})
        reached = {name: note.get(name, figure) for name, figure in figures.items()}
        model, total = config.model, config.schedule.total_images
        adopted = bool(getattr(config, "generator", None))
        lines = ending(reached, model.n_bits, total, release, adopted=adopted).splitlines()
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            del lines[1:]  # of many jobs only what each reached
        print(*lines, sep="\n", file=sys.stderr)
    return figures.get("evidence", math.nan)


def train_job(options: DictConfig) -> float:
    """Train a generator and its decoder, or fingerprint one that others trained."""
    if options.generator:
        from scalefp.pretrained.train import train
    else:
        from scalefp.training import train

    return trained(train, options)


def marker_job(options: DictConfig) -> float:
    """Train a marker."""
    from scalefp.artificial.train import train

    return trained(train, options)


def evaluate_job(options: DictConfig) -> float:
    """Measure a release and print the results; the bit accuracy of clean files, for sweepers."""
    settings = OmegaConf.to_object(options)
    assert isinstance(settings, EvaluateOptions)
    settings.check_words()
    folder = job_folder()
    settings.check_place(folder)
    torch.set_num_threads(settings.threads)
    taken = f"another evaluation is at work in {folder}: wait for its end, or choose another out="
    with held(folder / ".lock", taken):
        results = evaluate(settings.open(), settings.measure, folder)
        write_results(results, folder)
    print(json.dumps(results, indent=1) if settings.show == "json" else markdown(results))
    sys.stdout.flush()
    print(f"results in {folder}", file=sys.stderr)
    return float(results["reading"][0]["mean"])
