"""Rows of settings, means over seeds, and what a report says of the jobs behind them."""

from typing import Any

import pytest
from scipy import stats

from scalefp.errors import UserError
from scalefp.experiment import student
from scalefp.studies.gather import StudyJob
from scalefp.studies.table import chosen_metrics, make_rows, varied


def job(state: str = "finished", accuracy: float = 0.5, **options: Any) -> StudyJob:
    overrides = {name: str(value) for name, value in options.items()}
    name = ",".join(f"{name}={value}" for name, value in overrides.items())
    figures = {"bit_accuracy": accuracy} if state == "finished" else {}
    return StudyJob(name, state, options, overrides, figures, "1")


@pytest.mark.parametrize("jobs", [2, 3, 21, 22, 40])
def test_the_interval_of_a_mean_is_students(jobs: int) -> None:
    values = [((7 * i) % 11) / 3 for i in range(jobs)]
    expected = stats.t.interval(0.95, jobs - 1, loc=sum(values) / jobs, scale=stats.sem(values))
    assert student(values) == pytest.approx(list(expected), rel=1e-3)
    assert student(values[:1]) is None


def test_a_row_for_each_setting_in_its_order_with_the_mean_over_its_seeds() -> None:
    jobs = [
        job(n_bits=128, seed=0, accuracy=0.6), job(n_bits=16, seed=0, accuracy=0.8),
        job(n_bits=16, seed=1, accuracy=1.0), job("failed", n_bits=16, seed=2),
    ]  # fmt: skip
    assert varied(jobs) == ["n_bits"]
    few, many = make_rows(jobs, ["bit_accuracy"])
    assert (few.setting, many.setting) == ({"n_bits": 16}, {"n_bits": 128})
    assert few.seeds == (0, 1) and dict(few.states) == {"finished": 2, "failed": 1}
    assert few.figures["bit_accuracy"].mean == pytest.approx(0.9)
    assert few.figures["bit_accuracy"].ci95 == pytest.approx([0.9 - 1.27062, 0.9 + 1.27062])
    assert many.figures["bit_accuracy"].ci95 is None and many.figures["bit_accuracy"].jobs == 1


def test_what_was_typed_for_some_jobs_alone_is_a_setting_with_its_default() -> None:
    typed = StudyJob("a", "finished", {"n_bits": 16}, {"n_bits": "16"}, {})
    default = StudyJob("b", "finished", {"n_bits": 64}, {"loss": "published"}, {})
    assert varied([typed, default]) == ["loss", "n_bits"]
    rows = make_rows([typed, default], [])
    assert [dict(row.setting) for row in rows] == [
        {"loss": "", "n_bits": 16}, {"loss": "published", "n_bits": 64},
    ]  # fmt: skip


def test_a_metric_that_no_job_has_is_named_with_those_there_are() -> None:
    assert chosen_metrics([job()], []) == ["bit_accuracy"]
    with pytest.raises(UserError, match="no job has a figure 'fid': choose among bit_accuracy"):
        chosen_metrics([job()], ["fid"])
