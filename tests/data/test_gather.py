"""What somebody points at becomes one list: nothing that may be an image is left out in silence."""

import io
import os
import zipfile
from pathlib import Path

import pytest

from data_sets import png, write_folder, write_zip
from scalefp.data.gather import Gathered, gather
from scalefp.errors import UserError

NAMES = ["C.PNG", "a.jfif", "b.jpg_large", "d/no-ending", ".hidden.png"]


def names(found: Gathered) -> list[str]:
    return [image.name for image in found.images]


def collect(*arguments: object, stdin: bytes = b"") -> Gathered:
    return gather(map(str, arguments), io.BytesIO(stdin))


def problem(found: Gathered, number: int = 0) -> str:
    with pytest.raises(UserError) as error:
        found.images[number].read(10**6)
    return str(error.value)


def test_a_folder_is_judged_by_content(tmp_path: Path) -> None:
    others = {"notes.txt": b"text", "list.TXT": b"text", "Makefile": b"all:", "empty": b""}
    folder = write_folder(tmp_path, {name: png(1) for name in NAMES} | others)
    found = collect(folder)
    assert names(found) == sorted(str(folder / name) for name in NAMES)
    assert all(image.read(10**6).size == (16, 16) for image in found.images)
    assert found.skipped == {".txt": 2, "without ending": 2}


def test_what_claims_to_be_an_image_gets_its_line(tmp_path: Path) -> None:
    macos = b"\0\5\x16\7" + bytes(60)
    folder = write_folder(tmp_path, {"._x.png": macos, "cut.jpg": b"\xff\xd8\xff", "x.png": png(1)})
    found = collect(folder, tmp_path / "none.png")
    assert [os.path.basename(name) for name in names(found)] == [
        "._x.png", "cut.jpg", "x.png", "none.png"
    ]  # fmt: skip
    assert "attributes that macOS" in problem(found).replace("file's attributes", "attributes")
    assert "corrupt" in problem(found, 1) and "does not exist" in problem(found, 3)


def test_special_files_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.png")
    found = collect(tmp_path)
    assert names(found) == [str(tmp_path / "pipe.png")] and found.skipped == {"without ending": 1}
    assert "not a regular file" in problem(found)


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, {"a.png": png(1), "closed/b.png": png(2)})
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = collect(tmp_path)
    assert names(found) == [str(tmp_path / "a.png"), str(tmp_path / "closed")]
    assert "closed may not be read (Permission denied)" in problem(found, 1)


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty holds no image" in problem(collect(tmp_path / "empty"))
    archive = write_zip(tmp_path / "a.zip", {"text.txt": b"text"})
    assert "zip " in problem(collect(archive)) and "holds no image" in problem(collect(archive))


def test_a_zip_whatever_its_name(tmp_path: Path) -> None:
    files = {"b/2": png(2), "1.png": png(1), "read.me": b"", "bad.png": b"text"}
    files["__MACOSX/._1.png"] = b"\0\5\x16\7" + bytes(60)
    found = collect(write_zip(tmp_path / "album", files))
    assert names(found) == [f"{tmp_path}/album/{name}" for name in ("1.png", "b/2", "bad.png")]
    assert found.images[0].read(10**6).tobytes() != found.images[1].read(10**6).tobytes()
    assert "album/bad.png is not an image" in problem(found, 2)
    assert found.skipped == {".me": 1, ".png": 1}


def test_a_damaged_zip_is_one_problem(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"1.png": png(1)})
    path.write_bytes(path.read_bytes()[:-30])
    assert "not a whole zip" in problem(collect(path))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("1.png", png(1))
    body = (tmp_path / "b.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(body.replace(b"\x89PNG", b"\x88PNG"))
    assert "1.png" in problem(collect(tmp_path / "b.zip"))


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_a_list_of_paths(tmp_path: Path, separator: bytes) -> None:
    awkward = "two\nlines.png" if separator == b"\0" else "two words.png"
    folder = write_folder(tmp_path / "folder", {"1.png": png(1), "2.png": png(2)})
    single = write_folder(tmp_path, {awkward: png(3)}) / awkward
    stdin = separator.join([os.fsencode(folder), os.fsencode(single)]) + separator
    found = collect("-", folder / "1.png", stdin=stdin)
    assert names(found) == [
        f"{folder}/1.png", f"{folder}/2.png", str(single), f"{folder}/1.png"
    ]  # fmt: skip


@pytest.mark.parametrize("stdin", [b"", b"\n", b"\r\n\r\n", b"\0"])
def test_a_list_of_nothing_is_said_to_be_one(stdin: bytes) -> None:
    assert "standard input names no image" in problem(collect("-", stdin=stdin))


class Endless(io.RawIOBase):
    """A stream of one byte that never ends; counts what was taken of it."""

    def __init__(self, byte: bytes) -> None:
        self.byte, self.taken = byte, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        buffer[:] = self.byte * len(buffer)
        self.taken += len(buffer)
        return len(buffer)


@pytest.mark.parametrize("byte", [b"\0", b"\n", b"a"])
def test_a_list_that_never_ends_is_refused(byte: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalefp.data.gather.MAX_LIST", 1 << 20)
    endless = Endless(byte)
    with pytest.raises(UserError, match="standard input is longer than 1 MiB"):
        gather(["-"], io.BufferedReader(endless))
    assert endless.taken < 2 << 20


@pytest.mark.parametrize("separator", [b"\n", b"\0"])
def test_a_name_that_no_path_can_have_is_refused(separator: bytes) -> None:
    with pytest.raises(UserError, match="a name of more than 4096 bytes") as error:
        collect("-", stdin=separator.join([b"a.png", b"a" * 4097]) + separator)
    assert "aaaa" not in str(error.value)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.png"
    with open(path, "wb") as file:
        file.write(png(1))
    assert collect("-", stdin=path).images[0].read(10**6).size == (16, 16)
    assert names(collect(tmp_path)) == [os.fsdecode(path)]
