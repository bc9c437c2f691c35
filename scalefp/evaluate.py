"""``scalefp evaluate``: Hydra's door to the evaluation of a release."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import hydra
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from scalefp.config import conf_dir
from scalefp.errors import UserError
from scalefp.evaluation.report import markdown, write_results
from scalefp.evaluation.run import evaluate, open_inputs
from scalefp.evaluation.samples import EvaluateConfig
from scalefp.loading import load_model


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
