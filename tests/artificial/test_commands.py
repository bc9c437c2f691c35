"""``scalefp artificial``: results, exit codes and one sentence for mistakes."""

import os
from pathlib import Path

import pytest
import torch

import scalefp
from conftest import Run, assert_mistake
from scalefp.artificial.marker import Marker
from scalefp.artificial.marks import read_record
from scalefp.attribution import attribute
from scalefp.cli.artificial import BUNDLED
from scalefp.cli.door import build_parser
from scalefp.data.images import to_pil
from scalefp.key import Key

KEY = "0123abcd"

# Embed.


def test_embed_then_detect(run: Run, pen_file: Path, pen: Marker, photos: Path) -> None:
    arguments = ["artificial", "embed", "--model", pen_file, "--data", photos, "--key", KEY]
    result = run(*arguments, "--out", "marked", "--json")
    assert result.code == 0, result.err
    assert KEY not in result.out + result.err
    summary = result.json
    assert 25 < summary.pop("psnr") < 30
    assert 0.95 < summary.pop("bit_accuracy") <= 1
    assert summary == {
        "out": "marked",
        "marks": "marked.marks.json",
        "written": 12,
        "reused": 0,
        "skipped": [],
        "read_again": 12,
        "model_digest": pen.digest,
    }
    rows = run("artificial", "detect", "--model", pen_file, "marked", "--json").json
    assert [row["image"] for row in rows][-1] == "marked/b/11.png"
    right = [(Key.from_hex(row["key"]).bits == Key.from_hex(KEY).bits).mean() for row in rows]
    assert sum(right) / len(right) > 0.95


def test_embed_in_words(run: Run, pen_file: Path, photos: Path) -> None:
    (photos / "notes.txt").write_text("no image")
    result = run(
        "artificial", "embed", "--model", pen_file, "--data", photos, "--per-image",
        "--out", "m.zip", "--workers", "2",
    )  # fmt: skip
    first, second, third = result.out.splitlines()
    assert first == "m.zip: 12 images marked, 1 file skipped"
    assert second.startswith("mean PSNR 2") and "12 images read again" in second
    assert third.startswith("m.zip.marks.json: the secret record")


def test_a_model_trained_on_marked_data_is_attributed_to_its_holder(
    run: Run, pen_file: Path, photos: Path
) -> None:
    named = ["--registry", "keys.db", "--model", pen_file]
    assert run("registry", "issue", "photos-2026", *named).code == 0
    result = run(
        "artificial", "embed", *named, "--data", photos, "--holder", "photos-2026", "--out", "m"
    )
    assert result.code == 0, result.err
    found = run("attribute", *named, "m", "--same-source", "--json", "--fpr", "1e-6")
    assert found.code == 0
    assert [one["holder"] for one in found.json[0]["attributed"]] == ["photos-2026"]
    clean = run("attribute", *named, photos, "--same-source", "--json", "--fpr", "1e-6")
    assert (clean.code, clean.json[0]["attributed"]) == (1, [])


def test_a_leaked_image_leads_back_to_the_users_file(
    run: Run, pen_file: Path, pen: Marker, marker_file: Path, pictures: torch.Tensor
) -> None:
    Path("photos").mkdir()
    for i, picture in enumerate(to_pil(pictures[:6])):
        picture.resize((64, 64)).save(f"photos/holiday {i}.jpg", quality=95)
    prepared = run("data", "prepare", "photos", "--resolution", "32", "--out", "set.zip")
    assert prepared.code == 0, prepared.err
    embedded = run(
        "artificial", "embed", "--model", pen_file, "--data", "set.zip", "--per-image",
        "--out", "marked",
    )  # fmt: skip
    assert embedded.code == 0, embedded.err
    leaked = "marked/00000/img00000004.png"
    arguments = ["attribute", "--model", pen_file, "--marks", "marked.marks.json"]
    found = run(*arguments, leaked, "--fpr", "1e-3", "--json")
    assert found.code == 0, found.err
    (entry,) = found.json
    (named,) = entry["attributed"]
    assert (named["holder"], entry["issued"]) == ("holiday 4.jpg", 6)
    (exact,) = attribute(pen.decode(leaked), read_record("marked.marks.json"), 1e-3)
    assert named["p_value"] == exact.p_value
    foreign = run(*arguments, "photos/holiday 4.jpg", "--json")
    assert (foreign.code, foreign.json[0]["attributed"]) == (1, [])
    other = ["attribute", "--model", marker_file, "--marks", "marked.marks.json"]
    assert_mistake(run(*other, leaked), "written by another release", "--model")
    assert_mistake(run("attribute", "--model", pen_file, leaked), "--registry", "--marks")


