"""Points of the curves, measured on a model that reads undisturbed parities and nothing else."""

import pytest

from parity import ParityModel, small_config
from scalefp.errors import UserError
from scalefp.evaluation.robustness import CLEAN, Point, measure_point, points
from scalefp.evaluation.samples import EvaluateConfig, Samples
from scalefp.evaluation.targets import READING_TARGETS
from scalefp.perturb import PERTURBATIONS


@pytest.fixture
def small(tmp_path) -> EvaluateConfig:
    return small_config(tmp_path)


def test_all_strengths_of_table_and_targets_are_points(small: EvaluateConfig) -> None:
    small.perturbations = None
    found = points(small)
    assert found[0] == Point(CLEAN, 0.0, True)
    for name, entry in PERTURBATIONS.items():
        strengths = [p.strength for p in found if p.perturbation == name]
        assert strengths[: len(entry.test_strengths)] == list(entry.test_strengths)
    wanted = {(t.perturbation, float(t.strength)) for t in READING_TARGETS}
    assert {(p.perturbation, p.strength) for p in found if p.has_target} == wanted
    names = [p.name for p in found]
    assert len(set(names)) == len(names)  # each is a part of its own


def test_unknown_perturbations_are_refused(small: EvaluateConfig) -> None:
    small.perturbations = ["jpg"]
    with pytest.raises(UserError, match="'jpg'.*jpeg"):
        points(small)


def test_points_of_a_model_that_survives_png_only(small: EvaluateConfig) -> None:
    model = ParityModel()
    samples = Samples(model, small)  # type: ignore[arg-type]

    def measure(point: Point) -> dict:
        return measure_point(model, samples, point, small)  # type: ignore[arg-type]

    clean = measure(Point(CLEAN, 0.0, True))
    assert clean["images"] == 60 and clean["keys"] == 12
    assert clean["mean"] == clean["min"] == 1.0
    assert clean["attributed"]["1"]["soft"]["2000"] == 1.0
    lost = measure(Point("jpeg", 50.0, True))
    assert abs(lost["mean"] - 0.5) < 0.05 and lost["attributed"]["2"]["hard"]["2000"] == 0
    assert not lost["thorough"] and lost["compared"] is None
    curve = measure(Point("jpeg", 70.0, False))
    assert curve["keys"] == 3 and curve["images"] == 15
    assert model.decoded == {False: 135, True: 0}


def test_a_decoder_that_searches_is_used_where_pixels_move(small: EvaluateConfig) -> None:
    model = ParityModel(searches=True)
    samples = Samples(model, small)  # type: ignore[arg-type]
    flipped = measure_point(model, samples, Point("flip", 1.0, True), small)  # type: ignore[arg-type]
    assert flipped["thorough"] and flipped["keys"] == 2 and flipped["images"] == 10
    assert flipped["mean"] == 1.0
    assert flipped["compared"]["images"] == 10 and flipped["compared"]["thorough"] == 1.0
    assert flipped["compared"]["plain"] < 0.8
    curve = measure_point(model, samples, Point("flip", 0.6, False), small)  # type: ignore[arg-type]
    assert curve["keys"] == curve["images"] == 4  # one of each
    assert list(curve["attributed"]) == ["1"]
    before = dict(model.decoded)
    clean = measure_point(model, samples, Point(CLEAN, 0.0, True), small)  # type: ignore[arg-type]
    assert clean["compared"] == {"images": 7, "plain": 1.0, "thorough": 1.0}
    assert model.decoded == {False: before[False] + 60, True: before[True] + 7}


def test_random_perturbations_repeat(small: EvaluateConfig) -> None:
    model = ParityModel(flip=0.1)
    samples = Samples(model, small)  # type: ignore[arg-type]
    point = Point("noise", 0.05, True)
    first, second = (measure_point(model, samples, point, small) for _ in range(2))  # type: ignore[arg-type]
    assert first == second
    small.seed = 1
    assert measure_point(model, samples, point, small) != first  # type: ignore[arg-type]
