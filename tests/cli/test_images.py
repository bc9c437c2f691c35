"""``decode`` and ``attribute`` over many files, some of them bad: lines, summaries, exit codes."""

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Run, assert_mistake, write_image
from data_sets import write_zip
from scalefp.key import Key
from scalefp.registry import Registry
from scalefp.release.model import Model


@pytest.fixture
def matching(tmp_path: Path, model: Model, images: list[Path]) -> Path:
    """A registry whose holder alice has the key that is read in the first image."""
    key = model.decode(images[:1]).key
    path = tmp_path / "matching.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Key, "random", classmethod(lambda cls, n_bits=128: key))
        Registry(path).issue("alice", model)
    return path


@pytest.fixture
def attribute(run: Run, release: Path, matching: Path) -> Callable[..., object]:
    def call(*arguments: object) -> object:
        return run("attribute", "--model", release, "--registry", matching, *arguments)

    return call


@pytest.fixture
def folder(images: list[Path]) -> Path:
    """The three images, three files that look like some, and two that do not."""
    folder = images[0].parent
    (folder / "._0.png").write_bytes(b"\0\5\x16\7" + bytes(60))
    (folder / "cut.png").write_bytes(images[0].read_bytes()[:-200])
    (folder / "text.jpg").write_text("not an image")
    (folder / "notes.txt").write_text("notes")
    (folder / "README").write_text("notes")
    return folder


def test_bad_files_cost_nothing_but_their_own_line(attribute: Run, folder: Path) -> None:
    result = attribute(folder)
    lines = dict(line.split(": ", 1) for line in result.out.splitlines())
    assert result.code == 0
    assert [Path(name).name for name in lines] == [
        "._0.png", "0.png", "1.png", "2.png", "cut.png", "text.jpg"
    ]  # fmt: skip
    assert lines[f"{folder}/0.png"].startswith("alice (p = ")
    assert lines[f"{folder}/1.png"] == lines[f"{folder}/2.png"] == "nobody"
    assert lines[f"{folder}/cut.png"].startswith("could not be read: it is truncated")
    assert lines[f"{folder}/text.jpg"].startswith("could not be read: it is not an image")
    assert "1 of 3 attributed: alice 1\n" in result.err
    assert "3 of 6 could not be read\n" in result.err
    assert "2 files skipped, for they are no images: " in result.err
    assert ".txt 1" in result.err and "without ending 1" in result.err
    assert "6 images in " in result.err and "images/s" in result.err


def test_the_good_ones_decide_the_exit_code(
    attribute: Run, run: Run, release: Path, images: list[Path], folder: Path
) -> None:
    bad = [folder / "cut.png", folder / "none.png"]
    assert attribute(images[0], *bad).code == 0
    assert attribute(images[1], *bad).code == 1
    none = attribute(*bad)
    assert none.code == 2 and len(none.out.splitlines()) == 2
    assert "none of the 2 images could be read" in none.err and "cut.png is truncated" in none.err
    assert_mistake(attribute(bad[0]), "cut.png is truncated")
    assert_mistake(attribute(images[0], bad[0], "--strict"), "cut.png is truncated")
    assert run("decode", "--model", release, images[1], *bad).code == 0
    assert run("decode", "--model", release, *bad).code == 2


def test_json_keeps_its_shapes_and_says_what_could_not_be_read(
    attribute: Run, run: Run, release: Path, images: list[Path], folder: Path
) -> None:
    bad = str(folder / "cut.png")
    first, error, last = attribute(images[0], bad, images[1], "--json").json
    assert list(first) == list(last) == ["images", "attributed", "fpr", "issued", "form"]
    assert error["images"] == [bad] and set(error) == {"images", "error"}
    assert error["error"].startswith(f"{bad} is truncated")
    one, error = attribute(images[0], bad, images[1], "--json", "--same-source").json
    assert one["images"] == [str(images[0]), str(images[1])] and error["images"] == [bad]
    key, error = run("decode", "--model", release, images[0], bad, "--json").json
    assert set(key) == {"image", "key", "confidence"} and set(error) == {"image", "error"}


def test_json_lines_are_the_entries_of_the_list(attribute: Run, folder: Path) -> None:
    lines = attribute(folder, "--json-lines").out.splitlines()
    assert [json.loads(line) for line in lines] == attribute(folder, "--json").json
    assert_mistake(attribute(folder, "--json", "--json-lines"), "choose one of")


def test_csv_has_a_line_for_each_image(attribute: Run, images: list[Path], folder: Path) -> None:
    formula = shutil.copy(images[0], "=1+2.png")
    rows = list(csv.DictReader(io.StringIO(attribute(formula, folder, "--csv").out)))
    assert [row["image"] for row in rows[:3]] == ["'=1+2.png", f"{folder}/._0.png", str(images[0])]
    assert [row["source"] for row in rows] == [str(number + 1) for number in range(7)]
    assert [row["holder"] for row in rows] == ["alice", "", "alice", "", "", "", ""]
    assert [bool(row["error"]) for row in rows] == [False, True, False, False, False, True, True]
    assert float(rows[2]["p_value"]) < 1e-6 and rows[2]["matches"] == "128"
    together = csv.DictReader(io.StringIO(attribute(*images[:2], "--same-source", "--csv").out))
    assert {(row["source"], row["image"]) for row in together} == {
        ("1", str(image)) for image in images[:2]
    }


