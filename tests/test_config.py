"""The Hydra tree composes to checked dataclasses; mistakes fail before anything is built."""

import math
from dataclasses import asdict, fields, is_dataclass
from typing import get_args

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from scalefp.artificial.config import MarkTrainConfig
from scalefp.config import (
    ModelConfig,
    TrainConfig,
    conf_dir,
    flat_options,
)
from scalefp.errors import UserError
from scalefp.options import RESOLUTIONS
from scalefp.perturb import check_names
from scalefp.training.compose import compose_training
from trainings import change_options


def compose(*overrides):
    options = compose_training(overrides)
    assert isinstance(options, TrainConfig)
    return options


def choices(group):
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


# Composition.


def test_the_tree_is_found_and_has_the_experiments_that_the_documentation_names():
    assert (conf_dir() / "train.yaml").is_file()
    assert {"emoji", "tiny", "published"} <= set(choices("experiment"))


@pytest.mark.parametrize("name", [None, *choices("experiment")])
def test_every_experiment_composes_and_passes_its_checks(name):
    asked_for = ["inputs.images=photos.zip"] if name == "taef2" else []
    config = compose(*([f"experiment={name}"] if name else []), *asked_for)
    config.check()
    check_names(config.perturb)
    assert config.name == (name or "default")  # its run folder


GROUPS = ("model", "data", "loss", "perturb")


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in GROUPS for name in choices(group)]
)
def test_every_choice_of_every_group_composes_and_passes_its_checks(group, name):
    config = compose(f"{group}={name}")
    config.check()
    check_names(config.perturb)


@pytest.mark.parametrize("name", choices("ablation"))
def test_every_ablation_changes_what_it_says_and_passes_the_checks(name):
    whole = flat_options(compose("+study=ablation", "+ablation=nothing"))
    config = compose("+study=ablation", f"+ablation={name}")
    config.check()
    changed = {key for key, value in flat_options(config).items() if value != whole[key]}
    assert bool(changed) == (name != "nothing")
    assert len(changed) <= 2  # one thing, and what goes with it


@pytest.mark.parametrize("study", choices("study"))
def test_a_study_varies_another_experiment_and_changes_nothing_else_of_it(study):
    """Else it would be shortened to what fits a CPU."""
    published = flat_options(compose("experiment=published"))
    varied = flat_options(compose(f"+study={study}", "experiment=published"))
    assert varied == published | {"name": study}


def test_every_group_in_the_tree_is_tested():
    groups = {path.parent.name for path in conf_dir().glob("*/*.yaml")}
    # measure/ belongs to `scalefp evaluate`: test_evaluate.py; marker/: artificial/test_config.py;
    # study/: studies/test_study.py.
    others = {"experiment", "ablation", "measure", "marker", "study"}
    assert groups - {"hydra"} == {*GROUPS, *others}


def test_the_published_experiment_has_the_published_weights_and_mapping():
    config = compose("experiment=published")
    loss = config.loss
    assert (loss.adversarial, loss.latent, loss.bits, loss.consistency) == (1, 1, 2, 2)
    assert loss.path_length > 0 and loss.r1 > 0
    assert (config.model.mapping_layers, config.model.key_gain) == (8, 1)
    # No curriculum, no moving weight: the published loss from the first step on.
    assert config.schedule.curriculum_bits in (None, config.model.n_bits)
    assert config.schedule.hide_psnr is None


def test_overrides_reach_the_dataclasses_with_their_types():
    config = compose(
        "experiment=tiny", "optimizer.batch=8", "run.tensorboard=false", "+perturb.jpeg=0.25"
    )
    assert config.optimizer.batch == 8
    assert config.run.tensorboard is False
    assert config.perturb["jpeg"] == 0.25


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.batchsize=8",
        "bacth=8",
        "model.resolution.width=64",
        "experiment=no-such-experiment",
        "model=no-such-model",
        "optimizer.batch=many",
        "optimizer.batch=8.5",
        "optimizer.learning_rate=fast",
        "run.tensorboard=maybe",
        "+perturb.jpeg=often",
        "seed=null",
    ],
)
def test_misspelled_keys_and_wrong_types_fail_to_compose(override):
    with pytest.raises((HydraException, OmegaConfBaseException)):
        compose(override)


# Checks.

