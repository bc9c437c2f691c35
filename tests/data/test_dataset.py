"""Data sets load whole or say why; sampling resumes exactly."""

import json
import logging
import os
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import scalefp.data.source
from data_sets import FILES, load, png, write_folder, write_zip
from scalefp.data.dataset import sample_indices
from scalefp.data.images import fit, read_image
from scalefp.data.source import Source, bundled_data, resolve_source
from scalefp.errors import UserError

# ImageSet.


@pytest.mark.parametrize("write", [write_zip, write_folder])
@pytest.mark.parametrize("workers", [0, 2])
def test_folder_and_zip_give_the_same(
    write: Callable[[Path, dict[str, bytes]], Path], workers: int, tmp_path: Path
) -> None:
    images = load(write(tmp_path / "set", FILES), workers=workers)
    assert images.names == ["3.png", "a/1.png", "b/2.png"]
    assert (len(images), images.resolution) == (3, 16)
    assert images.labels is None and images.skipped == []
    for name, stored in zip(images.names, images.pixels, strict=True):
        expected = np.asarray(fit(read_image(FILES[name]), 16))
        np.testing.assert_array_equal(stored.transpose(1, 2, 0), expected)


def test_batch_follows_the_indices_and_is_a_copy(tmp_path: Path) -> None:
    images = load(write_zip(tmp_path / "set.zip", FILES))
    for indices in ([2, 0, 2], np.array([2, 0, 2]), torch.tensor([2, 0, 2])):
        batch = images.batch(indices)
        assert batch.dtype == torch.uint8 and batch.shape == (3, 3, 16, 16)
        np.testing.assert_array_equal(batch.numpy(), images.pixels[[2, 0, 2]])
    batch.zero_()
    assert images.pixels.any()


def test_broken_files_are_named_skipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = {f"bad{i:02d}.png": png(i)[:60] for i in range(11)}
    source = write_zip(tmp_path / "set.zip", {**FILES, **bad, "readme.txt": b"hello"})
    with caplog.at_level(logging.WARNING):
        images = load(source)
    assert images.names == ["3.png", "a/1.png", "b/2.png"]
    np.testing.assert_array_equal(images.pixels, load(write_zip(tmp_path / "ok.zip", FILES)).pixels)
    assert [name for name, _ in images.skipped] == [*sorted(bad), "readme.txt"]
    assert "not an image" in dict(images.skipped)["readme.txt"]
    assert "truncated or corrupt" in dict(images.skipped)["bad00.png"]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 11 and "bad00.png" in messages[0] and "2 more" in messages[-1]


def test_hidden_files_are_no_images_and_no_news(tmp_path: Path) -> None:
    extra = {".DS_Store": b"x", "__MACOSX/._1.png": b"x", ".cache/1.png": b"x"}
    assert load(write_folder(tmp_path / "set", {**FILES, **extra})).skipped == []


def test_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def labels(value: object) -> np.ndarray | None:
        text = json.dumps({"labels": value}).encode()
        return load(write_zip(tmp_path / "set.zip", {**FILES, "dataset.json": text})).labels

    found = labels([["a/1.png", 7], ["b\\2.png", 0], ["3.png", 5]])
    assert found is not None and found.dtype == np.int64 and found.tolist() == [5, 7, 0]
    assert labels(None) is None and labels([]) is None
    assert not caplog.records
    assert labels([["a/1.png", 7]]) is None
    assert labels([[name, [0.5, 0.5]] for name in FILES]) is None
    assert "labels ignored" in caplog.text


@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_a_source_knows_sizes_and_labels_of_every_kind(
    write: Callable[[Path, dict[str, bytes]], Path], tmp_path: Path
) -> None:
    pairs = [["a/1.png", 7], ["b\\2.png", [0.5, 0.5]], ["gone.png", None]]
    text = json.dumps({"labels": pairs}).encode()
    files = {**FILES, "dataset.json": text, "cut.png": png(1, 30, 20)[:60], "text.png": b"text"}
    with Source(write(tmp_path / "set", files)) as entries:
        sizes = {}
        for index, name in enumerate(entries.names):
            if name != "text.png":
                sizes[name] = entries.size(index)
        assert sizes == {
            "3.png": (16, 16), "a/1.png": (40, 24), "b/2.png": (16, 16), "cut.png": (30, 20)
        }  # fmt: skip
        with pytest.raises(UserError, match=r"text\.png is not an image"):
            entries.size(entries.names.index("text.png"))
        expected = [("a/1.png", 7), ("b/2.png", [0.5, 0.5]), ("gone.png", None)]
        assert entries.label_pairs() == expected
        assert entries.labels() == {"a/1.png": 7}


@pytest.mark.parametrize(
    "text", [b"{", b"\xff", b"[1]", b'{"a": 1}', b'{"labels": [3]}', b"[" * 9999]
)
def test_broken_dataset_json_is_an_error(text: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="repair or remove"):
        load(write_folder(tmp_path, {**FILES, "dataset.json": text}))


