"""Files: written whole or not at all, kept, private where they must be; read without surprise."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scalefp.errors import UserError
from scalefp.files import (
    append_line,
    atomic_path,
    check_regular,
    counted,
    open_regular,
    printable,
    publish,
    text_lines,
    work_folder,
)


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


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    script = (
        "import os, signal, sys; from scalefp.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "file"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", script, str(path)])
        assert done.returncode == -signal.SIGKILL
        assert contents(tmp_path) == [".file.tmp"]
    with atomic_path(path) as temporary:
        temporary.write_text("x")
    assert contents(tmp_path) == ["file"]
    assert path.read_text() == "x"


def test_leftovers_that_cannot_be_removed_are_passed_by(tmp_path):
    for name in (".file.tmp", *(f".file.{number}.tmp" for number in range(1, 8))):
        (tmp_path / name).mkdir()
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "file").read_text() == "x"
    assert len(contents(tmp_path)) == 9


def mode(path):
    return Path(path).stat().st_mode & 0o777


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_a_secret_file_is_its_owners_alone_from_its_first_moment(tmp_path, umask):
    path = tmp_path / "file"
    for _ in range(2):
        before = os.umask(umask)
        try:
            with atomic_path(path, secret=True) as temporary:
                assert mode(temporary) == 0o600
                temporary.write_text("secret")
        finally:
            os.umask(before)
        assert mode(path) == 0o600
        path.chmod(0o644)  # opened by mistake: closed by the next writer


def test_a_replaced_file_hands_its_permissions_on(tmp_path):
    path = tmp_path / "file"
    with atomic_path(path) as temporary:
        temporary.write_text("x")
    umask = os.umask(0)
    os.umask(umask)
    assert mode(path) == 0o666 & ~umask
    path.chmod(0o640)
    with atomic_path(path) as temporary:
        temporary.write_text("y")
    assert mode(path) == 0o640


@pytest.mark.parametrize(
    ("durable", "expected"),
    [(True, [".file.tmp", "file replaced", "folder"]), (False, ["file replaced"])],
)
def test_file_and_folder_are_synced_before_and_after_the_rename(
    tmp_path, monkeypatch, durable, expected
):
    folder, happened = tmp_path / "folder", []
    folder.mkdir()
    fsync, replace = os.fsync, os.replace

    def note_sync(descriptor):
        happened.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def note_replace(source, target):
        happened.append(f"{Path(target).name} replaced")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    with atomic_path(folder / "file", durable=durable) as temporary:
        temporary.write_text("x")
    assert happened == expected


def test_a_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/file")
    for content in ("first", "second"):
        with atomic_path(tmp_path / "link") as temporary:
            temporary.write_text(content)
        assert (tmp_path / "real" / "file").read_text() == content
        assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "real") == ["file"]


def test_nothing_but_a_file_is_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, words in (("pipe", "a named pipe"), ("folder", "a folder")):
        with pytest.raises(UserError, match=f"{name}: {words}"), atomic_path(tmp_path / name):
            raise AssertionError("the block must not run")
    with pytest.raises(UserError, match="device"), atomic_path("/dev/null"):
        raise AssertionError("the block must not run")
    assert contents(tmp_path) == ["folder", "pipe"]


def test_a_folder_of_files_gets_its_name_when_all_are_on_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("scalefp.files.sync", lambda path: synced.append(path.name))
    unfinished = tmp_path / "out.partial"
    (unfinished / "a").mkdir(parents=True)
    (unfinished / "a" / "image").write_text("x")
    publish(unfinished, tmp_path / "out")
    assert synced == ["out.partial", "image", "a", tmp_path.name]
    assert contents(tmp_path / "out") == ["a"] and contents(tmp_path) == ["out"]
    unfinished.mkdir()
    with pytest.raises(UserError, match="cannot write .*out"):
        publish(unfinished, tmp_path / "out")
    assert contents(tmp_path) == ["out", "out.partial"]


def test_a_work_folder_is_ones_own(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    for _ in range(2):
        work_folder(folder, private=True)
        assert mode(folder) == 0o700
    folder.chmod(0o755)
    work_folder(folder)
    with pytest.raises(UserError, match="open to other users"):
        work_folder(folder, private=True)
    folder.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(UserError, match="another user"):
        work_folder(folder)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UserError, match="not a folder"):
        work_folder(tmp_path / "link")
    with pytest.raises(UserError, match="cannot write"):
        work_folder(tmp_path / "missing" / "work")


def test_special_files_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    cases = {tmp_path / "pipe": "a named pipe", Path("/dev/zero"): "a device", tmp_path: "a folder"}
    for path, words in cases.items():
        for read in (open_regular, lambda path: list(text_lines(path, 9))):
            with pytest.raises(UserError, match=f"cannot read {path}: it is {words}"):
                read(path)
        with pytest.raises(UserError, match=f"{path} is {words}.*: give a release file"):
            check_regular(path, "release")
    with pytest.raises(UserError, match="no release file missing"):
        check_regular("missing", "release")
    with pytest.raises(UserError, match="cannot read"):
        open_regular("nul\0")
    (tmp_path / "file").write_bytes(b"x")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"x"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00e9 \u540d \U0001f600.png", "plain \u00e9 \u540d \U0001f600.png"),
        ("a.png: nobody\nb.png: bob", "a.png: nobody\\nb.png: bob"),
        ("\x1b[31mred\x7f\r\t", "\\x1b[31mred\\x7f\\r\\t"),
        ("\u202egnp.exe\u200b\u2028", "\\u202egnp.exe\\u200b\\u2028"),
        (os.fsdecode(b"\xff.png"), "\\udcff.png"),
    ],
)
def test_what_cannot_be_seen_is_printed_as_its_code(text, shown):
    assert printable(text) == shown
    shown.encode()  # can be written anywhere


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
    path = tmp_path / "missing"
    with pytest.raises(UserError, match=f"cannot read {path}: No such file"):
        list(text_lines(path, 4))


def test_what_is_counted_is_in_the_right_number():
    assert [counted(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert [counted(x, "bit") for x in (0.9, 1.4, 1.6)] == ["1 bit", "1 bit", "2 bits"]
    assert [counted(n, "entry", "entries") for n in (1, 3)] == ["1 entry", "3 entries"]


def test_lines_are_added_whole(tmp_path):
    path = tmp_path / "failures.txt"
    append_line(path, "first")
    append_line(path, "caf\u00e9 \udcff")  # a path that is not UTF-8
    assert path.read_text(encoding="utf-8") == "first\ncaf\u00e9 \\udcff\n"
    with pytest.raises(UserError, match="cannot write"):
        append_line(tmp_path, "a folder")
