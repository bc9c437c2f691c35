"""What was read after each change, as rows and as a table."""

import pytest

from scalefp.experiment import accuracy_rows, accuracy_table

ACCURACY = {"as it is": [1.0] * 20, "JPEG 50": [k / 20 for k in range(21)]}


def test_rows_hold_the_mean_and_the_worst_twentieth() -> None:
    whole, jpeg = accuracy_rows(ACCURACY, {"as it is": 0.99, "JPEG 50": None})
    assert whole == {"what": "as it is", "target": 0.99, "mean": 1.0, "low5": 1.0}
    assert jpeg["mean"] == pytest.approx(0.5) and jpeg["low5"] == pytest.approx(0.05)


def test_a_row_without_a_target_leaves_its_cell_empty() -> None:
    rows = accuracy_rows(ACCURACY, {"as it is": 0.99, "JPEG 50": None})
    head, _, whole, jpeg = accuracy_table(rows, "target (128 bits)").splitlines()
    assert head.endswith("| target (128 bits) |")
    assert whole == "| as it is | 1.0000 | 1.000 | 0.99 |"
    assert jpeg == "| JPEG 50 | 0.5000 | 0.050 |  |"
