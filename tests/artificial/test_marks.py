"""Marked data is known by its record and by what the marker reads; clean data is not refused."""

import json
import os
import stat

import pytest
import torch

from scalefp.artificial.embed import embed
from scalefp.artificial.marks import (
    EVEN,
    SHARE,
    evenly,
    read_record,
    record_path,
    refuse_marked,
    write_record,
)
from scalefp.data.source import Source
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.release.evenness import above_noise

KEY = Key.from_hex("0123abcd")


def refuse(marker, path):
    with Source(path) as entries:
        refuse_marked(marker, entries, range(len(entries.names)))


def test_the_record_holds_the_keys_for_its_owner_alone(pen, tmp_path):
    out = tmp_path / "marked.zip"
    write_record(out, pen, 26.0, KEY)
    record = tmp_path / "marked.zip.marks.json"
    assert record_path(out) == record
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    content = json.loads(record.read_text())
    assert "secret" in content.pop("note")
    assert content == {"model_digest": pen.digest, "psnr": 26.0, "key": "0123abcd"}
    write_record(out, pen, 0.0, {"a/b.png": KEY})
    assert json.loads(record.read_text())["keys"] == {"a/b.png": "0123abcd"}


def test_a_record_gives_its_keys_to_attribution_by_the_users_names(pen, tmp_path):
    keys = {"a/b.png": KEY, "c.png": Key.from_hex("76543210")}
    write_record(tmp_path / "set", pen, 26.0, keys, {"a/b.png": "a/b.jpg"})
    record = read_record(tmp_path / "set.marks.json")
    assert (record.model_digest, record.n_bits, len(record)) == (pen.digest, 32, 2)
    issued = record.keys_and_holders()
    assert list(issued.holders) == ["a/b.jpg", "c.png"]
    assert [row.tobytes() for row in issued.packed] == [key.bytes for key in keys.values()]
    assert issued.revoked == {}
    write_record(tmp_path / "one.zip", pen, 26.0, KEY)
    assert read_record(tmp_path / "one.zip.marks.json").keys == {"one.zip": KEY}


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[1]", b"[" * 9999, b"\xff", b"{}",
        b'{"model_digest": "x"}', b'{"model_digest": 3, "key": "0123abcd"}',
        b'{"model_digest": "x", "key": "0123abcg"}', b'{"model_digest": "x", "keys": {}}',
        b'{"model_digest": "x", "keys": ["0123abcd"]}', b'{"model_digest": "x", "keys": {"a": 3}}',
        b'{"model_digest": "x", "keys": {"a": "0123abcd", "b": "0123"}}',
        b'{"model_digest": "x", "keys": {"a": "0123abcd", "b": "01234567"},'
        b' "originals": {"a": "b"}}',
    ],
)  # fmt: skip
def test_a_damaged_record_is_refused_in_a_sentence_without_keys(tmp_path, text):
    (tmp_path / "x.marks.json").write_bytes(text)
    with pytest.raises(UserError, match="not a whole record of marks") as caught:
        read_record(tmp_path / "x.marks.json")
    assert "0123" not in str(caught.value)
    with pytest.raises(UserError, match="cannot read the record"):
        read_record(tmp_path / "none.marks.json")


def test_the_sample_is_spread_over_all(tmp_path):
    assert evenly(range(5, 8), 64) == [5, 6, 7]
    assert evenly(range(1000), 3) == [0, 499, 999]
    assert evenly([4], 64) == [4]


@pytest.mark.parametrize("key", [KEY, None], ids=["one key", "a key for each"])
def test_marked_data_is_refused_with_and_without_its_record(pen, photos, tmp_path, key):
    out = tmp_path / "marked"
    refuse(pen, photos)
    embed(pen, photos, out, key, progress=False)
    with pytest.raises(UserError, match=r"as .*marked\.marks\.json says.*--again"):
        refuse(pen, out)
    os.rename(record_path(out), tmp_path / "kept-elsewhere")
    with pytest.raises(UserError, match=r"reads a mark in 1[012] of 12 images.*--again") as caught:
        refuse(pen, out)
    assert "0123abcd" not in str(caught.value)  # keys are shown only where they are asked for


def test_a_quarter_of_marked_images_suffices(pen, photos, tmp_path):
    embed(pen, photos, tmp_path / "marked", KEY, progress=False)
    for i in range(3):
        os.replace(tmp_path / "marked" / f"{i}.png", photos / f"{i}.png")
    with pytest.raises(UserError, match="reads a mark in"):
        refuse(pen, photos)


def test_pictures_of_many_kinds_are_not_taken_for_marked(pen, pictures):
    logits = torch.from_numpy(pen.decode(pictures, search=False).logits.copy())
    share = (above_noise(logits) > EVEN).double().mean()
    assert share < SHARE / 4


def test_broken_images_do_not_count(pen, photos):
    for i in range(10):
        (photos / f"{i}.png").write_bytes((photos / f"{i}.png").read_bytes()[:70])
    refuse(pen, photos)
