"""Files: whole or not at all, refused in one sentence, and never run as code."""

import os
import pickle
import resource
import struct
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from scalefp.errors import UserError
from scalefp.release.container import (
    kind_of,
    load_state,
    load_strictly,
    load_tensors,
    load_weights,
    save_state,
    save_tensors,
    shapes_of,
)

STATE = {"images": 96, "progress": {"accuracy": 0.5}, "net": {"w": torch.arange(6.0)}}


def contents(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def write_release(path, header=None):
    save_tensors(path, "release", {"w": torch.arange(600.0).reshape(2, 300)}, header or {"n": 1})
    return path


# Atomic writing: how is in test_files.py, here that both kinds use it.

KINDS = {
    "state": lambda path, content: save_state(path, {"images": 1, "content": content}),
    "release": lambda path, content: save_tensors(path, "release", {"w": content}, {}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["nowhere/file", "occupied/file", "x" * 256], ids=lambda n: n[:8])
def test_a_place_that_cannot_be_written_to_is_a_user_error(tmp_path, kind, name):
    (tmp_path / "occupied").write_text("a file, not a folder")
    with pytest.raises(UserError, match=name):
        KINDS[kind](tmp_path / name, torch.zeros(3))
    assert contents(tmp_path) == ["occupied"]


@contextmanager
def full_disk():
    """No file can grow beyond 20 kB, as if the disk were full then.

    Only around the one write: pytest's own report may already be a longer file than that.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("existing", [True, False])
def test_a_full_disk_is_a_user_error_and_keeps_the_old_file(tmp_path, kind, existing):
    path = tmp_path / "file"
    if existing:
        KINDS[kind](path, torch.zeros(10))
        before = path.read_bytes()
    with pytest.raises(UserError, match="cannot write"), full_disk():
        KINDS[kind](path, torch.zeros(20_000))
    assert contents(tmp_path) == (["file"] if existing else [])
    assert not existing or path.read_bytes() == before


# Training state.


def test_state_round_trip(tmp_path):
    save_state(tmp_path / "state.pt", STATE)
    state = load_state(tmp_path / "state.pt")
    assert state["images"] == 96
    assert state["progress"] == {"accuracy": 0.5}
    assert torch.equal(state["net"]["w"], STATE["net"]["w"])


class Bomb:
    """Creates a file when it is unpickled the trusting way."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def test_a_state_that_would_run_code_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / "state.pt", tmp_path / "trace"
    torch.save({"images": 1, "net": Bomb(trace)}, path)
    with pytest.raises(UserError, match="state.pt"):
        load_state(path)
    assert not trace.exists()
    path.write_bytes(pickle.dumps({"images": 1, "net": Bomb(trace)}, protocol=2))
    with pytest.raises(UserError, match="state.pt"):
        load_state(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # the trap was live
    assert trace.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-200]),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("no checkpoint"),
        lambda path: path.unlink(),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"weights": torch.zeros(2)}, path),
        lambda path: write_release(path),
    ],
    ids=["truncated", "head only", "empty", "text", "missing", "list", "foreign", "release"],
)
def test_what_is_no_training_state_is_refused(tmp_path, damage):
    path = tmp_path / "state.pt"
    save_state(path, STATE)
    damage(path)
    with pytest.raises(UserError, match="state.pt"):
        load_state(path)


# Releases and instances.


def test_tensors_and_header_round_trip(tmp_path):
    path = tmp_path / "r.safetensors"
    tensors = {
        "strided": torch.arange(24.0).reshape(2, 3, 2, 2).contiguous(
            memory_format=torch.channels_last
        ),
        "scalar": torch.tensor(3.5),
        "parameter": nn.Parameter(torch.ones(2)),
        "integers": torch.tensor([1, 2], dtype=torch.int64),
    }  # fmt: skip
    header = {"sizes": [1, 2], "text": "ä\n", "nested": {"x": None, "y": 0.5}}
    save_tensors(path, "release", tensors, header)
    loaded, found = load_tensors(path, "release")
    assert found == header
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype
        assert not loaded[name].requires_grad


def test_the_kind_is_told_without_reading_the_tensors(tmp_path):
    save_tensors(tmp_path / "a", "marker", {"w": torch.ones(2)}, {})
    assert kind_of(tmp_path / "a") == "marker"
    (tmp_path / "cut").write_bytes((tmp_path / "a").read_bytes()[:40])
    (tmp_path / "text").write_text("no such file")
    save_file({"w": torch.ones(2)}, tmp_path / "foreign")
    save_state(tmp_path / "state", {"images": 1})
    for name in ("cut", "text", "foreign", "state", "missing", "."):
        assert kind_of(tmp_path / name) is None


def test_the_same_content_gives_the_same_bytes(tmp_path):
    """So a training that is repeated leads to the same digest, which registries are bound to."""
    written = {write_release(tmp_path / "x", {"b": 1, "a": 2}).read_bytes() for _ in range(20)}
    assert len(written) == 1


def plant(path, metadata):
    save_file({"w": torch.zeros(3)}, path, metadata)


