"""The subcommands on a tiny random release: results, exit codes and one sentence for mistakes.

Nothing of a random decoder can be read, so where attribution must find somebody, the registry is
made to issue the very key that the decoder reads from the image.
"""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import scalefp
from conftest import HOLDERS, Run, assert_mistake, write_image
from kills import killed_at
from scalefp.cli import main
from scalefp.key import Key
from scalefp.release.instance import Instance
from scalefp.release.model import Model

# Instances.


def test_instantiate_by_key_by_holder_and_by_both_agree(
    run: Run, registry: Path, release: Path, model: Model
) -> None:
    key = scalefp.Registry(registry).find("recipient-a")
    by = {
        "key": ["--key", str(key).upper()],
        "holder": ["--holder", "recipient-a", "--registry", registry],
        "both": ["--key", key, "--registry", registry],
    }
    expected = model.instantiate(key).sample(2, seed=5)
    for name, arguments in by.items():
        result = run("instantiate", "--model", release, *arguments, "--out", f"{name}.safetensors")
        assert (result.code, result.out) == (0, f"{name}.safetensors\n")
        assert torch.equal(scalefp.load_instance(result.out.strip()).sample(2, seed=5), expected)
        assert str(key) not in result.err


def test_instantiate_json(run: Run, release: Path, model: Model) -> None:
    key = Key.random()
    result = run("instantiate", "--model", release, "--key", key, "--out", "a.st", "--json")
    assert result.json == {
        "out": "a.st",
        "format": "safetensors",
        "resolution": 16,
        "latent_dim": 8,
        "model_digest": model.digest,
    }
    assert str(key) not in result.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--out", "a.onnx"], ("a.onnx", "onnx")),
        (["--out", "a.pt2"], ("a.pt2", "pt2")),
        (["--out", "a", "--format", "pt2"], ("a", "pt2")),
        (["--out", "a.pt2", "--format", "onnx"], ("a.pt2", "onnx")),
        (["--out", "a.onnx", "--format", "safetensors"], None),
    ],
    ids=lambda value: " ".join(value or ["saved"]),
)
def test_the_format_is_given_or_the_suffix(
    run: Run,
    release: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: tuple[str, str] | None,
) -> None:
    calls = []
    monkeypatch.setattr(
        Instance, "export", lambda self, path, **options: calls.append((path, options))
    )
    named = ["--model", release, "--key", "00" * 16, *arguments]
    assert run("instantiate", *named).code == 0
    assert calls == ([(expected[0], {"format": expected[1], "uint8": False})] if expected else [])
    assert os.listdir() == ([] if expected else ["a.onnx"])
    if expected:
        assert run("instantiate", *named, "--uint8").code == 0
        assert calls[1:] == [(expected[0], {"format": expected[1], "uint8": True})]
    else:
        assert_mistake(run("instantiate", *named, "--uint8"), "--uint8 is for --format onnx or pt2")


def test_refused_keys_write_nothing(
    run: Run, registry: Path, release: Path, other_release: Path
) -> None:
    revoked = scalefp.Registry(registry).find("recipient-b")
    run("registry", "revoke", "recipient-b", "--registry", registry)
    never = Key.random()
    name = ["--registry", registry]
    cases: list[tuple[list[object], str]] = [
        (["--key", "abc"], "32 hexadecimal digits"),
        (["--key", "00" * 17], "32 hexadecimal digits"),
        (["--key", "zz" * 16], "hexadecimal digit"),
        (["--key", ""], "empty"),
        (["--key", never, *name], "never issued"),
        (["--key", revoked, *name], "revoked"),
        (["--holder", "recipient-b", *name], "revoked"),
        (["--holder", "stranger", *name], "ever issued"),
    ]
    for arguments, words in cases:
        result = run("instantiate", "--model", release, *arguments, "--out", "a.safetensors")
        assert_mistake(result, words)
        assert str(never) not in result.err and str(revoked) not in result.err
    wrong = ["--model", other_release, "--holder", "recipient-a", *name]
    assert_mistake(run("instantiate", *wrong, "--out", "a.safetensors"), "another release")
    assert os.listdir() == []