def test_evidence_first_and_attributed_only(
    attribute: Run, images: list[Path], folder: Path
) -> None:
    def order(*options: str) -> list[str]:
        out = attribute(images[2], folder / "cut.png", images[1], images[0], *options).out
        return [Path(line.split(": ")[0]).name for line in out.splitlines()]

    assert order() == ["2.png", "cut.png", "1.png", "0.png"]
    assert order("--sort", "evidence") == ["0.png", "2.png", "cut.png", "1.png"]
    assert order("--only-attributed") == ["cut.png", "0.png"]


def test_results_come_before_the_last_image_is_read(
    attribute: Run, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [shutil.copy(images[i % 3], tmp_path / f"{i:02}.png") for i in range(20)]
    seen: list[int] = []
    decode = Model.decode

    def watch(self: Model, pictures: list[object], **options: object) -> object:
        seen.append(sys.stdout.getvalue().count("\n"))
        return decode(self, pictures, **options)

    monkeypatch.setattr(Model, "decode", watch)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    attribute(*many)
    assert seen == [0, 8, 16]


def test_zips_and_lists_of_paths(
    run: Run, release: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_zip(tmp_path / "a.zip", {"in/0.png": images[0].read_bytes()})
    stdin = io.TextIOWrapper(io.BytesIO(f"{images[1]}\n{archive}\n".encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    rows = run("decode", "--model", release, images[0], "-", "--json").json
    assert [row["image"] for row in rows] == [
        str(images[0]), str(images[1]), f"{archive}/in/0.png"
    ]  # fmt: skip
    assert rows[0]["key"] == rows[2]["key"] != rows[1]["key"]


def test_several_processes_give_the_same_results_in_order(
    run: Run, release: Path, folder: Path, images: list[Path]
) -> None:
    for i in range(18):
        shutil.copy(images[i % 3], folder / f"copy{i:02}.png")
    alone = run("decode", "--model", release, folder)
    several = run("decode", "--model", release, folder, "--workers", "2")
    assert (several.code, several.out) == (alone.code, alone.out)
    assert "3 of 24 could not be read" in several.err


def test_names_cannot_forge_a_verdict(attribute: Run, images: list[Path], tmp_path: Path) -> None:
    forged = tmp_path / "a.png: nobody\nevidence.png: bob (p = 1e-38, 128 of 128 bits)"
    shutil.copy(images[1], forged)
    out = attribute(forged).out
    assert out.count("\n") == 1 and "nobody\\nevidence" in out


@pytest.mark.parametrize("how", ["--json", "--json-lines", "--csv", "--sort=evidence"])
def test_a_key_typed_among_the_images_is_repeated_nowhere(
    run: Run, attribute: Run, release: Path, images: list[Path], how: str
) -> None:
    key = "00112233445566778899aabbccddeeff"
    answers = [attribute(how, key, images[0])]
    if not how.startswith("--sort"):
        answers.append(run("decode", "--model", release, how, key, images[0]))
    for result in answers:
        assert result.code == 0 and key not in result.out + result.err
        assert "0011" in result.out and "does not exist" in result.out


def test_a_file_named_like_a_key_keeps_its_name(
    run: Run, release: Path, images: list[Path]
) -> None:
    name = "00112233445566778899aabbccddeeff"
    Path(name).write_text("no image")
    result = run("decode", "--model", release, "--json", name, images[0])
    assert result.json[0]["image"] == name


def test_a_search_can_be_left_out(
    run: Run, release: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalefp.release.reader.read", None)  # would fail if it were called
    assert run("decode", "--model", release, *images, "--no-search").code == 0


def test_images_that_are_too_large_are_refused(run: Run, release: Path, tmp_path: Path) -> None:
    large = write_image(tmp_path / "large.png", size=(1001, 1000))
    arguments = ["decode", "--model", release, large, "--max-megapixels"]
    assert_mistake(run(*arguments, "1"), "over the limit of 1 megapixels")
    assert run(*arguments, "2").code == 0


def test_a_name_comes_with_what_it_does_not_prove(attribute: Run, images: list[Path]) -> None:
    said = "not that the holder made it"
    named = attribute(images[0])
    assert named.code == 0 and named.err.count(said) == 1
    assert said not in named.out  # a line there is a verdict
    assert attribute(*images).err.count(said) == 1  # once for all of them
    assert said not in attribute(images[1]).err  # nobody is named
    for option in ("--json", "--json-lines", "--csv"):
        result = attribute(images[0], option)
        assert said not in result.out + result.err
