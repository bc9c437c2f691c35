"""The release in memory: files, digest, and one reading however the images are given."""

import dataclasses
import hashlib
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from scalefp.config import ModelConfig
from scalefp.data.images import fit, save_png, to_float, to_pil
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.networks.decoder import Decoder
from scalefp.networks.generator import Generator
from scalefp.release.container import load_tensors, save_state, save_tensors
from scalefp.release.model import read_release, save_release

CONFIG = ModelConfig(
    resolution=32,
    n_bits=24,
    latent_dim=6,
    channel_base=128,
    channel_max=8,
    embedding_width=12,
    decoder_resolution=16,
    decoder_base=128,
    decoder_max=8,
)
KEY = Key.from_hex("c0ffee")


@pytest.fixture(scope="module")
def networks():
    """With weights that half precision holds, as the file will have them."""
    torch.manual_seed(0)
    return Generator(CONFIG).half().float(), Decoder(CONFIG).half().float()


@pytest.fixture(scope="module")
def path(networks, tmp_path_factory):
    path = tmp_path_factory.mktemp("release") / "r.safetensors"
    save_release(path, CONFIG, *networks, training={"images": 640, "options": {"seed": 0}})
    return path


@pytest.fixture(scope="module")
def loaded(path):
    return read_release(path)


@pytest.fixture(scope="module")
def pixels():
    """Five pictures, uint8 [5, 3, 32, 32]."""
    draw = np.random.default_rng(0)
    return torch.from_numpy(draw.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8))


# Files.


def test_a_release_round_trips(loaded, networks):
    assert loaded.config == CONFIG
    assert loaded.training == {"images": 640, "options": {"seed": 0}}
    for saved, found in zip(networks, (loaded.generator, loaded.decoder), strict=True):
        assert saved.state_dict().keys() == found.state_dict().keys()
        for name, tensor in found.state_dict().items():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, saved.state_dict()[name]), name

        assert not found.training
        assert not any(parameter.requires_grad for parameter in found.parameters())


def test_a_release_is_kept_in_half_precision(path):
    assert {tensor.dtype for tensor in load_tensors(path, "release")[0].values()} == {torch.float16}


def test_loading_warns_of_nothing(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_release(path)


def test_a_loaded_release_generates_and_reads_as_the_networks_that_were_saved(
    loaded, networks, pixels
):
    generator, decoder = networks
    z = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    bits = torch.from_numpy(KEY.bits).expand(3, -1)
    with torch.no_grad():
        assert torch.equal(loaded.generator(z, bits), generator(z, bits))
        expected = decoder(to_float(pixels))[0].double().numpy()
    np.testing.assert_allclose(loaded.decode(pixels).logits, expected, atol=1e-5)


def test_the_digest_is_that_of_the_file_and_marks_every_reading(loaded, path, pixels):
    assert loaded.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.decode(pixels).model_digest == loaded.digest


def test_other_weights_give_another_digest(loaded, networks, tmp_path):
    generator, decoder = networks
    save_release(tmp_path / "r", CONFIG, Generator(CONFIG), decoder, training={})
    assert read_release(tmp_path / "r").digest != loaded.digest


def test_the_model_instantiates_itself(loaded):
    instance = loaded.instantiate(KEY)
    z = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    parent = loaded.generator(z, torch.from_numpy(KEY.bits).expand(2, -1))
    assert (instance(z) - parent).abs().max() <= 1e-5 * parent.abs().max()
    with pytest.raises(UserError, match="24"):
        loaded.instantiate(Key.random(128))


def test_many_instances_are_made_one_by_one(loaded):
    keys = [Key.random(24) for _ in range(3)]
    asked = []
    instances = loaded.instantiate_many(asked.append(key) or key for key in keys)
    assert asked == []
    z = torch.randn(1, 6, generator=torch.Generator().manual_seed(1))
    for key, instance in zip(keys, instances, strict=True):
        assert asked[-1] == key
        assert torch.equal(instance(z), loaded.instantiate(key)(z))
    assert asked == keys


# Decoding.


def test_files_pictures_and_tensors_of_the_same_pixels_read_alike(loaded, pixels, tmp_path):
    pictures = to_pil(pixels)
    files = []
    for i, picture in enumerate(pictures):
        save_png(tmp_path / f"{i}.png", picture)
        files.append(tmp_path / f"{i}.png")
    reading = loaded.decode(pixels)
    assert reading.logits.shape == (5, 24)
    for name, images in {
        "pictures": pictures,
        "files": files,
        "names": [str(file) for file in files],
        "mixed": [pictures[0], files[1], str(files[2]), *pictures[3:]],
        "tuple": tuple(files),
        "floats": to_float(pixels),
    }.items():
        assert np.array_equal(loaded.decode(images).logits, reading.logits), name


def test_one_image_alone_is_a_reading_of_one(loaded, pixels, tmp_path):
    picture = to_pil(pixels)[0]
    save_png(tmp_path / "0.png", picture)
    expected = loaded.decode(pixels[:1])
    for image in (picture, tmp_path / "0.png", str(tmp_path / "0.png")):
        reading = loaded.decode(image)
        assert len(reading) == 1
        assert np.array_equal(reading.logits, expected.logits)
    assert np.array_equal(loaded.decode(pixels)[2].bits, loaded.decode(pixels[2:3]).bits)


@pytest.mark.parametrize("as_files", [False, True])
def test_batch_size_does_not_matter_beyond_rounding(loaded, pixels, as_files):
    images = to_pil(pixels) if as_files else pixels
    expected = loaded.decode(images).logits
    scale = np.abs(expected).max()
    for batch_size in (1, 2, 5):
        logits = loaded.decode(images, batch_size=batch_size).logits
        assert np.abs(logits - expected).max() <= 1e-5 * scale


def test_pictures_of_any_size_are_cropped_and_resized_first(loaded):
    draw = np.random.default_rng(1)
    sizes = [(64, 64), (40, 90), (17, 33)]
    pictures = [Image.fromarray(draw.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    fitted = [fit(picture, 32) for picture in pictures]
    assert np.array_equal(loaded.decode(pictures).logits, loaded.decode(fitted).logits)


def test_reading_leaves_no_gradients_behind(loaded, pixels):
    images = to_float(pixels).requires_grad_()
    loaded.decode(images)
    assert images.grad is None


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([], "no image"),
        ((), "no image"),
        (torch.zeros(0, 3, 32, 32), "no image"),
        (torch.zeros(32, 32), r"\[b, 3, H, W\]"),
        (torch.zeros(2, 3, 16, 16), r"\[2, 3, 16, 16\]"),
        (torch.zeros(2, 1, 32, 32), r"\[2, 1, 32, 32\]"),
        (["no-such-file.png"], r"no-such-file\.png"),
        ("no-such-file.png", r"no-such-file\.png"),
    ],
    ids=[
        "empty list", "empty tuple", "empty tensor", "no channels", "other size", "grey",
        "missing in list", "missing",
    ],
)  # fmt: skip
def test_what_cannot_be_decoded_is_refused(loaded, images, says):
    with pytest.raises(UserError, match=says):
        loaded.decode(images)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_floats_of_another_width_are_read_all_the_same(loaded, pixels, dtype):
    expected = loaded.decode(pixels).logits
    logits = loaded.decode(to_float(pixels).to(dtype)).logits
    np.testing.assert_allclose(logits, expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_integers_that_are_not_8_bit_are_refused(loaded, dtype):
    with pytest.raises(UserError, match="uint8"):
        loaded.decode(torch.ones(2, 3, 32, 32, dtype=dtype))


def test_the_broken_file_among_many_is_named(loaded, pixels, tmp_path):
    for i, picture in enumerate(to_pil(pixels)):
        save_png(tmp_path / f"{i}.png", picture)
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])
    with pytest.raises(UserError, match=r"3\.png"):
        loaded.decode(sorted(tmp_path.iterdir()))