def test_unwritable_output(run: Run, release: Path) -> None:
    Path("file").touch()
    for out in ("missing/a.safetensors", "file/a.safetensors"):
        result = run("instantiate", "--model", release, "--key", "00" * 16, "--out", out)
        assert_mistake(result, out)
    assert os.listdir() == ["file"]


def test_sample_writes_the_instances_images(run: Run, release: Path, model: Model) -> None:
    instance = model.instantiate(Key.random())
    instance.save("a.safetensors")
    result = run("sample", "--instance", "a.safetensors", "--out", "deep/images", "--num", "3")
    assert result.code == 0
    names = ["0000.png", "0001.png", "0002.png"]
    assert sorted(os.listdir("deep/images")) == names
    expected = scalefp.data.images.to_pil(instance.sample(3, seed=0))
    for name, image in zip(names, expected, strict=True):
        assert Image.open(Path("deep/images", name)).tobytes() == image.tobytes()
    again = ["--instance", "a.safetensors", "--out", "other", "--num", "3", "--seed", "1"]
    files = run("sample", *again, "--json").json
    assert files == [str(Path("other", name)) for name in names]
    assert Path(files[0]).read_bytes() != Path("deep/images/0000.png").read_bytes()


def test_sample_overwrites_only_images_and_only_by_force(run: Run, model: Model) -> None:
    model.instantiate(Key.random()).save("a.safetensors")
    earlier = write_image(Path("out/0001.png"))
    before = earlier.read_bytes()
    arguments = ["sample", "--instance", "a.safetensors", "--out", "out", "--num", "2"]
    assert_mistake(run(*arguments), "out/0001.png", "--force")
    assert os.listdir("out") == ["0001.png"]
    assert earlier.read_bytes() == before
    assert run(*arguments, "--force").code == 0
    assert Image.open("out/0001.png").size == (16, 16)
    earlier.write_text("precious")
    assert_mistake(run(*arguments, "--force"), "out/0001.png exists and is not an image")
    assert earlier.read_text() == "precious"


@pytest.mark.parametrize("number", [1, 2, 3])  # before the note, and before each image
def test_sample_killed_at_a_rename_is_finished_by_its_repeat(
    run: Run, model: Model, number: int
) -> None:
    model.instantiate(Key.random()).save("a.safetensors")
    arguments = ["sample", "--instance", "a.safetensors", "--out", "out", "--num", "2"]
    assert killed_at(number, lambda: main(arguments), "replace")
    if number == 3:  # an image is there, and not of another command
        assert_mistake(run(*arguments, "--seed", "1"), "out/0000.png", "--force")
        assert_mistake(run(*arguments[:-1], "3"), "out/0000.png", "--force")
    assert run(*arguments).code == 0
    assert sorted(os.listdir("out")) == ["0000.png", "0001.png"]
    assert_mistake(run(*arguments), "out/0000.png", "--force")


@pytest.mark.parametrize("format", ["safetensors", "pt2"])
def test_instantiate_killed_at_its_rename_leaves_nothing_behind(
    run: Run, release: Path, format: str
) -> None:
    arguments = ["instantiate", "--model", str(release), "--key", "00" * 16, "--out", "a"]
    arguments += ["--format", format]
    assert killed_at(1, lambda: main(arguments), "replace")
    assert run(*arguments).code == 0
    assert os.listdir() == ["a"]


def test_sample_into_a_file(run: Run, model: Model) -> None:
    model.instantiate(Key.random()).save("a.safetensors")
    Path("out").touch()
    assert_mistake(run("sample", "--instance", "a.safetensors", "--out", "out"), "out")


