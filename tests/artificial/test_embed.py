"""Marking a data set: names, labels, keys, interruption, and what the report says."""

import itertools
import json
import logging
import os
import shutil
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scalefp.artificial.embed
from kills import killed_at
from scalefp.artificial.embed import embed
from scalefp.data.images import read_image, save_png, to_float, to_tensor
from scalefp.data.source import Source
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.metrics import psnr

KEY = Key.from_hex("0123abcd")
NAMES = sorted([*(f"{i}.png" for i in range(10)), "b/10.png", "b/11.png"])


def run(pen, data, out, key=KEY, **options):
    return embed(pen, data, out, key, progress=False, **options)


def pixels(path):
    """Names and pixels [b, 3, 32, 32] of a set."""
    with Source(path) as entries:
        images = [entries.read(index) for index in range(len(entries.names))]
        return entries.names, to_tensor(images, 32)


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


def record(out):
    return json.loads(Path(f"{out}.marks.json").read_text())


def assert_alike(a, b):
    """Equal but for rounding: a convolution of another batch may add up in another order."""
    assert (a.int() - b.int()).abs().max() <= 1


# What comes out.


@pytest.mark.parametrize("source", ["folder", "zip"])
@pytest.mark.parametrize("out", ["marked", "marked.zip"])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_image_is_marked_under_its_name(pen, photos, tmp_path, source, out, workers):
    data = photos if source == "folder" else zipped(photos, tmp_path / "photos.zip")
    out = tmp_path / out
    report = run(pen, data, out, workers=workers)
    names, before = pixels(photos)
    marked_names, after = pixels(out)
    assert marked_names == names == NAMES
    assert_alike(after, pen.mark(before, torch.from_numpy(KEY.bits)))
    assert (report.written, report.reused, report.skipped, report.read_again) == (12, 0, [], 12)
    assert report.out == out
    assert report.psnr == pytest.approx(psnr(to_float(after), to_float(before)).mean(), abs=1e-6)
    reading = pen.decode(after, search=False)
    assert report.bit_accuracy == pytest.approx((reading.bits == KEY.bits).mean())
    assert report.bit_accuracy > 0.95
    left = {path.name for path in tmp_path.iterdir()} - {"photos", "photos.zip"}
    assert left == {out.name, f"{out.name}.marks.json"}


def test_the_keys_are_beside_the_set_and_not_in_it(pen, photos, tmp_path):
    report = run(pen, photos, tmp_path / "marked.zip")
    assert report.marks == tmp_path / "marked.zip.marks.json"
    assert record(tmp_path / "marked.zip")["key"] == str(KEY)
    assert record(tmp_path / "marked.zip")["model_digest"] == pen.digest
    with zipfile.ZipFile(tmp_path / "marked.zip") as archive:
        assert archive.namelist() == [*NAMES, "dataset.json"]
        assert json.loads(archive.read("dataset.json")) == {"labels": None}
    content = (tmp_path / "marked.zip").read_bytes()
    assert str(KEY).encode() not in content and KEY.bytes not in content


