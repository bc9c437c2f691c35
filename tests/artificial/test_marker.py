"""The marker in memory: its file, how strongly it marks, and that it reads what it wrote."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from safetensors import safe_open

from scalefp.artificial.marker import STRONGEST, WEAKEST, Marker, read_marker, save_marker
from scalefp.data.images import to_float, to_pil
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.metrics import bit_accuracy, psnr
from scalefp.release.container import load_tensors, save_tensors

# Grey and quiet, so that nothing is clipped at these strengths.
GREY = torch.randint(96, 160, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture
def bits():
    """Bits of five keys of the tiny marker, int64 [5, 128]."""
    return torch.randint(0, 2, (5, 128), generator=torch.Generator().manual_seed(1))


# Files.


def test_a_marker_round_trips(pen, tmp_path):
    path = tmp_path / "copy.safetensors"
    save_marker(path, pen.config, pen.encoder, pen.decoder, training={"images": 640})
    loaded = read_marker(path)
    assert type(loaded) is Marker
    assert loaded.config == pen.config
    assert loaded.training == {"images": 640}
    assert loaded.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    for name in ("encoder", "decoder"):
        saved, found = getattr(pen, name).state_dict(), getattr(loaded, name).state_dict()
        assert saved.keys() == found.keys()
        assert all(torch.equal(saved[key], found[key]) for key in saved)
        assert not getattr(loaded, name).training
        assert not any(p.requires_grad for p in getattr(loaded, name).parameters())


def test_a_marker_holds_both_networks_and_their_sizes_alone(marker, marker_file):
    with safe_open(marker_file, framework="pt") as file:
        names = set(file.keys())
    assert names == {f"encoder.{n}" for n in marker.encoder.state_dict()} | {
        f"decoder.{n}" for n in marker.decoder.state_dict()
    }
    assert load_tensors(marker_file, "marker")[1]["model"] == dataclasses.asdict(marker.config)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda t, h: t.pop("encoder.stem.bias"), r"stem\.bias"),
        (lambda t, h: t.pop("decoder.output.bias"), r"output\.bias"),
        (lambda t, h: t.update(stray=torch.ones(1)), "stray"),
        (lambda t, h: h.pop("model"), "header"),
        (lambda t, h: h.pop("training"), "header"),
        (lambda t, h: h["model"].update(x=1), "header"),
        (lambda t, h: h["model"].update(n_bits="128"), "header"),
        (lambda t, h: h["model"].update(resolution=7), "resolution"),
        (lambda t, h: h["model"].update(n_bits=120), "misfits"),
    ],
    ids=[
        "encoder lacks", "decoder lacks", "stray tensor", "no sizes", "no training",
        "unknown size", "size of another type", "impossible size", "other size",
    ],
)  # fmt: skip
def test_a_damaged_marker_is_refused(marker_file, tmp_path, damage, says):
    tensors, header = load_tensors(marker_file, "marker")
    damage(tensors, header)
    save_tensors(tmp_path / "m", "marker", tensors, header)
    with pytest.raises(UserError, match=says):
        read_marker(tmp_path / "m")


# Marking.


@pytest.mark.parametrize(("strength", "wanted"), [(None, 38.0), (45.0, 45.0), (30.0, 30.0)])
def test_every_image_is_marked_at_the_strength_that_was_asked_for(marker, bits, strength, wanted):
    marked = marker.mark(GREY, bits, psnr=strength)
    assert (marked.dtype, marked.shape) == (torch.uint8, GREY.shape)
    # Rounding to 8 bits adds 1/12 of a level squared.
    error = 255**2 * 10 ** (-wanted / 10) + 1 / 12
    expected = 10 * np.log10(255**2 / error)
    np.testing.assert_allclose(psnr(to_float(marked), to_float(GREY)), expected, atol=0.15)


def test_pixels_may_be_bytes_or_floats_and_a_key_one_or_many(marker, bits):
    one = bits[0]
    expected = marker.mark(GREY, one.expand(5, -1))
    assert torch.equal(marker.mark(GREY, one), expected)
    assert torch.equal(marker.mark(to_float(GREY), one), expected)
    assert torch.equal(marker.mark(GREY, one.to(torch.uint8)), expected)
    assert torch.equal(marker.mark(GREY, one.numpy()), expected)
    assert torch.equal(marker.mark(to_pil(GREY), Key.from_bits(one)), expected)
    assert torch.equal(marker.mark(list(GREY.permute(0, 2, 3, 1).numpy()), one), expected)
    apart = [marker.mark(GREY[i : i + 1], bits[i : i + 1])[0] for i in range(5)]
    # A convolution of another batch may round in another order.
    together = marker.mark(GREY, bits)
    assert (together.int() - torch.stack(apart).int()).abs().max() <= 1
    assert not torch.equal(together[1], expected[1])


def test_more_images_than_a_batch_are_all_marked(marker, bits):
    many = GREY.repeat(8, 1, 1, 1)
    marked = marker.mark(many, bits[0])
    assert marked.shape == many.shape
    assert torch.equal(marked[:5], marked[35:])


def test_marking_leaves_no_gradients_and_the_images_as_they_were(marker, bits):
    images = to_float(GREY).requires_grad_()
    before = images.detach().clone()
    marker.mark(images, bits)
    assert images.grad is None
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("images", "n_bits", "says"),
    [
        (GREY[:, :, :16, :16], (5, 128), r"\[b, 3, 32, 32\]"),
        (GREY[0, 0], (128,), r"\[b, 3, H, W\]"),
        (GREY.float(), (128,), "from 0 to 255"),
        (GREY / 255, (128,), r"looks like \[0, 1\]"),
        (GREY.long(), (5, 128), "uint8"),
        (GREY, (5, 120), r"\[128\] or \[5, 128\]"),
        (GREY, (4, 128), r"\[128\] or \[5, 128\]"),
        (GREY, (1, 128), r"\[128\] or \[5, 128\]"),
    ],
    ids=[
        "size",
        "no channels",
        "0 to 255",
        "0 to 1",
        "integers",
        "length",
        "fewer keys",
        "one row",
    ],
)
def test_what_cannot_be_marked_is_refused(marker, images, n_bits, says):
    with pytest.raises(UserError, match=says):
        marker.mark(images, torch.zeros(n_bits, dtype=torch.uint8))


def test_a_key_is_bits_of_the_markers_length(marker):
    with pytest.raises(UserError, match="32 bits, and this release takes 128"):
        marker.mark(GREY, Key.from_hex("c0ffee11"))
    with pytest.raises(UserError, match="0 and 1"):
        marker.mark(GREY, 2 * torch.ones(128))


@pytest.mark.parametrize("strength", [STRONGEST - 0.1, WEAKEST + 0.1, -38.0, float("nan")])
def test_impossible_strengths_are_refused(marker, bits, strength):
    with pytest.raises(UserError, match="15 to 55 dB.*trained at 38"):
        marker.mark(GREY, bits, psnr=strength)


@pytest.mark.parametrize("written", [None, 0.0, 0])  # 0 by versions before 0.2
def test_a_marker_without_a_strength_takes_none(marker, marker_file, bits, tmp_path, written):
    tensors, header = load_tensors(marker_file, "marker")
    header["model"]["psnr"] = written
    save_tensors(tmp_path / "m", "marker", tensors, header)
    loose = read_marker(tmp_path / "m")
    assert loose.config == dataclasses.replace(marker.config, psnr=None)
    assert loose.mark(GREY, bits).shape == GREY.shape
    with pytest.raises(UserError, match="leave psnr out"):
        loose.mark(GREY, bits, psnr=38)


# Reading.


def test_what_is_marked_reads_as_its_keys(pen, pictures):
    draw = torch.Generator().manual_seed(3)
    bits = torch.randint(0, 2, (12, 32), generator=draw)
    reading = pen.decode(pen.mark(pictures[:12], bits), search=False)
    assert bit_accuracy(reading.logits, bits.numpy()).mean() > 0.95
    assert reading.model_digest == pen.digest


def test_many_images_of_one_key_read_as_that_key(pen, pictures):
    key = Key.from_hex("c0ffee11")
    marked = pen.mark(pictures[:20], torch.from_numpy(key.bits))
    assert pen.decode(marked, search=False).key == key
    clean = pen.decode(pictures[:20], search=False)
    assert 0.2 < bit_accuracy(clean.logits, key.bits).mean() < 0.8
