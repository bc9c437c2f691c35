"""What single files say of a key."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scalefp.attribution.reading import Reading
from scalefp.errors import UserError
from scalefp.evaluation import single_files
from scalefp.evaluation.single_files import (
    drawn_key,
    inverting,
    mean,
    milliseconds_a_key,
    read_file,
)

FILE = Image.new("RGB", (8, 8))


def reader(wrong: int, n_bits: int = 128) -> Any:
    """A release that reads all bits of :data:`KEY` but so many, with equal certainty."""
    logits = drawn_key(n_bits, 1).bits * 2.0 - 1
    logits[:wrong] *= -1

    def decode(_: Image.Image, *, progress: bool, search: bool) -> Reading:
        assert not progress
        searched.append(search)
        return Reading(logits=logits[None], model_digest="ab" * 32)

    searched: list[bool] = []
    return SimpleNamespace(decode=decode, n_bits=n_bits, searched=searched)


def test_a_key_is_the_same_for_the_same_numbers_and_no_others() -> None:
    assert drawn_key(64, 1, 2).bits.tolist() == drawn_key(64, 1, 2).bits.tolist()
    assert len(drawn_key(64, 1, 2).bits) == 64
    assert drawn_key(64, 1, 2).bits.tolist() != drawn_key(64, 2, 1).bits.tolist()


@pytest.mark.parametrize(
    ("wrong", "n_bits", "named"),
    [
        (0, 128, 1), (20, 128, 1),  # at most 20 of 128 wrong: one in 10^14
        (40, 128, 0),  # one in 10^5, of a million keys
        (0, 32, 0),  # 2^-32 is more than 10^-12
    ],
)  # fmt: skip
def test_a_file_names_a_key_if_chance_would_hardly_read_as_much(
    wrong: int, n_bits: int, named: int
) -> None:
    found = read_file(reader(wrong, n_bits), FILE, drawn_key(n_bits, 1))
    assert found == {"right": 1 - wrong / n_bits, "named": named}


def test_a_file_is_searched_unless_that_is_not_wanted() -> None:
    model = reader(0)
    read_file(model, FILE, drawn_key(128, 1))
    read_file(model, FILE, drawn_key(128, 1), search=False)
    assert model.searched == [True, False]


def test_the_mean_is_over_files() -> None:
    readings = [{"right": 1.0, "named": 1.0}, {"right": 0.5, "named": 0.0}]
    assert (mean(readings), mean(readings, "named")) == (0.75, 0.5)


def test_a_key_costs_the_median_of_a_processors_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.cumsum([0, 0.001, 0, 0.009, 0, 0.002]))
    monkeypatch.setattr(single_files.time, "process_time", lambda: next(clock))
    model: Any = SimpleNamespace(instantiate=lambda key: None)
    assert milliseconds_a_key(model, [drawn_key(8, n) for n in range(3)]) == pytest.approx(2)


def test_a_release_that_is_read_another_way_is_refused() -> None:
    assert inverting("taef2", drawn=False).n_bits == 128
    with pytest.raises(UserError, match="taef2 does not read by inversion of drawn latents"):
        inverting("taef2", drawn=True)
    with pytest.raises(UserError, match="emoji does not read encoded pictures by inversion"):
        inverting("emoji", drawn=False)
