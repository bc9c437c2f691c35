"""Finished parts are kept for their settings, and only for them."""

import json
from pathlib import Path
from typing import Any

import pytest

from scalefp.errors import UserError
from scalefp.experiment import Parts, content_digest


class Measure:
    """Counts how often it is asked."""

    def __init__(self, result: Any) -> None:
        self.result, self.calls = result, 0

    def __call__(self) -> Any:
        self.calls += 1
        return self.result


def test_a_part_is_measured_once_and_taken_over_later(tmp_path: Path) -> None:
    measure = Measure({"mean": 0.1 + 0.2, "shares": (1, 2)})
    first = Parts(tmp_path / "parts", {"seed": 0})
    assert (first.finished, first.foreign) == (0, 0)
    result = first.get("jpeg 50", measure)
    assert result == {"mean": 0.1 + 0.2, "shares": [1, 2]}  # as JSON gives it, to the last digit
    assert first.get("jpeg 50", measure) == result
    later = Parts(tmp_path / "parts", {"seed": 0})
    assert later.finished == 1
    assert later.get("jpeg 50", measure) == result
    assert measure.calls == 1


def test_other_settings_measure_again_and_replace(tmp_path: Path) -> None:
    Parts(tmp_path, {"seed": 0}).get("clean", Measure(1))
    other = Parts(tmp_path, {"seed": 1})
    assert (other.finished, other.foreign) == (0, 1)
    assert other.get("clean", Measure(2)) == 2
    assert Parts(tmp_path, {"seed": 0}).finished == 0
    assert Parts(tmp_path, {"seed": 1}).get("clean", Measure(3)) == 2


def test_the_order_of_settings_does_not_matter() -> None:
    assert Parts(None, {"a": 1, "b": [2]}).digest == Parts(None, {"b": [2], "a": 1}).digest
    assert Parts(None, {"a": 1}).digest != Parts(None, {"a": 2}).digest


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": "x"}', '{"result": 1}', "1"])
def test_broken_and_foreign_files_are_measured_again(tmp_path: Path, content: str) -> None:
    (tmp_path / "clean.json").write_text(content)
    parts = Parts(tmp_path, {})
    assert (parts.finished, parts.foreign) == (0, 1)
    assert parts.get("clean", Measure(5)) == 5
    assert json.loads((tmp_path / "clean.json").read_text())["result"] == 5


def test_a_failed_measurement_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    parts = Parts(tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        parts.get("clean", interrupted)
    with pytest.raises(ValueError, match="JSON"):
        parts.get("clean", Measure(float("nan")))
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_kept_on_disk(tmp_path: Path) -> None:
    parts, measure = Parts(None, {}), Measure([1])
    assert parts.get("a", measure) == parts.get("a", measure) == [1]
    assert measure.calls == 1


def test_names_become_plain_files(tmp_path: Path) -> None:
    Parts(tmp_path, {}).get("crop_random 0.5/../x", Measure(1))
    assert [path.name for path in tmp_path.iterdir()] == ["crop_random_0.5_.._x.json"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use"):
        Parts(tmp_path / "file" / "parts", {})


def test_work_is_measured_part_by_part_and_taken_up_where_it_was_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = Measure(1), Measure(2)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Parts(tmp_path, {}).measure({"a": first, "b": interrupted}, "work")
    capsys.readouterr()
    assert Parts(tmp_path, {}).measure({"a": first, "b": second}, "work") == {"a": 1, "b": 2}
    assert (first.calls, second.calls) == (1, 1)
    assert f"{tmp_path}: 1 finished part taken over" in capsys.readouterr().err


def test_a_file_counts_by_its_content_and_a_name_as_itself(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("same")
    assert content_digest(tmp_path / "a") == content_digest(tmp_path / "b")
    (tmp_path / "b").write_text("other")
    assert content_digest(tmp_path / "a") != content_digest(tmp_path / "b")
    assert content_digest("emoji") == "emoji"
    assert content_digest(None) is None
