"""What a study is to answer, noted in the folder of its sweep by a callback of Hydra."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from scalefp.experiment import write_json
from scalefp.studies.gather import STUDY


class Study(Callback):
    """Notes what a sweep is to answer, for the report of its jobs.

    Args:
        question: in one sentence.
        metrics: names of the figures that answer it. If one begins with ``unseen_``, every job
            measures those of its release (:mod:`scalefp.studies.unseen`).
    """

    def __init__(self, question: str, metrics: Sequence[str]) -> None:
        self.question, self.metrics = question, list(metrics)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        about = {"question": self.question, "metrics": self.metrics}
        write_json(Path(config.hydra.sweep.dir) / STUDY, about)


def unseen_metrics() -> set[str]:
    """Figures of unseen keys that the study of the present job asks for; none outside a study."""
    study = HydraConfig.get().callbacks.get("study") or {}
    return {name for name in study.get("metrics", ()) if name.startswith("unseen_")}
