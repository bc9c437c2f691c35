"""Instances: equal to the parent under their key, plain, and without a trace of the key."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import scalefp
from scalefp.config import ModelConfig
from scalefp.data.images import to_uint8
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.networks.generator import Generator
from scalefp.release.container import save_tensors
from scalefp.release.folding import Folding
from scalefp.release.instance import Instance, instantiate, load_instance, tensor_shapes

KEY = Key.from_hex("5ca1ab1e0ddba11f00d5c0ffee15900d")


def build(resolution=16, **options):
    """A generator none of whose parameters is trivial, as after training."""
    sizes = dict(n_bits=128, latent_dim=6, channel_base=4 * resolution, channel_max=8)
    config = ModelConfig(
        resolution=resolution, **{"embedding_width": 12, "key_gain": 1.0, **sizes, **options}
    )
    torch.manual_seed(0)
    generator = Generator(config)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if not name.endswith(".weight"):
                parameter += 0.3 * torch.randn_like(parameter)
    return generator


@pytest.fixture(scope="module")
def generator():
    return build()


@pytest.fixture(scope="module")
def instance(generator):
    return instantiate(generator, KEY)


def latents(config, batch=3):
    return torch.randn(batch, config.latent_dim, generator=torch.Generator().manual_seed(1))


def bits_of(key, batch=3):
    return torch.from_numpy(key.bits)[None].expand(batch, -1)


# Equality with the parent.

# Keys at all layers, at low and at high resolutions alone; the last without maps at 16.
KEYED = [{}, {"key_to": 8}, {"key_from": 16}, {"key_from": 8, "key_to": 8}]


@pytest.mark.parametrize("keyed", KEYED)
def test_an_instance_equals_its_parent_wherever_keys_go(keyed, tmp_path):
    parent = build(32, **keyed)
    instance = instantiate(parent, KEY)
    instance.save(tmp_path / "instance.safetensors")
    z, reloaded = latents(parent.config), load_instance(tmp_path / "instance.safetensors")
    with torch.no_grad():
        expected = parent(z, bits_of(KEY))
        scale = expected.abs().max()
        for one in (instance, reloaded, Folding(parent)(KEY)):
            assert (one(z) - expected).abs().max() <= 1e-5 * scale
        other = instantiate(parent, Key.from_bits(1 - KEY.bits))(z)
    assert (other - expected).abs().max() > 1e-2 * scale


@pytest.mark.parametrize("mapping_layers", [0, 8])
@pytest.mark.parametrize("key_maps", [True, False])
@pytest.mark.parametrize("resolution", [16, 32, 64, 128, 256])
def test_an_instance_equals_its_parent_under_its_key(resolution, key_maps, mapping_layers):
    parent = build(resolution, key_maps=key_maps, mapping_layers=mapping_layers)
    z = latents(parent.config)
    with torch.no_grad():
        expected = parent(z, bits_of(KEY))
        got = instantiate(parent, KEY)(z)
        other = instantiate(parent, Key.from_bits(1 - KEY.bits))(z)
    assert got.shape == (3, 3, resolution, resolution)
    scale = expected.abs().max()
    assert (got - expected).abs().max() <= 1e-5 * scale
    assert (other - expected).abs().max() > 1e-2 * scale


def test_every_single_bit_of_the_key_counts(generator, instance):
    z = latents(generator.config)
    images = instance(z)
    for i in (0, 1, 63, 127):
        bits = KEY.bits
        bits[i] = 1 - bits[i]
        assert (instantiate(generator, Key.from_bits(bits))(z) - images).abs().max() > 1e-4, i


@pytest.mark.parametrize("n_bits", [8, 13, 512])
def test_keys_of_every_length(n_bits):
    parent, key = build(n_bits=n_bits), Key.random(n_bits)
    z = latents(parent.config)
    torch.testing.assert_close(
        instantiate(parent, key)(z), parent(z, bits_of(key)).detach(), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("n_bits", [8, 127, 136])
def test_a_key_of_another_length_is_refused(generator, n_bits):
    with pytest.raises(UserError, match=f"{n_bits} bits.*128"):
        instantiate(generator, Key.random(n_bits))


# A plain network that stands alone.


def test_an_instance_is_frozen_and_differentiable_in_its_input_only(instance):
    assert not instance.training
    assert not any(parameter.requires_grad for parameter in instance.parameters())
    z = latents(instance.config).requires_grad_()
    instance(z).sum().backward()
    assert z.grad is not None and z.grad.abs().max() > 0


def test_instance_and_parent_share_no_memory():
    parent = build(key_maps=False)
    before = {name: p.detach().clone() for name, p in parent.named_parameters()}
    child = instantiate(parent, KEY)
    assert all(parameter.requires_grad for parameter in parent.parameters())
    with torch.no_grad():
        for parameter in child.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], p) for name, p in parent.named_parameters())


def test_nothing_but_weights_biases_and_offsets_is_in_it(instance):
    assert list(instance.modules()) == [instance]
    names = instance.state_dict().keys()
    assert names == tensor_shapes(instance.config).keys()
    layer = r"(input|block\d+_(before|conv|to_rgb))"
    assert all(re.fullmatch(rf"{layer}_(weight|bias|offset)", name) for name in names)
    assert not [n for n in names if re.search("embed|affine|key|bits|scale|modul|mapping", n)]


def test_an_instance_is_smaller_than_its_parent(generator, instance):
    sizes = [sum(p.numel() for p in module.parameters()) for module in (instance, generator)]
    assert sizes[0] < sizes[1]


# Sampling.


def test_samples_follow_from_the_seed(instance):
    images = instance.sample(5, seed=3)
    assert images.shape == (5, 3, 16, 16)
    assert images.min() >= -1 and images.max() <= 1
    assert torch.equal(instance.sample(5, seed=3), images)
    assert not torch.allclose(instance.sample(5, seed=4), images, atol=1e-2)
    assert not torch.allclose(images[0], images[1], atol=1e-2)


@pytest.mark.parametrize("latent_dim", [6, 16, 33])  # torch fills short and long rows differently
def test_the_ith_sample_depends_neither_on_the_number_nor_on_the_batch(latent_dim):
    child = instantiate(build(latent_dim=latent_dim), KEY)
    images = child.sample(7, seed=1)
    for n, batch_size in ((7, 1), (7, 3), (7, 100), (4, 32), (1, 1)):
        some = child.sample(n, seed=1, batch_size=batch_size)
        torch.testing.assert_close(some, images[:n], rtol=0, atol=1e-5)


def test_sampling_is_clamped_and_leaves_the_global_randomness_alone(instance):
    loud = instantiate(build(), KEY)
    with torch.no_grad():
        for name, parameter in loud.named_parameters():
            if name.endswith("to_rgb_weight"):
                parameter.mul_(100)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    images = loud.sample(2)
    assert torch.equal(torch.rand(3), expected)
    assert images.abs().max() == 1


def test_a_stream_is_the_samples_in_batches_made_when_they_are_asked_for(instance, monkeypatch):
    batches = instance.stream(7, seed=1, batch_size=3)
    assert torch.equal(torch.cat(list(batches)), instance.sample(7, seed=1, batch_size=3))
    made = []
    forward = Instance.forward
    monkeypatch.setattr(
        Instance, "forward", lambda self, z: made.append(len(z)) or forward(self, z)
    )
    batches = instance.stream(10**9, batch_size=3)
    assert made == []
    assert [len(next(batches)), len(next(batches))] == [3, 3]
    assert made == [3, 3]


def test_no_sample_is_an_empty_tensor(instance):
    assert instance.sample(0).shape == (0, 3, 16, 16)


# Files.


def test_save_and_load_round_trip(instance, tmp_path):
    instance.save(tmp_path / "a.safetensors")
    loaded = load_instance(tmp_path / "a.safetensors")
    assert loaded.config == instance.config
    assert torch.equal(loaded.sample(3), instance.sample(3))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    loaded.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def traces(key):
    """Every way in which a key could lie in a file by accident, as bytes."""
    found = {
        "packed": key.bytes,
        "hex": str(key).encode(),
        "HEX": str(key).upper().encode(),
        "digits": "".join(map(str, key.bits)).encode(),
        "list": json.dumps(key.bits.tolist()).encode(),
    }
    for name, values in {"01": key.bits.astype(int), "+-1": key.bits.astype(int) * 2 - 1}.items():
        for kind in ("int8", "int32", "int64", "float16", "float32", "float64"):
            found[f"{name} as {kind}"] = values.astype(kind).tobytes()
        high = values.astype(np.float32).view(np.uint32) >> 16
        found[f"{name} as bfloat16"] = high.astype(np.uint16).tobytes()
    found |= {f"{name}, reversed": body[::-1] for name, body in list(found.items())}
    return found


@pytest.mark.parametrize("mapping_layers", [0, 8])
def test_a_saved_instance_holds_no_trace_of_the_key(tmp_path, mapping_layers):
    path = tmp_path / "a.safetensors"
    instantiate(build(mapping_layers=mapping_layers), KEY).save(path)
    body = path.read_bytes()
    assert len(body) > 10_000
    for name, trace in traces(KEY).items():
        assert trace not in body, name
    with safe_open(path, framework="pt") as file:
        names, metadata = list(file.keys()), file.metadata()
        embedding = build(mapping_layers=mapping_layers).embedding(bits_of(KEY, 1))[0].detach()
        for name in names:
            tensor = file.get_tensor(name)
            assert tensor.shape != embedding.shape or not torch.allclose(tensor, embedding)
    assert set(names) == set(instantiate(build(), KEY).state_dict())
    words = set(re.findall(r"[a-z_]+", " ".join([*metadata, *metadata.values()])))
    secrets = {"key", "bits", "n_bits", "embedding", "digest", "holder", "seed", "training"}
    assert not words & secrets


def test_the_search_for_traces_would_find_them(tmp_path):
    for name, trace in traces(KEY).items():
        assert trace in b"weights" + trace + b"weights", name
    hidden = torch.from_numpy(KEY.bits.astype(np.float32) * 2 - 1)
    save_tensors(tmp_path / "x", "instance", {"w": torch.cat([torch.randn(9), hidden])}, {})
    assert traces(KEY)["+-1 as float32"] in (tmp_path / "x").read_bytes()


def plant(path, header):
    save_tensors(path, "instance", {"w": torch.zeros(2)}, header)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, sizes: path.unlink(),
        lambda path, sizes: path.write_bytes(path.read_bytes()[:-100]),
        lambda path, sizes: path.write_bytes(path.read_bytes()[:50]),
        lambda path, sizes: path.write_bytes(b"\x89PNG\r\n\x1a\n" * 20),
        lambda path, sizes: save_tensors(path, "release", {"w": torch.zeros(2)}, sizes),
        lambda path, sizes: plant(path, {}),
        lambda path, sizes: plant(path, [1, 2]),
        lambda path, sizes: plant(path, sizes),
        lambda path, sizes: plant(path, {**sizes, "channels": []}),
        lambda path, sizes: plant(path, {**sizes, "channels": ["a", "b"]}),
        lambda path, sizes: plant(path, {**sizes, "latent_dim": -1}),
        lambda path, sizes: plant(path, {**sizes, "key": "00"}),
    ],
    ids=[
        "missing", "truncated", "head only", "picture", "release", "no header", "list as header",
        "other tensors", "no channels", "words as channels", "negative", "unknown size",
    ],
)  # fmt: skip
def test_what_is_no_instance_is_refused(instance, tmp_path, damage):
    path = tmp_path / "a.safetensors"
    instance.save(path)
    damage(path, dataclasses.asdict(instance.config))
    with pytest.raises(UserError, match=r"a\.safetensors"):
        load_instance(path)


def test_an_instance_cannot_be_saved_into_a_missing_folder(instance, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        instance.save(tmp_path / "nowhere" / "a.safetensors")


# Exports.


@pytest.fixture(scope="module")
def exported():
    """With maps at 4, 8 and 16, and without at 32."""
    return instantiate(build(32, decoder_resolution=16), KEY)


def assert_equal_images(got, expected):
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_pt2_export_equals_the_instance(exported, tmp_path):
    exported.export(tmp_path / "a.pt2", format="pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt2"]
    program = torch.export.load(tmp_path / "a.pt2").module()
    for batch in (1, 2, 5):
        z = latents(exported.config, batch)
        assert_equal_images(program(z), exported(z))


@pytest.mark.filterwarnings("ignore")  # of torch's exporter, about itself
def test_onnx_export_equals_the_instance(exported, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    exported.export(tmp_path / "a.onnx", format="onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]  # one file, weights inside
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(tmp_path / "a.onnx"), options, providers=["CPUExecutionProvider"]
    )
    assert [port.name for port in session.get_inputs()] == ["z"]
    assert [port.name for port in session.get_outputs()] == ["images"]
    for batch in (1, 2, 5):
        z = latents(exported.config, batch)
        (images,) = session.run(None, {"z": z.numpy()})
        assert_equal_images(torch.from_numpy(images), exported(z))
    body = (tmp_path / "a.onnx").read_bytes()
    for name, trace in traces(KEY).items():
        assert trace not in body, name


def said_in(path):
    """What an exported file says of itself."""
    if path.suffix == ".pt2":
        extra = {"scalefp.json": ""}
        torch.export.load(path, extra_files=extra)
        return json.loads(extra["scalefp.json"])
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return json.loads(session.get_modelmeta().custom_metadata_map["scalefp"])


def outputs_of(path, z):
    if path.suffix == ".pt2":
        return torch.export.load(path).module()(z)
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"z": z.numpy()})[0])


@pytest.mark.filterwarnings("ignore")  # of torch's exporter, about itself
@pytest.mark.parametrize("uint8", [False, True])
@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_exports_speak_for_themselves_and_hold_no_key_and_no_path(tmp_path, format, uint8):
    if format == "onnx":
        pytest.importorskip("onnxscript")
    instance = instantiate(build(), KEY)
    instance.release_digest = "d1" * 32
    path = tmp_path / f"a.{format}"
    instance.export(path, format=format, uint8=uint8)
    about = said_in(path)
    assert about["kind"] == "instance" and about["release_digest"] == "d1" * 32
    assert about["input"] == {
        "name": "z", "shape": ["batch", 6], "type": "float32", "distribution": "standard normal"
    }  # fmt: skip
    form = {"type": "uint8", "range": [0, 255], "clamp": False}
    if not uint8:
        form = {"type": "float32", "range": [-1, 1], "clamp": True}
    assert about["output"] == {
        "name": "images", "shape": ["batch", 3, 16, 16], "colours": "RGB", **form
    }  # fmt: skip
    images, z = outputs_of(path, latents(instance.config)), latents(instance.config)
    assert str(images.dtype) == f"torch.{form['type']}" and list(images.shape) == [3, 3, 16, 16]
    if uint8:
        assert (images.int() - to_uint8(instance(z)).int()).abs().max() <= 1
    body = path.read_bytes()
    for name, trace in traces(KEY).items():
        assert trace not in body, name
    for folder in {str(Path(scalefp.__file__).parent), str(Path.home()), str(tmp_path)}:
        assert folder.encode() not in body, folder


@pytest.mark.parametrize(
    "z",
    [torch.zeros(6), torch.zeros(2, 7), torch.zeros(2, 6, 1), torch.zeros(2, 6).double(),
     torch.zeros(2, 6, dtype=torch.int64)],
)  # fmt: skip
def test_latents_of_another_form_are_refused_in_a_sentence(instance, z):
    with pytest.raises(UserError, match=r"shape \[b, 6\] and type torch.float32, not"):
        instance(z)


def test_exports_refuse_other_formats_and_missing_folders(instance, tmp_path):
    with pytest.raises(UserError, match="onnx or pt2"):
        instance.export(tmp_path / "a.pb", format="pb")
    with pytest.raises(UserError, match="nowhere"):
        instance.export(tmp_path / "nowhere" / "a.pt2", format="pt2")
    assert list(tmp_path.iterdir()) == []


def test_onnx_without_its_packages_says_what_to_install(instance, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # importing it now fails
    with pytest.raises(UserError, match=r"scalefp\[onnx\]"):
        instance.export(tmp_path / "a.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_instance_is_an_ordinary_module(instance):
    assert isinstance(instance, Instance) and isinstance(instance, torch.nn.Module)
