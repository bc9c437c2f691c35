"""A training's options from Python, as ``scalefp train`` composes them from its command line."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from scalefp.config import TrainConfig, conf_dir

ConfigStore.instance().store(name="train_schema", node=TrainConfig)


def compose_training(overrides: Sequence[str] = ()) -> TrainConfig:
    """The options of ``scalefp train OVERRIDES``, in Hydra's words.

    They are composed, not checked: :func:`scalefp.training.train` does that.

    Raises:
        hydra.errors.HydraException: no such option, group or value.
    """
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = OmegaConf.to_object(compose("train", overrides=list(overrides)))
    assert isinstance(config, TrainConfig)
    return config