def test_embed_mistakes(
    run: Run, pen_file: Path, marker_file: Path, release: Path, photos: Path
) -> None:
    run("registry", "issue", "someone", "--registry", "other.db", "--model", marker_file)
    run("registry", "issue", "someone", "--registry", "keys.db", "--model", pen_file)
    run("registry", "revoke", "someone", "--registry", "keys.db")
    Path("full").mkdir()
    Path("full/mine.txt").touch()
    there = sorted(os.listdir())

    def mistake(*arguments: object, words: list[str], model: object = pen_file) -> None:
        usual = {"--data": photos, "--out": "marked"}
        usual = {name: value for name, value in usual.items() if name not in arguments}
        pairs = [part for pair in usual.items() for part in pair]
        result = run("artificial", "embed", "--model", model, *pairs, *arguments)
        assert_mistake(result, *words)
        assert sorted(os.listdir()) == there

    key = ["--key", KEY]
    mistake(words=["--key", "--holder", "--per-image"])
    mistake(*key, "--per-image", words=["--per-image", "not allowed"])
    mistake("--key", "00" * 16, words=["8 hexadecimal digits"])
    mistake("--key", "xy", words=["hexadecimal digit"])
    mistake("--holder", "someone", words=["--registry"])
    mistake("--holder", "nobody", "--registry", "keys.db", words=["ever issued"])
    mistake("--holder", "someone", "--registry", "keys.db", words=["revoked"])
    mistake("--holder", "someone", "--registry", "other.db", words=["another release"])
    mistake("--per-image", "--registry", "keys.db", words=["leave --registry out"])
    mistake(*key, "--seed", "1", words=["--seed", "--per-image"])
    mistake(*key, "--psnr", "loud", words=["--psnr", "decibels"])
    mistake(*key, "--psnr", "90", words=["15 to 55 dB"])
    mistake(*key, "--out", "full", words=["full holds other files"])
    mistake(*key, "--out", "missing/out.zip", words=["missing does not exist"])
    mistake(*key, "--out", photos / "in", words=["inside the data"])
    mistake(*key, "--data", "nowhere", words=["nowhere does not exist"])
    mistake(*key, "--data", "emoji64", words=["64x64", "scalefp data prepare"])
    mistake(*key, model="no-such-name", words=["no release 'no-such-name'"])
    mistake("--key", "00" * 16, model=release, words=["is the release of a generator"])


# Detect.


def test_detect_prints_what_decode_prints(run: Run, pen_file: Path, photos: Path) -> None:
    for form in ([], ["--json"]):
        detected = run("artificial", "detect", "--model", pen_file, photos, *form)
        decoded = run("decode", "--model", pen_file, photos, *form)
        assert detected[:2] == decoded[:2]  # the rest says how long it took
        assert detected.code == 0


def test_detect_insists_on_a_marker(run: Run, release: Path, photos: Path) -> None:
    result = run("artificial", "detect", "--model", release, photos / "0.png")
    assert_mistake(result, "random.safetensors", "is the release of a generator")


def test_the_bundled_marker_is_the_default() -> None:
    embed = ["artificial", "embed", "--data", "d", "--out", "o", "--per-image"]
    detect = ["artificial", "detect", "a.png"]
    for command in (embed, detect):
        assert build_parser().parse_args(command).model == BUNDLED


# Train.


def test_train_is_hydras(run: Run) -> None:
    result = run("artificial", "train", "--cfg", "job", "seed=7", "marker=published")
    assert result.code == 0, result.err
    assert "seed: 7" in result.out and "n_bits: 100" in result.out
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.n_bitz=3"], ["model.n_bitz", "scalefp artificial train --cfg job"]),
        (["model.resolution=20"], ["model.resolution", "32 and 512"]),
        (["marker=none"], ["marker/none", "published"]),
        (["seed"], ["'seed'", "name=value"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_train_mistakes(run: Run, overrides: list[str], words: list[str]) -> None:
    assert_mistake(run("artificial", "train", *overrides), *words)
    assert os.listdir() == []


def test_a_trained_marker_is_a_release(run: Run, photos: Path) -> None:
    result = run(
        "artificial", "train", "marker=small", f"data.source={photos}", "name=first",
        "model.n_bits=8", "model.encoder_width=4", "model.decoder_base=384", "model.decoder_max=24",
        "schedule.total_images=8", "optimizer.batch=4", "run.tensorboard=false",
        "run.precision=fp32", "perturb={}",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.out.strip().endswith("runs/first/release.safetensors")
    loaded = scalefp.load(result.out.strip())
    assert isinstance(loaded, scalefp.Marker)
    assert loaded.config.n_bits == 8