def test_an_instance_file_from_the_command_line_holds_no_key(run: Run, release: Path) -> None:
    key = Key.random()
    run("instantiate", "--model", release, "--key", key, "--out", "a.safetensors")
    content = Path("a.safetensors").read_bytes()
    assert key.bytes not in content and str(key).encode() not in content.lower()
    with safe_open("a.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "embed" in name or "affine" in name]  # noqa: SIM118


# Damaged and foreign files.


@pytest.fixture
def bad_files(tmp_path: Path, release: Path, images: list[Path]) -> dict[str, Path]:
    whole = release.read_bytes()
    folder = tmp_path / "bad"
    folder.mkdir()
    contents = {
        "empty": b"",
        "header cut": whole[:20],
        "end cut": whole[:-100],
        "text": b"not a release at all",
        "image": images[0].read_bytes(),
    }
    files = {name: folder / name.replace(" ", "-") for name in contents}
    for name, content in contents.items():
        files[name].write_bytes(content)
    files["checkpoint"] = folder / "state.pt"
    torch.save({"images": 3, "generator": {"weight": torch.zeros(2)}}, files["checkpoint"])
    return files | {"missing": folder / "missing", "folder": folder}


def test_bad_releases(
    run: Run, bad_files: dict[str, Path], registry: Path, images: list[Path], model: Model
) -> None:
    model.instantiate(Key.random()).save("a.safetensors")
    for path in [*bad_files.values(), "a.safetensors", "no-such-name"]:
        assert_mistake(run("decode", "--model", path, images[0]), str(path))
        result = run("instantiate", "--model", path, "--key", "00" * 16, "--out", "b")
        assert_mistake(result, str(path))
        named = ["--model", path, "--registry", registry]
        assert_mistake(run("attribute", *named, images[0]), str(path))
        assert_mistake(run("registry", "issue", "c", *named), str(path))
    assert os.listdir() == ["a.safetensors"]
    assert len(scalefp.Registry(registry)) == len(HOLDERS)


def test_bad_instances(run: Run, bad_files: dict[str, Path], release: Path) -> None:
    for path in [*bad_files.values(), release]:
        assert_mistake(run("sample", "--instance", path, "--out", "out"), str(path))
    assert os.listdir() == []


def test_bad_registries(
    run: Run, bad_files: dict[str, Path], release: Path, images: list[Path]
) -> None:
    for name, path in bad_files.items():
        result = run("attribute", "--model", release, "--registry", path, images[0])
        assert_mistake(result, str(path))
        assert path.exists() == (name != "missing")


# Decode and attribute.


@pytest.fixture
def issue_read_key(
    tmp_path: Path, run: Run, release: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Makes a registry whose holder has the key that the decoder reads from images together."""

    def make(holder: str, paths: list[Path]) -> Path:
        key = model.decode(paths).key
        with monkeypatch.context() as patch:
            patch.setattr(Key, "random", classmethod(lambda cls, n_bits=128: key))
            path = tmp_path / "matching.db"
            assert (
                run("registry", "issue", holder, "--registry", path, "--model", release).code == 0
            )
        return path

    return make


def test_decode_json(run: Run, release: Path, model: Model, images: list[Path]) -> None:
    reading = model.decode(images)
    rows = run("decode", "--model", release, *images, "--json").json
    assert [row["image"] for row in rows] == [str(path) for path in images]
    assert [row["key"] for row in rows] == [str(key) for key in reading.keys]
    sigmoid = 1 / (1 + np.exp(-reading.logits))
    expected = (2 * np.abs(sigmoid - 0.5)).mean(axis=1)
    assert [row["confidence"] for row in rows] == pytest.approx(expected)
    assert set(rows[0]) == {"image", "key", "confidence"}


def test_decode_text_has_a_line_for_each_image(
    run: Run, release: Path, model: Model, images: list[Path]
) -> None:
    result = run("decode", images[0], "--model", release, *images[1:])  # options in between
    for line, path, key in zip(
        result.out.splitlines(), images, model.decode(images).keys, strict=True
    ):
        assert line.startswith(f"{path}  {key}")


def test_decode_takes_folders_and_every_mode(run: Run, release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    write_image(folder / "b" / "deep.png")
    for mode, name in (("L", "grey.png"), ("RGBA", "alpha.webp"), ("CMYK", "print.jpg")):
        Image.new(mode, (30, 20)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    single = write_image(tmp_path / "single.png")
    rows = run("decode", "--model", release, folder, single, "--json").json
    names = ["alpha.webp", "b/deep.png", "grey.png", "print.jpg"]
    assert [row["image"] for row in rows] == [*(str(folder / name) for name in names), str(single)]


def test_bad_images(run: Run, release: Path, registry: Path, tmp_path: Path) -> None:
    good = write_image(tmp_path / "good.png", size=(64, 64))
    bad = tmp_path / "bad"
    (bad / "empty").mkdir(parents=True)
    bomb = io.BytesIO()
    Image.new("1", (20_000, 6_000)).save(bomb, "PNG")
    (bad / "bomb.png").write_bytes(bomb.getvalue())
    (bad / "cut.png").write_bytes(good.read_bytes()[:-200])
    (bad / "text.png").write_text("not an image")
    cases = {"bomb.png": "megapixels", "cut.png": "cut.png", "text.png": "text.png"}
    cases |= {"empty": "holds no", "missing.png": "does not exist"}
    for name, word in cases.items():
        for command in (["decode"], ["attribute", "--registry", registry]):
            arguments = [*command, "--model", release, bad / name]
            assert_mistake(run(*arguments), word, str(bad / name))
            assert_mistake(run(*arguments, good, "--strict"), word, str(bad / name))


def test_attribute_names_the_holder(
    run: Run, release: Path, model: Model, images: list[Path], issue_read_key: Callable[..., Path]
) -> None:
    matching = issue_read_key("recipient-x", images[:1])
    arguments = ["attribute", "--model", release, "--registry", matching, "--form", "hard"]
    result = run(*arguments, *images[:1], "--json", "--fpr", "1e-9")
    assert result.code == 0
    found = {
        "holder": "recipient-x",
        "key": str(model.decode(images[:1]).key),
        "p_value": 2.0**-128,
        "matches": 128,
        "effective_bits": 128,
        "margin": 128,
        "revoked": None,
    }
    expected = {"images": [str(images[0])], "attributed": [found], "fpr": 1e-9, "issued": 1}
    expected["form"] = "hard"
    assert result.json == [expected]
    assert list(result.json[0]["attributed"][0])[:4] == ["holder", "key", "p_value", "matches"]
    text = run(*arguments, images[0])
    assert text.out == f"{images[0]}: recipient-x (p = 2.9e-39, 128 of 128 bits)\n"


def test_attribute_judges_each_image_or_all_as_one(
    run: Run, release: Path, images: list[Path], issue_read_key: Callable[..., Path]
) -> None:
    matching = issue_read_key("recipient-x", images)
    arguments = ["attribute", "--model", release, "--registry", matching, *images, "--json"]
    (entry,) = run(*arguments, "--same-source").json
    assert entry["images"] == [str(path) for path in images]
    assert entry["attributed"][0]["matches"] == 128
    each = run(*arguments).json
    assert [entry["images"] for entry in each] == [[str(path)] for path in images]
    assert {entry["issued"] for entry in each} == {1}


def test_attribute_weighs_bits_by_how_sure_they_were_read(
    run: Run, release: Path, model: Model, images: list[Path], issue_read_key: Callable[..., Path]
) -> None:
    matching = issue_read_key("recipient-x", images)
    (entry,) = run(
        "attribute", "--model", release, "--registry", matching, *images, "--json", "--same-source"
    ).json
    (expected,) = scalefp.attribute(model.decode(images), scalefp.Registry(matching))
    (found,) = entry["attributed"]
    assert entry["form"] == "soft"
    assert found == vars(expected) | {"key": str(expected.key)}
    assert found["effective_bits"] < 128


def test_attribute_groups_images_only_if_asked(
    run: Run,
    release: Path,
    images: list[Path],
    issue_read_key: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matching = issue_read_key("recipient-x", images)
    own = 2.0 * scalefp.Registry(matching).find("recipient-x").bits - 1
    other = np.random.default_rng(0).choice([-1.0, 1.0], 128)
    reading = scalefp.Reading(np.stack([own, other, own]))
    monkeypatch.setattr(Model, "decode", lambda self, pictures, **_: reading)
    arguments = ["attribute", "--model", release, "--registry", matching, *images, "--json"]
    assert [entry["images"] for entry in run(*arguments).json] == [[str(path)] for path in images]
    first, second = run(*arguments, "--group").json
    assert first["images"] == [str(images[0]), str(images[2])] and first["attributed"]
    assert second["images"] == [str(images[1])] and not second["attributed"]
    assert_mistake(run(*arguments, "--group", "--same-source"), "not allowed with")


def test_nobody_is_exit_code_1_only_if_no_image_is_attributed(
    run: Run,
    release: Path,
    registry: Path,
    images: list[Path],
    issue_read_key: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    innocent = run("attribute", "--model", release, "--registry", registry, *images, "--json")
    assert innocent.code == 1
    assert [entry["attributed"] for entry in innocent.json] == [[], [], []]
    assert {entry["issued"] for entry in innocent.json} == {2}
    text = run("attribute", "--model", release, "--registry", registry, "--same-source", *images)
    assert (text.code, text.out) == (1, "3 images: nobody\n")
    # One of two images is attributed.
    matching = issue_read_key("recipient-x", images[:1])
    unlike = Key.from_bits(1 - scalefp.Registry(matching).find("recipient-x").bits)
    reading = scalefp.Reading((unlike.bits[None] - 0.5).repeat(2, axis=0))
    reading.logits.flags.writeable = True
    reading.logits[0] *= -1
    monkeypatch.setattr(Model, "decode", lambda self, pictures, **_: reading)
    some = run("attribute", "--model", release, "--registry", matching, *images[:2], "--json")
    assert some.code == 0
    assert [bool(entry["attributed"]) for entry in some.json] == [True, False]


def test_attribute_refuses_a_registry_of_another_release(
    run: Run, other_release: Path, registry: Path, images: list[Path]
) -> None:
    result = run("attribute", "--model", other_release, "--registry", registry, *images)
    assert_mistake(result, "another release")


# Data.


def test_data_prepare(run: Run, images: list[Path]) -> None:
    folder = images[0].parent
    (folder / "broken.png").write_text("not an image")
    result = run("data", "prepare", folder, "--out", "d.zip", "--resolution", "16", "--json")
    assert result.code == 0
    summary = result.json
    assert (summary["out"], summary["written"], summary["reused"]) == ("d.zip", 3, 0)
    assert [skipped["name"] for skipped in summary["skipped"]] == ["broken.png"]
    with zipfile.ZipFile("d.zip") as archive:
        assert sum(name.endswith(".png") for name in archive.namelist()) == 3
    text = run("data", "prepare", folder, "--out", "e.zip", "--resolution", "32", "--workers", "2")
    assert text.out == "e.zip: 3 images, 1 file skipped\n"


def test_data_prepare_mistakes(run: Run, images: list[Path], tmp_path: Path) -> None:
    arguments = ["data", "prepare", images[0].parent, "--out"]
    assert_mistake(run(*arguments, "d.zip", "--resolution", "12"), "from 16 to 1024")
    assert_mistake(run(*arguments, "missing/d.zip", "--resolution", "16"), "missing")
    assert_mistake(run(*arguments, "d.zip", "--resolution", "16", "--crop", "faces"), "--crop")
    celeba = [*arguments, "d.zip", "--resolution", "16", "--crop", "celeba"]
    assert_mistake(run(*celeba), "178x218")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_mistake(run("data", "prepare", empty, "--out", "d.zip", "--resolution", "16"), "empty")
    absent = run("data", "prepare", tmp_path / "absent", "--out", "d.zip", "--resolution", "16")
    assert_mistake(absent, "does not exist")
    assert os.listdir() == []
