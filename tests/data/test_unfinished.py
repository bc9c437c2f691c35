"""Killed at any point, the same call again finishes, or says that all was done, and clears up."""

import itertools
from pathlib import Path

import pytest

from data_sets import FILES, write_folder
from kills import killed_at
from scalefp.data.prepare import prepare
from scalefp.data.unfinished import Unfinished
from scalefp.errors import UserError


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_prepare_killed_at_any_rename_is_finished_by_its_repeat(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src", {**FILES, "0.txt": b"text"})
    expected = prepare(source, tmp_path / "whole.zip", 16, progress=False)
    whole = (tmp_path / "whole.zip").read_bytes()
    (tmp_path / "whole.zip").unlink()
    out = tmp_path / "out.zip"

    def work() -> None:
        prepare(source, out, 16, progress=False)

    for number in itertools.count(1):
        if not killed_at(number, work, "replace"):
            break
        report = prepare(source, out, 16, progress=False)
        assert (report.written, report.skipped) == (expected.written, expected.skipped)
        assert out.read_bytes() == whole
        assert contents(tmp_path) == ["out.zip", "src"]
        out.unlink()
    assert number > 6  # three images, notes before and after, the zip made and named


def finished(tmp_path: Path, settings: dict[str, object]) -> Unfinished:
    """Work on ``out`` all of which is there but for the steps of ``finish``."""
    unfinished = Unfinished(tmp_path / "out", settings)
    unfinished.claim()
    (unfinished.folder / "images").mkdir()
    for name in ("a", "b"):
        (unfinished.folder / "images" / name).write_text(name)
    (unfinished.folder / "secret").write_text("x")
    return unfinished


def test_the_end_of_the_work_is_taken_up_wherever_it_was_killed(tmp_path: Path) -> None:
    for number in itertools.count(1):
        (place := tmp_path / str(number)).mkdir()
        unfinished = finished(place, {"a": 1})

        def work(unfinished: Unfinished = unfinished) -> None:
            unfinished.finish(unfinished.folder / "images", {"written": 2})

        came_so_far = killed_at(number, work, "replace", "unlink", "rmdir")
        if not came_so_far:
            break
        again = Unfinished(place / "out", {"a": 1})
        report = again.take_up_the_end()
        if report is None and not (place / "out").exists():  # killed before the report was noted
            again.claim()
            again.finish(again.folder / "images", {"written": 2})
        else:  # or when nothing but the empty folder was left
            assert report in (None, {"written": 2})
        assert contents(place) == ["out"] and contents(place / "out") == ["a", "b"]
    assert number > 5


def test_what_has_taken_the_place_of_the_whole_is_left_alone(tmp_path: Path) -> None:
    unfinished = finished(tmp_path, {"a": 1})
    assert killed_at(2, lambda: unfinished.finish(unfinished.folder / "images", {}), "replace")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    assert unfinished.take_up_the_end() is None
    assert contents(tmp_path / "out") == ["mine.txt"]
    assert contents(unfinished.folder) == ["images", "secret", "settings.json"]


@pytest.mark.parametrize("note", [b"", b"[1]", b"{}", b"\xff", b"[" * 9999, b'{"settings": 3}'])
def test_a_damaged_note_is_somebody_elses(tmp_path: Path, note: bytes) -> None:
    unfinished = finished(tmp_path, {"a": 1})
    (unfinished.folder / "settings.json").write_bytes(note)
    assert unfinished.take_up_the_end() is None
    with pytest.raises(UserError, match="remove it to start anew"):
        unfinished.claim()
