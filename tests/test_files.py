"""Writing files: whole or not at all."""

from pathlib import Path

import pytest

from scalefp.errors import UserError
from scalefp.files import atomic_path


def contents(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_a_written_file_replaces_the_old_one_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert contents(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RuntimeError("broken"), RuntimeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), UserError),
    ],
)
@pytest.mark.parametrize("existing", [True, False])
def test_a_writer_that_fails_half_way_leaves_things_as_they_were(tmp_path, existing, error, raised):
    path = tmp_path / "file"
    if existing:
        path.write_text("old")
    with pytest.raises(raised), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert contents(tmp_path) == (["file"] if existing else [])
    assert not existing or path.read_text() == "old"


def test_the_final_name_does_not_exist_before_the_file_is_whole(tmp_path):
    path = tmp_path / "file"
    with atomic_path(path) as temporary:
        temporary.write_text("x")
        assert temporary.parent == path.parent  # a rename across file systems would be a copy
        assert not path.exists()
    assert path.exists()


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with atomic_path(path) as first, atomic_path(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # it was renamed last
    assert contents(tmp_path) == ["file"]


def test_a_missing_folder_is_a_user_error(tmp_path):
    with (
        pytest.raises(UserError, match="nowhere"),
        atomic_path(tmp_path / "nowhere" / "file") as temporary,
    ):
        temporary.write_text("x")
    assert contents(tmp_path) == []


def test_a_bare_file_name_goes_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with atomic_path("file") as temporary:
        temporary.write_text("x")
    assert contents(tmp_path) == ["file"]
