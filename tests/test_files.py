"""Writing files: whole or not at all."""

from pathlib import Path

import pytest

from scalefp.errors import UserError
from scalefp.files import atomic_path, text_lines


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


def test_lines_are_numbered_and_without_their_ends(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfa\r\n\n  b \n" + "\u00e9".encode())
    assert list(text_lines(path, 4)) == [(1, "a"), (2, ""), (3, "  b "), (4, "\u00e9")]
    path.write_bytes(b"")
    assert list(text_lines(path, 4)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ok\nlonger", "file, line 2: more than 4 bytes"),
        (b"long\r\nlonge\n", "file, line 2: more than 4 bytes"),
        (b"ok\n\xff\n", "file, line 2: this is not UTF-8"),
        (b"\xff\xfea\x00", "file, line 1: this is not UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(text_lines(path, 4))


def test_a_file_that_cannot_be_read_is_said(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=f"cannot read {path}: (Is a dir|No such file)"):
            list(text_lines(path, 4))
