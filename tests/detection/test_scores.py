import numpy as np
import pytest

from scalefp.detection.scores import best_of_each, summed


def test_scores_of_one_source_are_added() -> None:
    clean = np.array([-3.0, 1.0, 1.0, 1.0])  # the first pair sums below 0, the second above
    marked = np.array([2.0, -1.0, -1.0, 0.5, 9.0])
    found = summed(clean, marked, 2)
    assert found is not None and found["groups"] == 4 and found["accuracy"] == 0.5
    alone = summed(clean, marked, 1)
    assert alone is not None and alone["accuracy"] == (1 + 2) / 8
    assert summed(clean, marked, 5) is None


@pytest.mark.parametrize(("by", "best"), [("validation", [0, 2]), ("accuracy", [1, 2])])
def test_the_best_of_each_case(by: str, best: list[int]) -> None:
    rows = [
        {"threat": "a", "validation": 0.9, "accuracy": 0.5},
        {"threat": "a", "validation": 0.8, "accuracy": 0.7},
        {"threat": "b", "validation": 0.1, "accuracy": 0.1},
    ]
    assert best_of_each(rows, ["threat"], by) == [rows[i] for i in best]
