"""One rule for every --out: nothing of another kind is overwritten, one's own kind by --force."""

import io
import os
import zipfile
from pathlib import Path

import pytest

import scalefp
from conftest import Run, assert_mistake, write_image
from scalefp.cli.outputs import INSTANCES, is_json, is_onnx, is_png, is_pt2, is_registry_export
from scalefp.key import Key
from scalefp.release.model import Model

EMBED = ["artificial", "embed", "--data", "d"]
KEY = "00112233445566778899aabbccddeeff"


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["plain", "force"])
def test_what_a_command_reads_is_never_overwritten(
    run: Run, registry: Path, release: Path, force: list[str], tmp_path: Path
) -> None:
    names: dict[str, Path] = {}
    for precious in (registry, release):
        hard, soft = tmp_path / f"hard-{precious.name}", tmp_path / f"soft-{precious.name}"
        os.link(precious, hard)
        soft.symlink_to(precious)
        relative = Path(os.path.relpath(precious))
        names |= {str(name): precious for name in (precious, relative, hard, soft)}
    before = {precious: precious.read_bytes() for precious in (registry, release)}
    for name, precious in names.items():
        for place in (registry, f"sqlite:///{registry}"):
            key = ["--holder", "recipient-a", "--registry", place]
            result = run("instantiate", "--model", release, *key, "--out", name, *force)
            assert_mistake(result, "is not an instance file", "overwritten")
        assert precious.read_bytes() == before[precious]
    exporting = ["registry", "export", "--registry", registry, "--out"]
    other = tmp_path / "keys.csv"
    other.write_text("my,own,table\n")
    assert_mistake(run(*exporting, other, *force), "is not an export")
    assert other.read_text() == "my,own,table\n"


def test_an_instance_replaces_an_instance_by_force(run: Run, release: Path) -> None:
    arguments = ["instantiate", "--model", release, "--out", "a.safetensors", "--key"]
    assert run(*arguments, KEY).code == 0
    before = Path("a.safetensors").read_bytes()
    assert_mistake(run(*arguments, Key.random()), "a.safetensors exists already", "--force")
    assert Path("a.safetensors").read_bytes() == before
    assert run(*arguments, Key.random(), "--force").code == 0
    assert Path("a.safetensors").read_bytes() != before
    assert os.listdir() == ["a.safetensors"]


def test_exported_instances_are_known_as_such(run: Run, release: Path) -> None:
    kinds = ["safetensors", "onnx", "pt2"]
    for kind in kinds:
        out = f"a.{kind}"
        assert run("instantiate", "--model", release, "--key", KEY, "--out", out).code == 0
    for kind in kinds:
        for other in kinds:
            is_one = INSTANCES[other][1]
            assert is_one(Path(f"a.{kind}")) == (kind == other)
        again = ["instantiate", "--model", release, "--key", KEY, "--out", f"a.{kind}"]
        assert_mistake(run(*again), "exists already", "--force")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_an_export_replaces_an_export_by_force(run: Run, registry: Path, suffix: str) -> None:
    arguments = ["registry", "export", "--registry", registry, "--out", f"keys.{suffix}"]
    assert run(*arguments).code == 0
    whole = Path(f"keys.{suffix}").read_bytes()
    assert_mistake(run(*arguments), "exists already", "--force")
    assert run(*arguments, "--force").code == 0
    assert Path(f"keys.{suffix}").read_bytes() == whole


def test_kinds_are_told_by_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    archive = tmp_path / "archive"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a.txt", "x")
    for content in (b"", b"\x08", b"PK\x03\x04", b"text\n", archive.read_bytes()):
        path.write_bytes(content)
        assert not (is_onnx(path) or is_pt2(path) or is_png(path) or is_json(path))
        assert is_registry_export(path) == (not content)
    assert is_png(write_image(tmp_path / "a.png"))


