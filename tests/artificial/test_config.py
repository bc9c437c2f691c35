"""The marker's options: the tree composes, and what cannot work is refused in one sentence."""

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

import scalefp.cli.jobs  # noqa: F401  registers the schema
from scalefp.artificial.config import MarkTrainConfig
from scalefp.config import conf_dir, flat_options
from scalefp.errors import UserError
from scalefp.perturb import check_names
from trainings import change_options

MARKERS = sorted(path.stem for path in (conf_dir() / "marker").glob("*.yaml"))


def compose(*overrides):
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        config = OmegaConf.to_object(hydra_compose("artificial", overrides=list(overrides)))
    assert isinstance(config, MarkTrainConfig)
    return config


@pytest.mark.parametrize("name", MARKERS)
def test_every_named_training_composes_and_passes_its_checks(name):
    config = compose(f"marker={name}")
    config.check()
    check_names(config.perturb)


def test_the_published_training_is_the_published_one():
    config = compose("marker=published", "model.resolution=128")
    assert config.model.n_bits == 100 and config.model.psnr is None
    assert not config.perturb and not config.transplant and not config.fitted_start
    steps = config.optimizer.batch
    schedule = config.schedule
    assert (config.loss.bits, config.loss.pixels, config.loss.visibility) == (1, 10, 0)
    assert (schedule.readable, schedule.wait_images, schedule.ramp_images) == (
        0.9, 1000 * steps, 3000 * steps,
    )  # fmt: skip
    assert (steps, config.optimizer.learning_rate) == (64, 1e-4)
    assert config.model.decoder_resolution == 128  # nothing is low-passed


BAD = {
    "model.resolution": (0, 16, 31, 513),
    "model.n_bits": (0, 7, 257),
    "name": ("", "../x", "/tmp/x"),
    "model.psnr": (-1, 0),
    "model.encoder_width": (0,),
    "model.decoder_resolution": (8, 33, 128),
    "model.decoder_base": (0, 31),
    "model.decoder_max": (0,),
    "optimizer.batch": (0, 1),
    "optimizer.ema_images": (0,),
    "schedule.total_images": (0, 1),
    "run.log_steps": (0,),
    "run.grid_images": (0,),
    "run.threads": (0,),
    "run.precision": ("fp16",),
    "run.device": ("tpu",),
    "transplant": (-0.1, 1.1),
    "severity": (-0.1, 1.1),
    "seed": (-1,),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_values_that_cannot_work_are_named(name, value):
    config = compose()
    config.check()
    change_options(config, {name: value})
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        config.check()


def test_a_mark_that_nothing_keeps_small_is_refused():
    with pytest.raises(UserError, match=r"model\.psnr.*loss\.pixels"):
        compose("model.psnr=null").check()


def test_a_fitted_start_without_carriers_is_refused():
    with pytest.raises(UserError, match=r"fitted_start=false"):
        compose("model.decoder_carriers=false").check()


def test_a_fitted_start_needs_room_in_the_first_layer():
    with pytest.raises(UserError, match=r"24 channels.*not 8.*model\.decoder_max"):
        compose("model.decoder_max=8").check()
    compose("model.decoder_max=8", "fitted_start=false").check()


def test_every_option_has_its_dotted_name():
    options = flat_options(compose())
    assert {"model.psnr", "loss.visibility", "schedule.start_psnr", "transplant"} <= options.keys()
    assert "model.latent_dim" not in options  # no option: a marker has no latent
