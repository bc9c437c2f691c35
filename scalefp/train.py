"""``scalefp train``: Hydra's door to the training, also for ``torchrun -m scalefp.train``."""

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from scalefp.config import TrainConfig, conf_dir
from scalefp.training.loop import train
from scalefp.training.run import run_training

ConfigStore.instance().store(name="train_schema", node=TrainConfig)


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")
def main(options: DictConfig) -> float:
    """Hydra entry point; returns the bit accuracy, for sweepers."""
    return run_training(train, options)


if __name__ == "__main__":
    main()