def test_sources_that_are_none(tmp_path: Path) -> None:
    def refusal(source: str | Path) -> str:
        with pytest.raises(UserError) as caught:
            load(source)
        return str(caught.value)

    assert "does not exist" in refusal(tmp_path / "none")
    assert "no data is named" in refusal("")
    assert "is a device or a pipe" in refusal("/dev/zero")
    (tmp_path / "empty").mkdir()
    assert "is empty" in refusal(tmp_path / "empty")
    text = write_folder(tmp_path, {"text.zip": b"not a zip", "bad/a.png": b"x", "bad/b.png": b"y"})
    assert "not a whole zip" in refusal(text / "text.zip")
    assert "2 files skipped; a.png is not an image" in refusal(tmp_path / "bad")
    whole = write_zip(tmp_path / "whole.zip", FILES).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    assert "not a whole zip" in refusal(tmp_path / "cut.zip")


@pytest.mark.parametrize("resolution", [0, 15, 1025, -16])
def test_impossible_resolution(resolution: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="from 16 to 1024"):
        load(tmp_path, resolution)


def test_set_too_large_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    source = write_zip(tmp_path / "set.zip", FILES)
    monkeypatch.setattr("scalefp.data.dataset.np.empty", no_memory)
    with pytest.raises(UserError, match="GiB of memory at 16x16"):
        load(source)


def test_damaged_and_oversized_zip_entries_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("damaged.png", png(1))
        archive.writestr("fine.png", png(2))
        archive.writestr("large.png", png(3, 64, 64))
    body = bytearray(path.read_bytes())
    body[200] ^= 0xFF  # inside the first entry: its checksum no longer holds
    path.write_bytes(body)
    monkeypatch.setattr(scalefp.data.source, "MAX_FILE_BYTES", 4096)
    images = load(path)
    assert images.names == ["fine.png"]
    assert "Bad CRC-32" in dict(images.skipped)["damaged.png"]
    assert "over the limit" in dict(images.skipped)["large.png"]


def test_zip_entries_are_judged_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded, text = png(1) + bytes(70 * 2**20), bytes(70 * 2**20)
    source = write_zip(tmp_path / "set.zip", {"padded.png": padded, "text.png": text, **FILES})
    read = zipfile.ZipFile.read
    monkeypatch.setattr(
        zipfile.ZipFile,
        "read",
        lambda self, entry: read(self, entry) if entry.file_size < 1e6 else 0,
    )
    skipped = dict(load(source).skipped)
    assert list(skipped) == ["padded.png", "text.png"]
    assert "unpacks to 70 MiB, far more than a picture of 16x16" in skipped["padded.png"]
    assert "not an image" in skipped["text.png"]


def test_training_images_are_judged_by_content_and_must_be_whole(tmp_path: Path) -> None:
    stream = BytesIO()
    Image.new("RGB", (16, 16), "red").save(stream, "BMP")
    jpeg = BytesIO()
    Image.new("RGB", (16, 16), "red").save(jpeg, "JPEG")
    files = {"a.jpg_large": stream.getvalue(), "b": png(1), "cut.jpg": jpeg.getvalue()[:-1]}
    images = load(write_folder(tmp_path / "set", files))
    assert images.names == ["a.jpg_large", "b"] and [name for name, _ in images.skipped] == [
        "cut.jpg"
    ]


def test_image_bomb_in_a_zip_is_skipped(tmp_path: Path) -> None:
    bomb = bytearray(png(1))
    bomb[16:24] = (20_000).to_bytes(4, "big") * 2  # the declared size; its checksum breaks too
    images = load(write_zip(tmp_path / "set.zip", {**FILES, "bomb.png": bytes(bomb)}))
    assert [name for name, _ in images.skipped] == ["bomb.png"]


def test_bundled_set() -> None:
    images = load("emoji64", 64)
    assert len(images) == 7177 and images.skipped == [] and images.labels is None
    corners = images.pixels[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.median(corners) == 255  # on white
    assert 180 < images.pixels[::10].mean() < 220


def test_bundled_names() -> None:
    assert resolve_source("emoji64") == bundled_data() == bundled_data("emoji64")
    with pytest.raises(UserError, match="choose emoji64"):
        bundled_data("emoji65")
    for licence in ("NOTICE-emoji64.md", "LICENSE-fluent-MIT.txt", "LICENSE-noto-Apache-2.0.txt"):
        assert (bundled_data().parent / licence).is_file()


# Sampling.

sizes, seeds = st.integers(1, 50), st.integers(0, 2**32)


@given(sizes, seeds, st.integers(0, 20))
def test_each_epoch_is_a_permutation(n_total: int, seed: int, epoch: int) -> None:
    order = sample_indices(n_total, seed, epoch * n_total, n_total)
    assert sorted(order.tolist()) == list(range(n_total))


@given(sizes, seeds, st.integers(0, 300), st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_any_split_continues_the_same_sequence(
    n_total: int, seed: int, start: int, batches: list[int]
) -> None:
    whole = sample_indices(n_total, seed, start, sum(batches))
    parts, position = [], start
    for batch in batches:
        parts.append(sample_indices(n_total, seed, position, batch))
        position += batch
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_order_differs_by_epoch_and_seed() -> None:
    order = {
        (seed, epoch): tuple(sample_indices(100, seed, 100 * epoch, 100))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(order.values())) == 4
    with pytest.raises(UserError):
        sample_indices(0, 0, 0, 4)


def test_a_subfolder_that_may_not_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training on a part of the pictures without a word would be worse than not training."""
    write_folder(tmp_path, {"a.png": png(1), "closed/b.png": png(2)})
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"closed may not be read \(Permission denied\)"):
        Source(tmp_path)
