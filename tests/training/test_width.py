"""A generator too narrow for the length of its keys is named before it is trained."""

import logging

from scalefp.config import ModelConfig
from scalefp.networks.generator import map_channels
from scalefp.training import generator
from scalefp.training.generator import warn_if_narrow, wide_enough

NARROW = ModelConfig(resolution=32, channel_base=512, channel_max=64, n_bits=128)


def test_the_least_wider_sizes_have_a_map_for_each_bit():
    wide = wide_enough(NARROW)
    assert map_channels(NARROW) == 2 * 32 + 16
    assert (wide.channel_base, wide.channel_max) == (832, 64)
    assert map_channels(wide) == 2 * 52 + 26 >= wide.n_bits
    # A step less would not do: channel_base is a multiple of the resolution.
    assert map_channels(ModelConfig(resolution=32, channel_base=800, channel_max=64)) < 128
    assert wide_enough(wide) == wide


def test_narrow_sizes_are_warned_of_with_those_that_do(caplog):
    with caplog.at_level(logging.WARNING, generator.__name__):
        warn_if_narrow(wide_enough(NARROW))
        warn_if_narrow(ModelConfig(n_bits=512, key_maps=False))  # nothing is written by maps there
        assert not caplog.messages
        warn_if_narrow(NARROW)
    (warning,) = caplog.messages
    assert "128 bits" in warning and "80 channels" in warning
    assert "model.channel_base=832 model.channel_max=64" in warning
