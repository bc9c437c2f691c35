"""The precision is the one asked for, the one begun with, or the one measured to be faster."""

import pytest
import torch

from scalefp.config import RunConfig
from scalefp.training import precision as module
from scalefp.training.precision import faster_precision, pick_precision, precision_name, probe

CPU = torch.device("cpu")
SINGLE, HALF = torch.float32, torch.bfloat16


def clock(single, half):
    """Measures that take so many seconds in each precision, call by call."""
    times = {SINGLE: iter(single), HALF: iter(half)}
    return lambda precision, device: next(times[precision])


@pytest.mark.parametrize(
    ("single", "half", "faster"),
    [
        ([2.0] * 6, [1.0] * 6, HALF),
        ([1.0] * 6, [1.0] * 6, SINGLE),  # nothing is gained for the rounding
        ([1.0] * 6, [0.9] * 6, SINGLE),
        ([9.0, 2, 2, 2, 2, 2], [8.0, 1, 1, 1, 9, 9], HALF),  # a warm-up and two disturbed tries
        ([1.0], [10.0], SINGLE),  # emulated: one try tells
    ],
)
def test_the_faster_precision_is_the_median_of_a_few_tries(single, half, faster):
    assert faster_precision(CPU, clock(single, half)) == faster


@pytest.mark.parametrize(("native", "faster"), [(True, HALF), (False, SINGLE)])
def test_a_gpu_is_asked_not_measured(monkeypatch, native, faster):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation
    )
    assert faster_precision(torch.device("cuda"), clock([], [])) == faster


def test_the_probe_measures_some_work():
    assert 0 < probe(SINGLE, CPU) < 60


def test_a_named_precision_is_taken_as_it_is_and_auto_keeps_what_was_begun(monkeypatch):
    monkeypatch.setattr(module, "measured_precision", lambda kind: SINGLE)
    assert pick_precision(RunConfig(precision="fp32"), CPU) == SINGLE
    assert pick_precision(RunConfig(precision="bf16"), CPU, begun="fp32") == HALF
    assert pick_precision(RunConfig(), CPU) == SINGLE
    assert pick_precision(RunConfig(), CPU, begun="bf16") == HALF


def test_names_are_those_of_the_options():
    assert [precision_name(SINGLE), precision_name(HALF)] == ["fp32", "bf16"]
