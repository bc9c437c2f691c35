"""Data sets are written whole or not at all, and interrupted work is taken up."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_sets import FILES, load, png, write_folder
from scalefp.data.images import read_image, save_png
from scalefp.data.prepare import PrepareReport, prepare
from scalefp.data.source import Source
from scalefp.errors import UserError


def run_prepare(
    source: Path, out: Path, resolution: int = 16, crop: str = "center"
) -> PrepareReport:
    return prepare(source, out, resolution, crop=crop, progress=False)


def test_prepared_zip_is_what_stylegan_reads(tmp_path: Path) -> None:
    labels = json.dumps({"labels": [["3.png", 5], ["a/1.png", 7], ["b/2.png", 0], ["x.txt", 1]]})
    files = {**FILES, "x.txt": b"text", "dataset.json": labels.encode()}
    source, out = write_folder(tmp_path / "src", files), tmp_path / "out.zip"
    report = run_prepare(source, out, 32)
    assert (report.written, report.reused, report.out) == (3, 0, out)
    assert [name for name, _ in report.skipped] == ["x.txt"]
    members = [f"00000/img0000000{i}.png" for i in range(3)]
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == [*members, "dataset.json"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        about = json.loads(archive.read("dataset.json"))
        assert about.pop("prepared")["settings"]["resolution"] == 32
        assert about == {
            "labels": [[members[0], 5], [members[1], 7], [members[2], 0]],
            "originals": dict(zip(members, ["3.png", "a/1.png", "b/2.png"], strict=True)),
        }
    direct, prepared = load(source, 32), load(out, 32)
    np.testing.assert_array_equal(prepared.pixels, direct.pixels)
    assert prepared.labels is not None and prepared.labels.tolist() == [5, 7, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zip", "src"]


def test_any_resolution_can_be_prepared_and_loaded(tmp_path: Path) -> None:
    source, out = write_folder(tmp_path / "src", FILES), tmp_path / "out.zip"
    run_prepare(source, out, 48)
    prepared = load(out, 48)
    assert prepared.resolution == 48
    np.testing.assert_array_equal(prepared.pixels, load(source, 48).pixels)


def test_without_labels(tmp_path: Path) -> None:
    run_prepare(write_folder(tmp_path / "src", FILES), tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert json.loads(archive.read("dataset.json"))["labels"] is None


def test_a_set_prepared_twice_still_names_the_users_files(tmp_path: Path) -> None:
    once, twice = tmp_path / "once.zip", tmp_path / "twice.zip"
    run_prepare(write_folder(tmp_path / "src", {**FILES, "0.txt": b"text"}), once)
    run_prepare(once, twice)
    with Source(twice) as entries:
        assert list(entries.originals().values()) == ["3.png", "a/1.png", "b/2.png"]


def test_celeba_crop_is_the_published_one(tmp_path: Path) -> None:
    files = {"face.png": png(1, 178, 218), "other.png": png(2, 200, 200)}
    out = tmp_path / "out.zip"
    report = run_prepare(write_folder(tmp_path / "src", files), out, 128, crop="celeba")
    assert report.written == 1 and "178x218" in dict(report.skipped)["other.png"]
    face = np.asarray(read_image(files["face.png"]))
    expected = face[121 - 64 : 121 + 64, 89 - 64 : 89 + 64]
    np.testing.assert_array_equal(load(out, 128).pixels[0].transpose(1, 2, 0), expected)


def interrupt_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = 0

    def save(path: Path, image: Image.Image) -> None:
        nonlocal saved
        if saved == count:
            raise KeyboardInterrupt
        saved += 1
        save_png(path, image)

    monkeypatch.setattr("scalefp.data.prepare.save_png", save)


def test_interrupted_work_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {**FILES, "0.txt": b"text"}
    source, out = write_folder(tmp_path / "src", files), tmp_path / "out.zip"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(2, patch)
        run_prepare(source, out)
    assert not out.exists()

    with pytest.raises(UserError, match="other settings"):
        run_prepare(source, out, 32)  # would mix sizes
    (source / "4.png").write_bytes(png(4))
    with pytest.raises(UserError, match="another source"):
        run_prepare(source, out)  # would mix numbers
    (source / "4.png").unlink()

    report = run_prepare(source, out)
    assert (report.written, report.reused, len(report.skipped)) == (3, 2, 1)
    run_prepare(source, tmp_path / "whole.zip")
    assert out.read_bytes() == (tmp_path / "whole.zip").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zip", "src", "whole.zip"]


def test_the_same_command_once_more_finds_its_work_done(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src", {**FILES, "x.png": b"no image"})
    out = tmp_path / "out.zip"
    first = run_prepare(source, out)
    content = out.read_bytes()
    second = run_prepare(source, out)
    assert second == replace(first, reused=first.written, repeated=True) and not first.repeated
    assert first.skipped and out.read_bytes() == content
    with pytest.raises(UserError, match="exists already"):
        run_prepare(source, out, crop="celeba")
    write_folder(source, {"new.png": FILES[next(iter(FILES))]})
    with pytest.raises(UserError, match="exists already"):
        run_prepare(source, out)
    assert out.read_bytes() == content


def test_prepare_refuses_before_it_works(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src", FILES)
    (tmp_path / "there.zip").write_bytes(b"precious")
    for out, message in (
        (tmp_path / "there.zip", "exists already"),
        (tmp_path / "none" / "out.zip", "does not exist: create it"),
        (source / "out.zip", "inside the data"),
    ):
        with pytest.raises(UserError, match=message):
            run_prepare(source, out)
    assert (tmp_path / "there.zip").read_bytes() == b"precious"
    with pytest.raises(UserError, match="choose center or celeba"):
        run_prepare(source, tmp_path / "out.zip", crop="middle")
    (tmp_path / "out.zip.partial").mkdir()
    (tmp_path / "out.zip.partial" / "mine.txt").write_text("not ours")
    with pytest.raises(UserError, match="remove it"):
        run_prepare(source, tmp_path / "out.zip")
    (tmp_path / "file.zip.partial").write_text("not a folder")
    with pytest.raises(UserError, match="is not a folder"):
        run_prepare(source, tmp_path / "file.zip")


def test_prepare_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src", {"a.png": b"x"})
    with pytest.raises(UserError, match="no usable"):
        run_prepare(source, tmp_path / "out.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["src"]