def test_the_same_command_gives_the_same_zip(pen, photos, tmp_path):
    for name in ("a.zip", "b.zip"):
        run(pen, photos, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize("out", ["marked", "marked.zip"])
def test_other_formats_become_png_and_labels_go_along(pen, photos, tmp_path, out):
    for name, kind in (("0", "jpg"), ("1", "webp"), ("2", "JPEG")):
        image = Image.open(photos / f"{name}.png")
        image.save(photos / f"{name}.{kind}", "WEBP" if kind == "webp" else "JPEG")
        os.remove(photos / f"{name}.png")
    labels = [["0.jpg", 3], ["b\\10.png", [0.5, 0.5]], ["gone.png", 1]]
    (photos / "dataset.json").write_text(json.dumps({"labels": labels}))
    report = run(pen, photos, tmp_path / out)
    assert report.skipped == []
    with Source(tmp_path / out) as entries:
        assert entries.names == NAMES
        assert entries.label_pairs() == [("0.png", 3), ("b/10.png", [0.5, 0.5])]
        for index in range(3):
            assert entries.size(index) == (32, 32)
    _, marked = pixels(tmp_path / out)
    original = to_tensor([read_image(photos / "0.jpg")], 32)
    assert_alike(marked[:1], pen.mark(original, torch.from_numpy(KEY.bits)))


def test_an_empty_folder_is_taken_and_keeps_the_usual_permissions(pen, photos, tmp_path):
    (tmp_path / "new").mkdir()
    run(pen, photos, tmp_path / "new")
    run(pen, photos, tmp_path / "newer")
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("new", "newer"):
        assert len(pixels(tmp_path / name)[0]) == 12
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_stronger_mark_costs_more(pen, photos, tmp_path):
    quality = {}
    for strength in (22.0, None, 34.0):
        out = tmp_path / f"at{strength}"
        quality[strength] = run(pen, photos, out, psnr=strength).psnr
        assert record(out)["psnr"] == (strength or 26)
    assert quality[22.0] < quality[None] - 3 < quality[34.0] - 9


def test_broken_images_are_skipped_and_named(pen, photos, tmp_path, caplog):
    (photos / "3.png").write_bytes((photos / "3.png").read_bytes()[:-60])
    (photos / "notes.txt").write_text("not an image")
    with caplog.at_level(logging.WARNING):
        report = run(pen, photos, tmp_path / "marked")
    assert [name for name, _ in report.skipped] == ["3.png", "notes.txt"]
    assert "truncated" in report.skipped[0][1] and "3.png" in caplog.text
    assert report.written == 11
    assert "3.png" not in pixels(tmp_path / "marked")[0]
    assert not (tmp_path / "marked" / "notes.txt").exists()


# Keys.


def test_each_image_its_own_random_key(pen, photos, tmp_path):
    run(pen, photos, tmp_path / "a", None)
    run(pen, photos, tmp_path / "b", None)
    keys = {name: record(tmp_path / name)["keys"] for name in "ab"}
    assert list(keys["a"]) == NAMES
    assert len({*keys["a"].values(), *keys["b"].values()}) == 24
    names, marked = pixels(tmp_path / "a")
    true = np.stack([Key.from_hex(keys["a"][name]).bits for name in names])
    assert (pen.decode(marked, search=False).bits == true).mean() > 0.95


def test_a_seed_repeats_the_keys_by_name(pen, photos, tmp_path):
    run(pen, photos, tmp_path / "a", None, seed=1)
    run(pen, photos, tmp_path / "c", None, seed=2)
    os.remove(photos / "0.png")
    run(pen, photos, tmp_path / "b", None, seed=1)
    a, b, c = (record(tmp_path / name)["keys"] for name in "abc")
    assert {name: key for name, key in a.items() if name != "0.png"} == b
    assert not set(a.values()) & set(c.values())


# Interruption.


def interrupt_after(count, monkeypatch):
    saved = 0

    def save(path, image):
        nonlocal saved
        if saved == count:
            raise KeyboardInterrupt
        saved += 1
        save_png(path, image)

    monkeypatch.setattr(scalefp.artificial.embed, "save_png", save)


@pytest.mark.parametrize("key", [KEY, None], ids=["one key", "a key for each"])
@pytest.mark.parametrize("out", ["marked", "marked.zip"])
def test_interrupted_work_is_taken_up(pen, photos, tmp_path, monkeypatch, key, out):
    (photos / "notes.txt").write_text("text")
    out = tmp_path / out
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(5, patch)
        run(pen, photos, out, key)
    partial = Path(f"{out}.partial")
    assert not out.exists() and not Path(f"{out}.marks.json").exists()
    assert stat.S_IMODE(partial.stat().st_mode) == 0o700  # the keys are in there
    finished = {path.name: path.read_bytes() for path in partial.rglob("*.png")}
    assert len(finished) == 5

    with pytest.raises(UserError, match="other settings"):
        run(pen, photos, out, key, psnr=30)
    with pytest.raises(UserError, match="other settings"):
        run(pen, photos, out, Key.random(32))
    shutil.copy(photos / "0.png", photos / "new.png")
    with pytest.raises(UserError, match="another source"):
        run(pen, photos, out, key)
    os.remove(photos / "new.png")

    report = run(pen, photos, out, key, workers=2)
    assert (report.written, report.reused, len(report.skipped)) == (12, 5, 1)
    assert report.bit_accuracy > 0.95  # of the keys that were drawn at first, too
    assert not partial.exists()
    names, marked = pixels(out)
    assert names == NAMES
    keys = [KEY.bits] * 12
    if key is None:
        keys = [Key.from_hex(record(out)["keys"][name]).bits for name in names]
    before = to_tensor([read_image(photos / name) for name in names], 32)
    assert_alike(marked, pen.mark(before, torch.from_numpy(np.stack(keys))))


@pytest.mark.parametrize("key", [KEY, None], ids=["one key", "a key for each"])
@pytest.mark.parametrize("name", ["marked", "marked.zip"])
def test_killed_at_any_rename_the_repeat_finishes(pen, photos, tmp_path, key, name):
    for i in range(2, 10):
        os.remove(photos / f"{i}.png")
    shutil.rmtree(photos / "b")
    out = tmp_path / name
    for number in itertools.count(1):
        if not killed_at(number, lambda: run(pen, photos, out, key), "replace"):
            break
        partial = Path(f"{out}.partial")
        for file in partial.glob("*.json") if partial.exists() else ():
            assert str(KEY) not in file.read_text()
        written = record(out) if Path(f"{out}.marks.json").exists() else None
        report = run(pen, photos, out, key)
        assert (report.written, report.skipped) == (2, [])
        assert report.bit_accuracy > 0.9
        assert pixels(out)[0] == ["0.png", "1.png"]
        assert written in (None, record(out))  # keys that were drawn are never drawn again
        assert sorted(p.name for p in tmp_path.iterdir()) == [name, f"{name}.marks.json", "photos"]
        shutil.rmtree(out) if out.is_dir() else out.unlink()
        Path(f"{out}.marks.json").unlink()
    assert number > 5


def test_a_disk_that_fails_leaves_no_set(pen, photos, tmp_path, monkeypatch):
    def fail(path, image):
        raise UserError(f"cannot write {path} (No space left on device): choose another place")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space"):
        patch.setattr(scalefp.artificial.embed, "save_png", fail)
        run(pen, photos, tmp_path / "marked")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["marked.partial", "photos"]


# Refusals: nothing is written.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(key=Key.random(128)), "128 bits, and this release takes 32"),
        (dict(psnr=3.0), "15 to 55 dB"),
        (dict(out="photos/in"), "inside the data"),
        (dict(out="missing/out"), "does not exist"),
        (dict(data="nowhere"), "does not exist"),
        (dict(data="empty"), "no usable"),
        (dict(data="large"), r"0\.png is 64x64.*--resolution 32"),
    ],
    ids=["key length", "strength", "inside", "no parent", "no data", "no image", "resolution"],
)
def test_refused_before_anything_is_written(pen, photos, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("large").mkdir()
    save_png("large/0.png", Image.new("RGB", (64, 64)))
    before = sorted(Path().rglob("*"))
    arguments = dict(data="photos", out="marked", key=KEY) | options
    with pytest.raises(UserError, match=words):
        run(pen, **arguments)
    assert sorted(Path().rglob("*")) == before


def test_marking_twice_needs_a_word(pen, photos, tmp_path):
    run(pen, photos, tmp_path / "once")
    with pytest.raises(UserError, match="marked already"):
        run(pen, tmp_path / "once", tmp_path / "twice")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["once", "once.marks.json", "photos"]
    report = run(pen, tmp_path / "once", tmp_path / "twice", again=True)
    assert report.written == 12


@pytest.mark.parametrize("key", [KEY, None], ids=["one key", "a key for each"])
@pytest.mark.parametrize("name", ["marked", "marked.zip"])
def test_the_same_command_once_more_finds_its_work_done(pen, photos, tmp_path, key, name):
    out = tmp_path / name
    first = run(pen, photos, out, key)
    before = pixels(out), record(out)
    second = run(pen, photos, out, key)
    assert second == replace(first, reused=12, repeated=True) and not first.repeated
    assert (pixels(out)[0], record(out)) == (before[0][0], before[1])
    with pytest.raises(UserError, match="holds other files|exists already"):
        run(pen, photos, out, key, psnr=30)
    with pytest.raises(UserError, match="holds other files|exists already"):
        run(pen, photos, out, Key.random(32))
    if out.is_dir():
        os.remove(out / "0.png")  # no longer whole
        with pytest.raises(UserError, match="holds other files"):
            run(pen, photos, out, key)


def test_foreign_unfinished_work_is_left_alone(pen, photos, tmp_path):
    (tmp_path / "marked.partial").mkdir()
    (tmp_path / "marked.partial" / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="remove it"):
        run(pen, photos, tmp_path / "marked")
    assert [p.name for p in (tmp_path / "marked.partial").iterdir()] == ["mine.txt"]


def test_a_set_of_broken_images_leaves_nothing(pen, photos, tmp_path):
    for file in photos.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(UserError, match="no usable"):
        run(pen, photos, tmp_path / "marked")
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]
