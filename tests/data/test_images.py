"""Images in every format and mode come out as the RGB pixels a viewer shows; bad ones are named."""

import re
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from scalefp.data.images import (
    MAX_PIXELS,
    fit,
    grid,
    read_image,
    read_size,
    save_png,
    to_float,
    to_pil,
    to_tensor,
    to_uint8,
)
from scalefp.errors import UserError
from scalefp.files import atomic_path

ALL = ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP"]
RED, WHITE = [255, 0, 0], [255, 255, 255]


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


Source = Path | str | bytes | BinaryIO | Image.Image


def pixels(source: Source) -> np.ndarray:
    image = read_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def photo(width: int = 40, height: int = 24) -> Image.Image:
    """A smooth picture without any symmetry, which JPEG keeps well."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([x * 255 // width, y * 255 // height, (x + 2 * y) % 200], axis=2)
    return Image.fromarray(rgb.astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header declares a size and whose pixels are missing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + kind + body
        chunks += struct.pack(">I", zlib.crc32(kind + body))
    return chunks


@pytest.mark.parametrize("size", [(99_999_999, 1), (1, 99_999_999)])
def test_a_thread_of_pixels_is_refused_before_it_takes_all_memory(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="over the limit of 200,000 on a side: cut it into parts"):
        read_image(png_header(*size), "thread.png")


# Modes.


def test_lossless_formats_are_bit_exact(tmp_path: Path) -> None:
    expected = np.asarray(photo())
    path = tmp_path / "a.png"
    path.write_bytes(encode(photo()))
    with open(path, "rb") as stream:
        for source in (path, str(path), path.read_bytes(), stream, photo()):
            np.testing.assert_array_equal(pixels(source), expected)
    np.testing.assert_array_equal(pixels(encode(photo(), "WEBP", lossless=True)), expected)
    for kind in ("BMP", "TIFF"):
        np.testing.assert_array_equal(pixels(encode(photo(), kind)), expected)
    palette = photo().quantize(16)
    np.testing.assert_array_equal(
        pixels(encode(palette, "GIF")), np.asarray(palette.convert("RGB"))
    )


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_lossy_formats_are_close(kind: str) -> None:
    error = pixels(encode(photo(), kind, quality=95)).astype(int) - np.asarray(photo())
    assert np.abs(error).mean() < 4


def test_bilevel_and_grey() -> None:
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    np.testing.assert_array_equal(pixels(encode(bits))[:, :, 0], [[0, 255], [255, 0]])
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    result = pixels(encode(Image.fromarray(grey)))
    for channel in range(3):
        np.testing.assert_array_equal(result[:, :, channel], grey)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "RGBa"])
def test_alpha_is_laid_on_white(mode: str) -> None:
    rgba = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    rgba.putpixel((1, 0), (100, 100, 100, 255))
    rgba.putpixel((2, 0), (0, 0, 0, 128))
    image = rgba.convert(mode)
    source = image if mode == "RGBa" else encode(image)  # RGBa exists in memory only
    result = pixels(source)
    assert result[0, 0].tolist() == WHITE
    assert result[0, 1].tolist() == [100, 100, 100]
    assert result[0, 2].tolist() == [127, 127, 127]


def test_palette_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert pixels(encode(image)).tolist() == [[RED, [0, 0, 255]]]
    assert pixels(encode(image, transparency=1)).tolist() == [[RED, WHITE]]
    assert pixels(encode(image, transparency=bytes([255, 0]))).tolist() == [[RED, WHITE]]


def test_colour_key_of_rgb_and_grey_png() -> None:
    rgb = Image.new("RGB", (2, 1), (1, 2, 3))
    rgb.putpixel((0, 0), (255, 0, 0))
    assert pixels(encode(rgb, transparency=(1, 2, 3))).tolist() == [[RED, WHITE]]
    grey = Image.fromarray(np.array([[7, 8]], np.uint8))
    assert pixels(encode(grey, transparency=7))[0, :, 0].tolist() == [255, 8]


def test_sixteen_bit_grey_keeps_its_high_byte() -> None:
    values = np.array([[0, 255, 256, 0x1234, 0x8000, 0xFFFF]], np.uint16)
    source = encode(Image.fromarray(values))
    assert Image.open(BytesIO(source)).mode == "I;16"
    expected = [0, 0, 1, 0x12, 0x80, 0xFF]
    assert pixels(source)[0, :, 1].tolist() == expected
    assert pixels(Image.fromarray(values.astype(np.int32)))[0, :, 1].tolist() == expected
    keyed = Image.fromarray(values)
    keyed.info["transparency"] = 0x1234
    assert pixels(keyed)[0, :, 1].tolist() == [0, 0, 1, 255, 0x80, 0xFF]


def test_cmyk_jpeg_shows_its_colours_not_the_inverse() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, full magenta and yellow: red
    red, green, blue = pixels(encode(cmyk, "JPEG", quality=100))[8, 8]
    assert red > 245 and green < 10 and blue < 10


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    source = encode(photo(), kind, exif=exif if kind == "TIFF" else exif.tobytes(), **options)
    upright = ImageOps.exif_transpose(Image.open(BytesIO(source)))
    np.testing.assert_array_equal(pixels(source), np.asarray(upright))
    again = read_image(read_image(source))  # must not be turned twice
    np.testing.assert_array_equal(np.asarray(again), np.asarray(upright))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_means_upright() -> None:
    source = encode(photo(), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09garbage")
    np.testing.assert_array_equal(pixels(source), np.asarray(photo()))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    source = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert pixels(source)[4, 4].tolist() == RED


# Metadata is no part of the picture.


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


LONG = zlib.compress(b"a workflow " * 130_000)  # 1.4 MB, over what Pillow unpacks
METADATA = {
    "zTXt": chunk(b"zTXt", b"workflow\0\0" + LONG),
    "iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + LONG),
    "exif as text": chunk(b"zTXt", b"Raw profile type exif\0\0" + LONG),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2_000_000))),
    "many tEXt": chunk(b"tEXt", b"a\0" + b"x" * 60_000) * 1200,
    "damaged": chunk(b"tEXt", b"a\0bc")[:-1] + b"?",
    "unknown": chunk(b"caNv", b"what nobody knows"),
}


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("place", [33, -12], ids=["before", "after"])
def test_metadata_of_a_png_does_not_matter(name: str, place: int) -> None:
    whole = encode(photo())
    source = whole[:place] + METADATA[name] + whole[place:]
    np.testing.assert_array_equal(pixels(source), np.asarray(photo()))
    assert read_size(BytesIO(source), "a") == photo().size


@pytest.mark.parametrize("kind", ["zTXt", "tEXt", "iTXt"])
def test_the_orientation_of_a_png_may_stand_in_a_text(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    digits = exif.tobytes().hex().encode()
    profile = b"\nexif\n" + str(len(digits) // 2).encode().rjust(8) + b"\n" + digits + b"\n"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="3"/></x:xmpmeta>'
    body = {
        "zTXt": b"Raw profile type exif\0\0" + zlib.compress(profile),
        "tEXt": b"Raw profile type exif\0" + profile,
        "iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + xmp,
    }[kind]
    whole = encode(photo())
    source = whole[:33] + chunk(kind.encode(), body) + whole[33:]
    np.testing.assert_array_equal(pixels(source), np.asarray(photo())[::-1, ::-1])


def test_a_large_profile_in_a_jpeg_does_not_matter() -> None:
    plain, with_profile = (encode(photo(), "JPEG", icc_profile=p) for p in (None, bytes(2_000_000)))
    np.testing.assert_array_equal(pixels(with_profile), pixels(plain))


# What was cut off.


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_cut_by_a_few_bytes_is_read(
    mode: str, progressive: bool, caplog: pytest.LogCaptureFixture
) -> None:
    whole = encode(photo(160, 96).convert(mode), "JPEG", progressive=progressive)
    for cut in (1, 2, 3, 20):
        caplog.clear()
        error = pixels(whole[:-cut]).astype(int) - pixels(whole)
        assert np.abs(error).mean() < 3
        assert "the image is cut off" in caplog.text
    caplog.clear()
    pixels(whole + b"trailing bytes")
    assert not caplog.text


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_mostly_missing_is_refused(progressive: bool) -> None:
    whole = encode(photo(160, 96), "JPEG", quality=90, progressive=progressive)
    start = whole.index(b"\xff\xda")
    for share in (0.02, 0.1, 0.2):
        part = whole[: start + int((len(whole) - start) * share)]
        assert "cut.jpg is truncated" in refusal(part, name="cut.jpg")
    assert "cut.jpg is truncated" in refusal(whole[: start - 1], name="cut.jpg")


def test_a_part_of_a_jpeg_is_the_part_of_the_picture(caplog: pytest.LogCaptureFixture) -> None:
    whole = encode(photo(160, 160), "JPEG", quality=90)
    start = whole.index(b"\xff\xda")
    part = whole[: start + (len(whole) - start) * 3 // 4]
    np.testing.assert_array_equal(pixels(part)[:96], pixels(whole)[:96])
    assert "a\\nb.jpg" not in caplog.text
    read_image(part, "a\nb.jpg")
    assert re.search(r"a\\nb.jpg is cut off: the lowest [123]\d% of the picture", caplog.text)


def test_a_whole_file_can_be_asked_for() -> None:
    with pytest.raises(UserError, match="cut.jpg is truncated or corrupt"):
        read_image(encode(photo(), "JPEG")[:-1], "cut.jpg", whole=True)


def test_a_jpeg_of_very_many_scans_is_refused_before_decoding() -> None:
    """A file of 50 KB that would take a minute."""
    whole = encode(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    slow = whole[:last] + whole[last:-2] * 2000 + whole[-2:]
    assert "slow.jpg is a JPEG of more than 100 scans" in refusal(slow, "slow.jpg")


def test_scans_count_as_much_as_pixels() -> None:
    whole = encode(Image.new("L", (200, 200)), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    slow = whole[:last] + whole[last:-2] * 60 + whole[-2:]
    assert read_image(slow, "slow.jpg").size == (200, 200)
    with pytest.raises(UserError, match="slow.jpg is a JPEG of 200x200 pixels in 6. scans"):
        read_image(slow, "slow.jpg", max_pixels=160_000)
    usual = encode(Image.new("RGB", (200, 200)), "JPEG", progressive=True)
    assert read_image(usual, "usual.jpg", max_pixels=40_000).size == (200, 200)


def test_a_lack_of_memory_is_not_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", no_memory)
    assert "a.png needs more memory than there is" in refusal(encode(photo()), "a.png")


def test_the_given_image_is_not_changed() -> None:
    image = Image.new("RGBA", (2, 2), (9, 9, 9, 9))
    read_image(image)
    assert image.mode == "RGBA" and image.getpixel((0, 0)) == (9, 9, 9, 9)


# Refusals: one sentence, naming the file.


def refusal(source: Source, name: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read_image(source, name)
    return str(caught.value)


def test_missing_folder_empty_and_text(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.png")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "empty.png").write_bytes(b"")
    assert "empty.png is an empty file" in refusal(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("hello")
    assert "text.png is not an image" in refusal(tmp_path / "text.png")
    assert "PNG, JPEG, WebP" in refusal(b"<svg>", name="b.svg")


def test_other_formats_are_named_and_never_opened() -> None:
    for magic, what in ((b"%!PS-Adobe-3.0 EPSF", "PostScript"), (b"8BPS\0\1", "Photoshop")):
        assert f"picture is a {what} file" in refusal(magic + bytes(60), name="picture")
    assert "a.heic is a HEIC file" in refusal(b"\0\0\0\x18ftypheic" + bytes(60), name="a.heic")
    assert "not an image" in refusal(encode(photo(), "PPM"))  # that Pillow reads, and we do not
    assert "not an image" in refusal(b"BMW is a make of cars, and this is a text.")
    macos = b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(60)
    assert "._x.png is the part of a file's attributes" in refusal(macos, name="._x.png")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP"])
def test_truncated_anywhere(kind: str, tmp_path: Path) -> None:
    whole = encode(photo(), kind)
    path = tmp_path / "cut.img"
    for share in (0.1, 0.5, 0.8):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert "cut.img is " in refusal(path)


@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b""]), st.binary(max_size=200))
def test_hostile_bytes_give_a_user_error(magic: bytes, body: bytes) -> None:
    refusal(magic + body)


@given(st.data())
def test_flipped_bytes_give_an_image_or_a_user_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(ALL))
    source = bytearray(encode(photo(), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        source[data.draw(st.integers(0, len(source) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert read_image(bytes(source)).mode == "RGB"
    except UserError as error:
        assert "the image" in str(error)


def test_bomb_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", decode)
    message = refusal(png_header(20_000, 20_000), name="bomb.png")
    assert message.startswith("bomb.png is 20000x20000 pixels") and "100 megapixels" in message


def test_webp_bomb_is_refused() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    source = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    for side in (12_000, 60_000):  # within Pillow's own limit, and beyond it
        source[24:27] = source[27:30] = (side - 1).to_bytes(3, "little")
        message = refusal(bytes(source), name="bomb.webp")
        assert "bomb.webp is" in message and "make it smaller" in message


def test_pillows_own_limit_does_not_interfere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)  # photo() has 960: Pillow would warn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("PNG", "JPEG", "WEBP"):
            tensor = to_tensor([read_image(encode(photo(), kind))], 16)
            assert tensor.shape == (1, 3, 16, 16)


def test_what_the_system_refuses_is_not_blamed_on_the_image(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encode(photo(), "PNG"))
    for path, why in ((f"{file}/", "Not a directory"), ("x" * 5000, "File name too long")):
        with pytest.raises(UserError, match=rf"cannot be read \({why}\)"):
            read_image(path)
    with pytest.raises(UserError, match="the name of an image is empty"):
        read_image("")


def test_limit_is_inclusive() -> None:
    side = int(MAX_PIXELS**0.5)
    assert "truncated or corrupt" in refusal(png_header(side, side))
    assert "megapixels" in refusal(png_header(side, side + 1))


# The size alone.


@given(st.sampled_from(ALL), st.integers(1, 90), st.integers(1, 90))
def test_the_size_is_in_the_header(kind: str, width: int, height: int) -> None:
    body = encode(Image.new("P" if kind == "GIF" else "RGB", (width, height)), kind)
    assert read_size(BytesIO(body), "a") == (width, height)


def test_the_size_of_what_is_broken_further_on() -> None:
    assert read_size(BytesIO(png_header(30, 20)), "a") == (30, 20)


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]), st.binary(max_size=60))
def test_no_bytes_make_reading_the_size_fail_in_another_way(magic: bytes, body: bytes) -> None:
    with pytest.raises(UserError, match=r"a\.png"):
        read_size(BytesIO(magic + body), "a.png")


@given(st.integers(1, 5000), st.integers(1, 5000), st.binary(max_size=60))
def test_the_size_of_a_gif_is_what_its_first_bytes_declare(
    width: int, height: int, body: bytes
) -> None:
    # A whole frame, so that the header is all that the random bytes behind it can spoil.
    frame = encode(Image.new("P", (1, 1)), "GIF")
    declared = frame[:6] + struct.pack("<HH", width, height) + frame[10:]
    assert read_size(BytesIO(declared + body), "a.gif") == (width, height)


def test_a_bomb_has_no_size_worth_knowing() -> None:
    with pytest.raises(UserError, match="a.png is 20000x20000 .* megapixels"):
        read_size(BytesIO(png_header(20_000, 20_000)), "a.png")


# Pixels and tensors.


@given(st.lists(st.integers(0, 255), min_size=1, max_size=300))
def test_uint8_float_round_trip(values: list[int]) -> None:
    tensor = torch.tensor(values, dtype=torch.uint8)
    as_float = to_float(tensor)
    assert as_float.dtype == torch.float32 and as_float.abs().max() <= 1
    assert torch.equal(to_uint8(as_float), tensor)


def test_all_256_values_and_the_ends() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(every)), every)
    assert to_float(every)[[0, 255]].tolist() == [-1.0, 1.0]
    assert to_uint8(torch.tensor([-7.0, -1.0, 0.0, 1.0, 7.0])).tolist() == [0, 0, 128, 255, 255]
    with pytest.raises(UserError, match="uint8"):
        to_float(torch.zeros(3))


def test_to_tensor_keeps_pixels_of_the_right_size() -> None:
    square = photo(32, 32)
    tensor = to_tensor([square, square.convert("L")], 32)
    np.testing.assert_array_equal(tensor[0].permute(1, 2, 0).numpy(), np.asarray(square))
    np.testing.assert_array_equal(tensor[1, 2].numpy(), np.asarray(square.convert("L")))
    np.testing.assert_array_equal(np.asarray(to_pil(tensor)[0]), np.asarray(square))
    assert to_tensor([], 16).shape == (0, 3, 16, 16)


def test_fit_takes_the_middle() -> None:
    wide = Image.new("RGB", (30, 10), "blue")
    wide.paste("red", (10, 0, 20, 10))  # the middle third
    assert np.asarray(fit(wide, 10)).reshape(-1, 3).tolist() == [RED] * 100
    tall = wide.transpose(Image.Transpose.ROTATE_90)
    assert np.asarray(fit(tall, 16)).reshape(-1, 3).tolist() == [RED] * 256
    expected = photo(40, 24).crop((8, 0, 32, 24)).resize((16, 16), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(np.asarray(fit(photo(40, 24), 16)), np.asarray(expected))


def test_to_pil_takes_floats_and_refuses_other_shapes() -> None:
    image = to_pil(torch.full((1, 3, 4, 5), 1.0))[0]
    assert image.size == (5, 4) and image.getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(UserError, match="shape"):
        to_pil(torch.zeros(3, 4, 4))


def test_grid_places_images_row_by_row() -> None:
    images = torch.stack([torch.full((3, 4, 6), v, dtype=torch.uint8) for v in (10, 20, 30)])
    sheet = np.asarray(grid(images, columns=2, pad=1))
    assert sheet.shape == (2 * 5 + 1, 2 * 7 + 1, 3)
    assert [sheet[1, 1, 0], sheet[1, 8, 0], sheet[6, 1, 0], sheet[6, 8, 0]] == [10, 20, 30, 255]
    with pytest.raises(UserError):
        grid(images[:0], columns=2)


# Writing.


def test_save_png_round_trip_and_no_leftovers(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", photo())
    save_png(tmp_path / "a.png", photo(8, 8))  # replaces
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), np.asarray(photo(8, 8)))
    with pytest.raises(UserError, match="cannot write"):
        save_png(tmp_path / "none" / "a.png", photo())
    with pytest.raises(UserError, match="cannot write"):
        save_png(tmp_path / "a.png" / "b.png", photo())
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a.png") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), np.asarray(photo(8, 8)))
