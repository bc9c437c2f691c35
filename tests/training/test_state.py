"""A saved training goes on only as what it was; averages follow."""

import pytest
import torch
from torch import nn

from scalefp.config import ModelConfig, OptimizerConfig
from scalefp.errors import UserError
from scalefp.networks.decoder import Decoder
from scalefp.training.state import adam, check_binding, ema_update

OPTIONS = {"seed": 0, "model.n_bits": 128, "run.threads": 1, "schedule.hide_psnr": None}


def test_the_same_options_and_free_ones_bind_nothing(tmp_path):
    check_binding(tmp_path, OPTIONS, OPTIONS | {"run.threads": 8}, "")
    check_binding(tmp_path, OPTIONS, OPTIONS | {"seed": 7}, "model.")


def test_options_that_are_gone_are_named(tmp_path):
    before = OPTIONS | {"schedule.guessed": 0.5}
    for binding in ("", "model."):
        with pytest.raises(UserError, match=r"another version.*schedule\.guessed"):
            check_binding(tmp_path, before, OPTIONS, binding)


def test_a_training_from_before_the_range_term_had_none_of_it(tmp_path):
    check_binding(tmp_path / "state.pt", OPTIONS, OPTIONS | {"loss.range": 0.0}, "")
    refused = r"holds a training with loss\.range=0\.0, not 10\.0: set it so to go on, choose"
    with pytest.raises(UserError, match=refused):
        check_binding(tmp_path / "state.pt", OPTIONS, OPTIONS | {"loss.range": 10.0}, "")
    check_binding(tmp_path / "state.pt", OPTIONS, OPTIONS, "")  # another kind, which has no such


def test_in_a_training_from_before_a_key_could_be_kept_from_layers_it_went_to_all(tmp_path):
    everywhere = {"model.key_from": 4, "model.key_to": 256}
    for binding in ("", "model."):
        check_binding(tmp_path / "state.pt", OPTIONS, OPTIONS | everywhere, binding)
        with pytest.raises(UserError, match=r"a training with model\.key_to=256, not 8"):
            elsewhere = everywhere | {"model.key_to": 8}
            check_binding(tmp_path / "state.pt", OPTIONS, OPTIONS | elsewhere, binding)


def test_the_average_moves_by_its_half_life():
    average, current = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        average.weight.fill_(0.0)
        current.weight.fill_(1.0)
    options = OptimizerConfig(batch=100, ema_images=100)
    ema_update(average, current, options, 10_000)  # one half-life
    assert average.weight.item() == pytest.approx(0.5)
    ema_update(average, current, options, 1000)  # early on it is a twentieth of the images seen
    assert average.weight.item() == pytest.approx(1 - 0.5**3)


def test_the_decoder_may_have_a_momentum_of_its_own():
    other, decoder = nn.Linear(1, 1), Decoder(ModelConfig(resolution=16, decoder_base=64))
    (group,) = adam(OptimizerConfig(beta1=0.3), other, decoder).param_groups
    assert group["betas"] == (0.3, 0.99)
    options = OptimizerConfig(beta1=0.0, decoder_beta1=0.5)
    groups = adam(options, other, decoder).param_groups
    assert [group["betas"][0] for group in groups] == [0.0, 0.5]
    for network, group in zip((other, decoder), groups, strict=True):
        assert {id(p) for p in group["params"]} == {id(p) for p in network.parameters()}