def damage_header(path, change):
    """Rewrite the file with the longest text of its metadata changed: that holds the header."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    longest = max(metadata, key=lambda name: len(metadata[name]))
    text = change(metadata.pop(longest))
    plant(path, metadata | ({} if text is None else {longest: text}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "no release"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder: give a release file"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "is a named pipe: give a release file"),
        (lambda path: path.write_bytes(b""), "truncated or foreign"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated or foreign"),
        (lambda path: path.write_bytes(path.read_bytes()[:20]), "truncated or foreign"),
        (lambda path: path.write_text("not a model"), "truncated or foreign"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" * 9), "truncated or foreign"),
        (lambda path: plant(path, None), "foreign"),
        (lambda path: plant(path, {"format": "pt"}), "foreign"),
        (lambda path: save_tensors(path, "instance", {"w": torch.zeros(3)}, {}), "instance"),
        (lambda path: damage_header(path, lambda text: text[:-1]), "release"),
        (lambda path: damage_header(path, lambda text: f"[{text}]"), "release"),
        (lambda path: damage_header(path, lambda text: None), "release"),
        (lambda path: save_state(path, STATE), "training checkpoint"),
    ],
    ids=[
        "missing", "folder", "pipe", "empty", "one byte short", "head only", "text", "picture",
        "no metadata", "other program", "other kind", "broken header", "header of another type",
        "no header", "training checkpoint",
    ],
)  # fmt: skip
def test_what_is_no_release_is_refused_in_one_sentence(tmp_path, damage, says):
    path = write_release(tmp_path / "r.safetensors", {"a header": list(range(50))})
    damage(path)
    with pytest.raises(UserError, match=says) as caught:
        load_tensors(path, "release")
    assert "r.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_holds_keys_or_makes_them_is_its_owners_alone(tmp_path):
    save_tensors(tmp_path / "instance", "instance", {"w": torch.zeros(3)}, {})
    for kind in ("release", "marker", "state"):
        path = tmp_path / kind
        for _ in range(2):  # kept over rewrites
            if kind == "state":
                save_state(path, STATE)
            else:
                save_tensors(path, kind, {"w": torch.zeros(3)}, {})
            assert path.stat().st_mode & 0o777 == 0o600
            path.chmod(0o644)
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "instance").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_a_training_checkpoint_is_a_file(tmp_path, make):
    make(tmp_path / "state.pt")
    with pytest.raises(UserError, match="give a training checkpoint file"):
        load_state(tmp_path / "state.pt")


def test_another_format_version_is_refused_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr("scalefp.release.container.FORMAT_VERSION", 999)
    path = write_release(tmp_path / "r.safetensors")
    monkeypatch.undo()
    with pytest.raises(UserError, match="999"):
        load_tensors(path, "release")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail_in_another_way(tmp_path_factory, body):
    folder = tmp_path_factory.mktemp("bytes")
    for whole in (body, struct.pack("<Q", len(body)) + body, struct.pack("<Q", 8) + body):
        (folder / "x").write_bytes(whole)
        for read in (lambda path: load_tensors(path, "release"), load_state):
            with pytest.raises(UserError):
                read(folder / "x")


# Strict loading.


def layer():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def test_strict_loading_copies_every_tensor_and_keeps_the_parameters():
    module, other = layer(), {k: torch.ones_like(v) for k, v in layer().state_dict().items()}
    parameters = list(module.parameters())
    load_strictly(module, other, "x")
    assert all(a is b for a, b in zip(parameters, module.parameters(), strict=True))
    assert all((parameter == 1).all() for parameter in parameters)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop("1.bias"), r"lacks 1 .*1\.bias"),
        (lambda tensors: tensors.clear(), r"lacks 4 .*0\.bias"),
        (lambda tensors: tensors.update(key=torch.ones(1)), "unknown 1 .*key"),
        (lambda tensors: tensors.update({"0.bias": torch.ones(3)}), r"misfits 1 .*0\.bias"),
        (lambda tensors: tensors.update({"0.weight": torch.ones(2, 3, 1)}), r"misfits 1 .*0\.we"),
    ],
    ids=["missing", "all missing", "unexpected", "other shape", "other rank"],
)
def test_strict_loading_names_what_does_not_fit_and_changes_nothing(change, says):
    module = layer()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    tensors = {name: torch.ones_like(tensor) for name, tensor in before.items()}
    change(tensors)
    with pytest.raises(UserError, match=f"file.x.*{says}"):
        load_strictly(module, tensors, "file.x")
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_half_precision_is_half_the_size_and_keeps_what_does_not_fit(tmp_path):
    draw = torch.Generator().manual_seed(0)
    tensors = {
        "weights": torch.randn(300, generator=draw),
        "large": torch.tensor([1.0, 1e5]),
        "tiny": torch.tensor([1e-6]),
    }
    save_tensors(tmp_path / "half", "instance", tensors, {}, half=True)
    stored, _ = load_tensors(tmp_path / "half", "instance")
    assert stored["weights"].dtype == stored["tiny"].dtype == torch.float16
    assert torch.equal(stored["large"], tensors["large"])  # 65,504 is the largest of half precision
    found = load_weights(tmp_path / "half", shapes_of(tensors))
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, tensors[name], rtol=2**-11, atol=2**-25)