BAD = {
    "name": ("", ".", "..", "../x", "/tmp/x", "a/../../b"),  # a folder below runs/
    "model.resolution": (0, 8, 48, 512),
    "model.n_bits": (0, 7, 513, -8),
    "model.decoder_resolution": (8, 33),
    "model.latent_dim": (0, -1),
    "model.channel_max": (0, 10**9),
    "model.embedding_width": (0,),
    "model.decoder_max": (0,),
    "model.channel_base": (63,),  # less than one channel at 64x64
    "model.decoder_base": (63,),
    "model.mapping_layers": (-1, 10**5),
    "model.key_from": (0, 5, 128, 512),  # 128: beyond the picture's 64
    "model.key_to": (0, 2, 512),
    "model.mapping_lr_multiplier": (0.0, -1.0),
    "optimizer.batch": (0, 1, 3, -2),
    "optimizer.ema_images": (0.0, -1.0),
    "schedule.total_images": (31, 0),  # less than one batch
    "schedule.curriculum_bits": (-1, 0, 129),
    "schedule.hide_psnr": (0.0, -3.0, math.nan),
    "loss.r1_interval": (0, -1),
    "loss.path_length_interval": (0,),
    "run.precision": ("fp16", ""),
    "run.device": ("tpu",),
    "run.log_steps": (0,),
    "run.grid_images": (0,),
    "run.threads": (0,),
    "run.accumulate": (0, 3),
    "run.recompute_from": (-1, 0),
    "seed": (-1,),
}


def with_option(name, value):
    config = TrainConfig()
    change_options(config, {name: value})
    return config


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_check_names_the_option_that_cannot_work(name, value):
    with pytest.raises(UserError, match=name.replace(".", r"\.")) as caught:
        with_option(name, value).check()
    assert str(value) in str(caught.value)


GOOD = {
    "name": ("first", "a=b,c", "sweeps/first"),
    "model.resolution": RESOLUTIONS,
    "model.n_bits": (8, 13, 512),
    "model.decoder_resolution": RESOLUTIONS,
    "model.mapping_layers": (0, 8),
    "model.key_from": (4, 16, 64),
    "model.key_to": (4, 8, 256),
    "optimizer.batch": (2, 32),
    "schedule.total_images": (32,),
    "schedule.curriculum_bits": (None, 1, 128),
    "schedule.decay_images": (0,),
    "schedule.ramp_images": (0,),
    "run.precision": ("auto", "fp32", "bf16"),
    "run.device": ("auto", "cpu", "cuda"),
    "seed": (0, 2**31),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in GOOD.items() for value in values]
)
def test_check_passes_what_can_work(name, value):
    with_option(name, value).check()


@pytest.mark.parametrize(
    ("batch", "world_size", "works"),
    [(2, 1, True), (4, 2, True), (12, 3, True), (2, 2, False), (6, 2, False), (32, 3, False)],
)
def test_every_process_needs_whole_pairs(batch, world_size, works):
    config = with_option("optimizer.batch", batch)
    if works:
        config.check(world_size)
    else:
        with pytest.raises(UserError, match=f"multiple of {2 * world_size}"):
            config.check(world_size)


def test_a_weight_that_moves_must_not_be_zero():
    config = with_option("loss.consistency", 0.0)
    config.schedule.hide_psnr = 29.0
    with pytest.raises(UserError, match=r"loss\.consistency"):
        config.check()
    config.schedule.hide_psnr = None
    config.check()


def test_a_model_config_checks_itself():
    ModelConfig().check()
    with pytest.raises(UserError, match="resolution"):
        ModelConfig(resolution=100).check()


# The schema.


def options_of(config, prefix=""):
    """Dotted name, field and value of every option."""
    for option in fields(config):
        value = getattr(config, option.name)
        if is_dataclass(value):
            yield from options_of(value, f"{prefix}{option.name}.")
        else:
            yield f"{prefix}{option.name}", option, value


@pytest.mark.parametrize("kind", [TrainConfig, MarkTrainConfig])
def test_every_number_has_a_range_and_refuses_what_is_none(kind):
    for name, option, value in options_of(kind()):
        kinds = get_args(option.type) or (option.type,)
        if not {int, float} & set(kinds) or isinstance(value, bool | dict):
            continue
        assert {"range", "allowed"} & option.metadata.keys(), name
        for wrong in (math.nan, math.inf, -math.inf, 10**400, -1.5, "text", [1], True):
            config = kind()
            change_options(config, {name: wrong})
            with pytest.raises(UserError, match=name.replace(".", r"\.")):
                config.check()


def test_a_type_is_checked_where_no_range_is():
    config = with_option("fingerprint", "yes")
    with pytest.raises(UserError, match="fingerprint must be of type bool, not 'yes'"):
        config.check()


# Flat options.


def test_flat_options_name_every_option_once():
    named = {"_target_": "a.B"}
    config = TrainConfig(perturb={"jpeg": 0.5}, generator=named, inputs=named)
    flat = flat_options(config)
    assert flat["model.n_bits"] == 128
    assert flat["seed"] == 0
    assert flat["perturb.jpeg"] == 0.5
    parts = asdict(config)
    assert len(flat) == sum(len(v) if isinstance(v, dict) else 1 for v in parts.values())


def test_flat_options_keep_an_empty_group():
    assert flat_options(TrainConfig())["perturb"] == {}
