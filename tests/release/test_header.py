"""Headers that lie: one sentence in no time, whatever a release, marker or instance file says."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from scalefp.config import ModelConfig
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.loading import load
from scalefp.options import absent_values
from scalefp.release.container import FORMAT_VERSION, METADATA, load_tensors
from scalefp.release.instance import load_instance
from scalefp.release.model import Model

READERS = {"release": load, "marker": load, "instance": load_instance}
KINDS = tuple(READERS)
NESTED = "[" * 200_000 + "]" * 200_000


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory, release: Path, marker_file: Path, model: Model
) -> dict[str, Path]:
    """A whole file of each kind."""
    instance = tmp_path_factory.mktemp("whole") / "instance.safetensors"
    model.instantiate(Key.random()).save(instance)
    return {"release": release, "marker": marker_file, "instance": instance}


def refusal(read: Any, path: Path) -> str:
    """The sentence in which a file is refused, in under a second."""
    start = time.process_time()  # of a machine that is busy otherwise too
    with pytest.raises(UserError) as caught:
        read(path)
    assert time.process_time() - start < 1
    sentence = str(caught.value)
    assert path.name in sentence and "\n" not in sentence and len(sentence) < 500
    return sentence


def write(path: Path, tensors: dict[str, torch.Tensor], about: Any) -> None:
    """A file whose metadata says ``about``: text, or what JSON makes of it (NaN too)."""
    text = about if isinstance(about, str) else json.dumps(about)
    save_file(tensors, path, {METADATA: text})


def sizes_in(kind: str, header: dict[str, Any]) -> dict[str, Any]:
    sizes: dict[str, Any] = header if kind == "instance" else header["model"]
    return sizes


# Values that are no whole number in the range of any size.
WRONG = [
    None, True, "64", "", [], [64], {}, {"a": 1}, 64.0, 0.5, -1, 0, 63, 10**9, 10**18, 10**400,
    -(10**9), float("nan"), float("inf"), "9" * 10_000, [[[]]], "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", ["resolution", "latent_dim", "n_bits", "decoder_resolution"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_size_that_is_none_is_refused(files, tmp_path, kind, name):
    tensors, header = load_tensors(files[kind], kind)
    if name not in sizes_in(kind, header):
        name = "resolution"
    for value in WRONG:
        if (kind, name, value) == ("marker", "resolution", 63):  # markers have any from 32 to 512
            continue
        about = {"kind": kind, "version": FORMAT_VERSION, "header": json.loads(json.dumps(header))}
        sizes_in(kind, about["header"])[name] = value
        write(tmp_path / "f.safetensors", tensors, about)
        refusal(READERS[kind], tmp_path / "f.safetensors")


LISTS = [
    None, 8, "8", {}, [8.0], ["8"], [True], [None], [8] * 17, [8] * 10**6, [10**9] * 3, [0] * 3,
    [-1], [[8]], [float("nan")],
]  # fmt: skip


@pytest.mark.parametrize("name", ["channels", "maps"])
@pytest.mark.parametrize("value", LISTS, ids=lambda value: f"{value!r:.20}")
def test_a_list_of_sizes_that_is_none_is_refused(files, tmp_path, name, value):
    tensors, header = load_tensors(files["instance"], "instance")
    about = {"kind": "instance", "version": FORMAT_VERSION, "header": {**header, name: value}}
    write(tmp_path / "f.safetensors", tensors, about)
    refusal(load_instance, tmp_path / "f.safetensors")


def test_maps_are_resolutions_of_the_picture_once_and_in_order(files, tmp_path):
    tensors, header = load_tensors(files["instance"], "instance")
    for maps in ([32], [16, 8], [8, 8], [3], [512]):
        about = {"kind": "instance", "version": FORMAT_VERSION, "header": {**header, "maps": maps}}
        write(tmp_path / "f.safetensors", tensors, about)
        assert "maps" in refusal(load_instance, tmp_path / "f.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_lacks_nothing_and_has_nothing_else(files, tmp_path, kind):
    tensors, header = load_tensors(files[kind], kind)
    for name in sizes_in(kind, header).keys() - absent_values(ModelConfig).keys():
        changed = json.loads(json.dumps(header))
        del sizes_in(kind, changed)[name]
        about = {"kind": kind, "version": FORMAT_VERSION, "header": changed}
        write(tmp_path / "f.safetensors", tensors, about)
        assert f"lacks '{name}'" in refusal(READERS[kind], tmp_path / "f.safetensors")
    sizes_in(kind, changed).update(header if kind == "instance" else header["model"], other=3)
    write(tmp_path / "f.safetensors", tensors, about)
    assert "has 'other'" in refusal(READERS[kind], tmp_path / "f.safetensors")


def test_a_release_of_an_earlier_version_means_what_it_meant(files, tmp_path):
    tensors, header = load_tensors(files["release"], "release")
    for name in ("key_from", "key_to"):
        del header["model"][name]
    about = {"kind": "release", "version": FORMAT_VERSION, "header": header}
    write(tmp_path / "f.safetensors", tensors, about)
    earlier, now, key = load(tmp_path / "f.safetensors"), load(files["release"]), Key.random()
    assert (earlier.config.key_from, earlier.config.key_to) == (4, 256)
    before, after = (model.instantiate(key).sample(2) for model in (earlier, now))
    assert torch.equal(before, after)


ABOUTS = {
    "empty": "",
    "number": "3",
    "list": "[]",
    "nested": NESTED,
    "nested header": f'{{"kind": "KIND", "version": 1, "header": {NESTED}}}',
    "no header": '{"kind": "KIND", "version": 1}',
    "header of text": '{"kind": "KIND", "version": 1, "header": "sizes"}',
    "no sizes": '{"kind": "KIND", "version": 1, "header": {"training": {}}}',
    "sizes of another type": '{"kind": "KIND", "version": 1, "header": {"model": [1]}}',
    "note of another type": '{"kind": "KIND", "version": 1, "header": {"training": 3}}',
    "version of text": '{"kind": "KIND", "version": "1", "header": {}}',
    "huge version": '{"kind": "KIND", "version": ' + "9" * 4000 + ', "header": {}}',
    "kind of another type": '{"kind": ["KIND"], "version": 1, "header": {}}',
    "long kind": '{"kind": "' + "x" * 10**6 + '", "version": 1, "header": {}}',
    "huge": '{"kind": "KIND", "version": 1, "header": "' + "x" * 5 * 2**20 + '"}',
    "not a number": '{"kind": "KIND", "version": 1, "header": NaN}',
}


@pytest.mark.parametrize("about", ABOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_header_of_another_form_is_refused(files, tmp_path, kind, about):
    write(tmp_path / "f.safetensors", load_file(files[kind]), ABOUTS[about].replace("KIND", kind))
    refusal(READERS[kind], tmp_path / "f.safetensors")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(max_examples=60)
@given(data=st.data())
def test_no_change_of_one_size_reaches_the_networks(files, tmp_path_factory, data):
    """Whatever stands in the place of one size: refused, or it was the same number."""
    kind = data.draw(st.sampled_from(KINDS))
    tensors, header = load_tensors(files[kind], kind)
    sizes = sizes_in(kind, header)
    name = data.draw(st.sampled_from(sorted(sizes)))
    was, sizes[name] = sizes[name], data.draw(JSON)
    path = tmp_path_factory.mktemp("fuzz") / "f.safetensors"
    write(path, tensors, {"kind": kind, "version": FORMAT_VERSION, "header": header})
    # Initial strength, place and learning rate of what is trained, and the mark's strength: any in
    # range.
    free = {"key_gain", "key_from", "key_to", "mapping_lr_multiplier", "psnr"}
    if sizes[name] != was and name not in free | {"decoder_base", "decoder_max", "channel_base"}:
        refusal(READERS[kind], path)


# Tensors.


def rewritten(source: Path, path: Path, kind: str, change: Any) -> Path:
    """The file of a kind with its tensors changed in place by ``change(tensors)``."""
    tensors, header = load_tensors(source, kind)
    change(tensors)
    write(path, tensors, {"kind": kind, "version": FORMAT_VERSION, "header": header})
    return path


def first(tensors: dict[str, torch.Tensor]) -> str:
    return min(tensors)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_are_finite(files, tmp_path, kind, value):
    def plant(tensors: dict[str, torch.Tensor]) -> None:
        tensors[first(tensors)].view(-1)[-1] = value

    path = rewritten(files[kind], tmp_path / "f.safetensors", kind, plant)
    assert "not finite" in refusal(READERS[kind], path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.int32, torch.uint8, torch.bool, torch.float8_e4m3fn]
)
def test_weights_of_other_types_are_refused_by_name(files, tmp_path, kind, dtype):
    def convert(tensors: dict[str, torch.Tensor]) -> None:
        tensors[first(tensors)] = tensors[first(tensors)].to(dtype)

    path = rewritten(files[kind], tmp_path / "f.safetensors", kind, convert)
    assert "convert them to one of F32, F16, BF16" in refusal(READERS[kind], path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_and_computed_with_in_single(files, tmp_path, kind, dtype):
    def convert(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})

    path = rewritten(files[kind], tmp_path / "f.safetensors", kind, convert)
    read: Any = READERS[kind](path)
    networks = [read] if kind == "instance" else [read.decoder]
    stored = load_file(path)
    for network in networks:
        for name, weight in network.state_dict().items():
            assert weight.dtype == torch.float32
            prefix = "" if kind == "instance" else "decoder."
            assert torch.equal(weight, stored[prefix + name].float())
    if kind == "instance":
        assert torch.isfinite(read.sample(2)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_that_disagrees_with_the_tensors_is_refused(files, tmp_path, kind):
    def reshape(tensors: dict[str, torch.Tensor]) -> None:
        tensors[first(tensors)] = tensors[first(tensors)][None]

    path = rewritten(files[kind], tmp_path / "f.safetensors", kind, reshape)
    assert "misfits 1 tensors" in refusal(READERS[kind], path)


def test_loading_draws_nothing_from_the_global_randomness(files):
    for kind, read in READERS.items():
        torch.manual_seed(5)
        read(files[kind])
        assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(5)), kind
