"""Images in whatever form people have them give the same pixels; what looks wrong is refused."""

import numpy as np
import pytest
import torch

from scalefp.data.images import save_png, to_float, to_pil
from scalefp.errors import UserError
from scalefp.release.inputs import Pictures

SIDE = 12
PIXELS = torch.from_numpy(
    np.random.default_rng(0).integers(0, 256, (5, 3, SIDE, SIDE), dtype=np.uint8)
)
FLOATS = to_float(PIXELS)
LAST = PIXELS.permute(0, 2, 3, 1)  # [b, H, W, 3]


def read(images, **options):
    pictures = Pictures(images, SIDE, **options)
    batches = list(pictures.batches(2))
    assert sum(map(len, batches)) == len(pictures)
    return torch.cat(batches)


FORMS = {
    "tensor": PIXELS,
    "tensor, channels last": LAST,
    "array": PIXELS.numpy(),
    "array, channels last": LAST.numpy(),
    "array turned about": np.flip(LAST.numpy()[:, :, :, ::-1], axis=3),
    "floats": FLOATS,
    "array of floats": FLOATS.numpy(),
    "double, channels last": FLOATS.permute(0, 2, 3, 1).double().numpy(),
    "list of tensors": list(PIXELS),
    "list of arrays, channels last": list(LAST.numpy()),
    "list of floats": list(FLOATS),
    "pictures": to_pil(PIXELS),
    "tuple": tuple(to_pil(PIXELS)),
    "iterator": iter(to_pil(PIXELS)),
    "mixed": [PIXELS[0], to_pil(PIXELS)[1], FLOATS[2], LAST[3].numpy(), FLOATS[4].numpy()],
}


@pytest.mark.parametrize("as_they_are", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_pixels_is_read_alike(form, as_they_are):
    images = FORMS[form]
    if form == "iterator":
        images = iter(to_pil(PIXELS))
    assert torch.equal(read(images, as_they_are=as_they_are), FLOATS)


def test_one_image_is_a_batch_of_one(tmp_path):
    save_png(tmp_path / "0.png", to_pil(PIXELS)[0])
    alone = [PIXELS[0], LAST[0].numpy(), FLOATS[0], to_pil(PIXELS)[0]]
    for image in (*alone, tmp_path / "0.png", str(tmp_path / "0.png")):
        assert torch.equal(read(image), FLOATS[:1])


def test_eight_bit_pixels_of_another_size_are_fitted_as_files_are():
    large = torch.from_numpy(
        np.random.default_rng(1).integers(0, 256, (2, 3, 20, 33), dtype=np.uint8)
    )
    expected = read(to_pil(large))
    assert torch.equal(read(large), expected)
    assert torch.equal(read(list(large.permute(0, 2, 3, 1).numpy())), expected)


UNIT = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (UNIT, r"looks like \[0, 1\].*multiply by 2"),
        (UNIT.numpy(), r"looks like \[0, 1\]"),
        (list(UNIT), r"looks like \[0, 1\]"),
        (PIXELS / 255, r"looks like \[0, 1\]"),
        (PIXELS.float(), "from 0 to 255.*uint8"),
        (PIXELS.double().numpy(), "from 0 to 255"),
        (FLOATS * 9, r"clamp, them to \[-1, 1\]"),
        (FLOATS * torch.nan, "not finite"),
        (FLOATS / 0, "not finite"),
        (PIXELS.long(), "uint8 or floating"),
        (PIXELS.numpy().astype(np.uint16), "uint8 or floating"),
        (np.array([["a"]]), "uint8 or floating"),
        (PIXELS[:, :1], r"\[b, H, W, 3\].*\[5, 1, 12, 12\]"),
        (PIXELS[0, 0], r"not \[12, 12\]"),
        (PIXELS[None], r"\[1, 5, 3, 12, 12\]"),
        ([PIXELS, PIXELS], "give a batch by itself"),
        (FLOATS[:, :, :8, :8], "resize them first"),
        (FLOATS[:0], "no image"),
        ([], "no image"),
    ],
)
def test_what_does_not_look_like_pictures_is_refused(images, says):
    with pytest.raises(UserError, match=says) as caught:
        read(images)
    assert "\n" not in str(caught.value)


def test_a_generator_may_overshoot_where_a_picture_to_be_marked_may_not():
    assert torch.equal(read(FLOATS * 2.5), FLOATS * 2.5)
    with pytest.raises(UserError, match=r"clamp, them to \[-1, 1\]"):
        read(FLOATS * 2.5, as_they_are=True)


def test_bright_pictures_are_believed_where_their_levels_show_the_scale():
    bright = to_float(128 + PIXELS // 2)
    assert bright.min() > 0
    assert torch.equal(read(bright), bright)
    white = torch.ones(1, 3, SIDE, SIDE)
    assert torch.equal(read(white), white)


def test_images_to_be_marked_are_never_resized(tmp_path):
    (picture,) = to_pil(torch.zeros(1, 3, 9, 14, dtype=torch.uint8))
    save_png(tmp_path / "a.png", picture)
    for image in (picture, tmp_path / "a.png"):
        with pytest.raises(UserError, match="14x9, and this marker marks 12x12 only"):
            read(image, as_they_are=True)
    with pytest.raises(UserError, match=r"must have shape \[b, 3, 12, 12\]"):
        read(PIXELS[:, :, :9], as_they_are=True)