@pytest.mark.filterwarnings("ignore")  # of torch's exporter, about itself
def test_the_exported_decoder_reads_the_same(loaded, pixels, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    loaded.export_decoder(tmp_path / "d.onnx", format="onnx")
    session = onnxruntime.InferenceSession(
        str(tmp_path / "d.onnx"), providers=["CPUExecutionProvider"]
    )
    for count in (1, 5):
        images = to_float(pixels[:count])
        logits, latents = session.run(["logits", "latents"], {"images": images.numpy()})
        with torch.no_grad():
            expected = [tensor.numpy() for tensor in loaded.decoder(images)]
        np.testing.assert_allclose(logits, expected[0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(latents, expected[1], rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="onnx or pt2"):
        loaded.export_decoder(tmp_path / "d.pb", format="pb")


# Foreign and damaged releases.


def rewrite(path, change_tensors=None, change_header=None):
    """Write the release again with its tensors or header changed in place."""
    tensors, header = load_tensors(path, "release")
    for change, value in ((change_tensors, tensors), (change_header, header)):
        if change is not None:
            change(value)
    save_tensors(path, "release", tensors, header)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "no release file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), "truncated"),
        (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" * 50), "truncated or foreign"),
        (lambda path: read_release(path).instantiate(KEY).save(path), "instance"),
        (lambda path: save_state(path, {"images": 1}), "checkpoint.*release.safetensors"),
        (lambda path: rewrite(path, lambda t: t.pop("decoder.output.bias")), r"output\.bias"),
        (lambda path: rewrite(path, lambda t: t.pop("generator.input.weight")), r"input\.weight"),
        (lambda path: rewrite(path, lambda t: t.update({"generator.x": torch.ones(1)})), "x'"),
        (lambda path: rewrite(path, lambda t: t.update(stray=torch.ones(1))), "stray"),
        (
            lambda path: rewrite(path, lambda t: t.update({"decoder.stem.bias": torch.ones(1)})),
            r"stem\.bias",
        ),
        (lambda path: rewrite(path, None, lambda h: h.pop("model")), "header"),
        (lambda path: rewrite(path, None, lambda h: h.pop("training")), "header"),
        (lambda path: rewrite(path, None, lambda h: h["model"].update(x=1)), "header"),
        (lambda path: rewrite(path, None, lambda h: h["model"].update(n_bits="24")), "header"),
        (lambda path: rewrite(path, None, lambda h: h["model"].update(resolution=7)), "resolution"),
        (lambda path: rewrite(path, None, lambda h: h["model"].update(n_bits=25)), "misfits"),
    ],
    ids=[
        "missing", "truncated", "picture", "instance", "training checkpoint", "decoder lacks",
        "generator lacks", "unknown tensor", "stray tensor", "other shape", "no sizes",
        "no training", "unknown size", "size of another type", "impossible size", "other size",
    ],
)  # fmt: skip
def test_what_is_no_release_is_refused(path, tmp_path, damage, says):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(path.read_bytes())
    damage(copy)
    with pytest.raises(UserError, match=says):
        read_release(copy)


def test_a_release_holds_both_networks_and_their_sizes_alone(path, networks):
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
    generator, decoder = networks
    assert names == {f"generator.{n}" for n in generator.state_dict()} | {
        f"decoder.{n}" for n in decoder.state_dict()
    }
    assert load_tensors(path, "release")[1]["model"] == dataclasses.asdict(CONFIG)