def test_a_key_from_a_file_or_standard_input(
    run: Run, release: Path, model: Model, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("key.txt").write_text(f"{KEY}\n")
    read_end, write_end = os.pipe()
    os.write(write_end, KEY.encode())
    os.close(write_end)
    expected = model.instantiate(Key.from_hex(KEY)).sample(1)
    arguments = ["instantiate", "--model", release, "--key-file"]
    with os.fdopen(read_end) as stream, monkeypatch.context() as patch:
        patch.setattr("sys.stdin", stream)
        for number, source in enumerate(["key.txt", "-"]):
            made = run(*arguments, source, "--out", f"{number}.safetensors")
            assert made.code == 0, made.err
            instance = scalefp.load_instance(f"{number}.safetensors")
            assert instance.sample(1).equal(expected)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(""))
        assert_mistake(run(*arguments, "-", "--out", "b"), "empty")
    never = run(*arguments, "key.txt", "--registry", registry, "--out", "b")
    assert_mistake(never, "never issued")
    os.mkfifo("pipe")
    assert_mistake(run(*arguments, "pipe", "--out", "b"), "a named pipe")
    assert_mistake(run(*arguments, "key.txt", "--key", KEY, "--out", "b"), "not allowed with")


def test_a_release_open_to_others_is_said(run: Run, release: Path, tmp_path: Path) -> None:
    copy = tmp_path / "open.safetensors"
    copy.write_bytes(release.read_bytes())
    copy.chmod(0o640)
    arguments = ["instantiate", "--model", copy, "--key", KEY, "--force", "--out", "a.safetensors"]
    warned = run(*arguments)
    assert warned.code == 0
    assert warned.err.startswith("scalefp: warning: other users may read") and "0640" in warned.err
    copy.chmod(0o600)
    assert run(*arguments).err == ""


HUGE = ["0", "-1", "1e3", "x", "", str(10**9), "9" * 5000]
ROOTS = ["", " ", "/", "/.."]
TABLE: list[tuple[list[str], list[str]]] = [
    (["sample", "--instance", "i", "--out", "o", "--num"], HUGE),
    (["sample", "--instance", "i", "--out", "o", "--seed"], ["-1", "1.5", str(2**63), "9" * 5000]),
    (["sample", "--instance", "i", "--out"], ROOTS),
    (["instantiate", "--model", "m", "--key", KEY, "--out"], [*ROOTS, ".", ".."]),
    (["instantiate", "--model", "m", "--out", "o", "--key-file"], ["", "missing", "/dev/zero"]),
    (["registry", "export", "--registry", "r", "--out"], [*ROOTS, ".", "/dev/null", "k.txt"]),
    (["data", "prepare", "s", "--out", "z.zip", "--resolution"], [*HUGE, "12", "2000"]),
    (["data", "prepare", "s", "--resolution", "16", "--out"], ROOTS),
    (["data", "prepare", "s", "--out", "z", "--resolution", "16", "--workers"], HUGE),
    ([*EMBED, "--key", KEY, "--out"], ROOTS),
    ([*EMBED, "--key", KEY, "--out", "o", "--workers"], HUGE),
    ([*EMBED, "--per-image", "--out", "o", "--seed"], ["-1", "1e3"]),
    (
        [*EMBED, "--key", KEY, "--out", "o", "--psnr"],
        ["nan", "1e999"],
    ),
    (["decode", "--model", "emoji", "a", "--workers"], HUGE),
    (["attribute", "--model", "m", "--registry", "r", "a", "--fpr"], ["0", "1", "nan", "inf", ""]),
    (["bench", "--threads"], HUGE),
    (["bench", "--only", "decode", "--model"], ["", "missing", "/dev/zero", "/"]),
    (["bench", "--only", "decode", "--out"], ["missing"]),
    *(
        (["serve", "--model", "m", "--registry", "r", f"--max-{limit}"], HUGE)
        for limit in ("mib", "images", "megapixels", "seconds")
    ),
    (["serve", "--model", "m", "--registry", "r", "--host"], ["", " "]),
    (["serve", "--model", "m", "--registry", "r", "--port"], ["-1", "65536", "x", ""]),
    (["serve", "--model", "m", "--registry", "r", "--workers"], HUGE),
]


@pytest.mark.parametrize(
    "arguments",
    [[*command, value] for command, values in TABLE for value in values],
    ids=lambda arguments: " ".join(arguments)[:90],
)
def test_a_hostile_value_is_one_sentence(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert_mistake(result)
    assert len(result.err) < 500
    assert os.listdir() == []
