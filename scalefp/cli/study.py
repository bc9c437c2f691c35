"""What a study is to answer, noted in the folder of its sweep by a callback of Hydra."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from scalefp.experiment import write_json
from scalefp.studies.gather import STUDY


class Study(Callback):
    """Notes what a sweep is to answer, for the report of its jobs.

    Args:
        question: in one sentence.
        metrics: names of the figures that answer it.
    """

    def __init__(self, question: str, metrics: Sequence[str]) -> None:
        self.question, self.metrics = question, list(metrics)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        about = {"question": self.question, "metrics": self.metrics}
        write_json(Path(config.hydra.sweep.dir) / STUDY, about)
