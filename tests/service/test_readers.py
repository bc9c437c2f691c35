"""Processes that decode what strangers send: every kind of image, and every way to fail."""

import io
import os
import signal
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from scalefp.data.images import read_image, to_tensor
from scalefp.service.limits import Limits, Refused
from scalefp.service.readers import Readers, Upload
from service.conftest import encode, png

R = 16
LIMITS = Limits(pixels=4_000_000, image_seconds=3.0)


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    readers = Readers(1, R, LIMITS)
    yield readers
    readers.close()


def noise(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)


def exif_turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(noise(), "JPEG", exif=exif)


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=10)


def polyglot() -> bytes:
    """A PNG that is also an HTML page and ends in a zip archive."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "<script>alert(1)</script>")
    zip_end = b"PK\x05\x06" + bytes(18)
    return encode(noise(), "PNG", pnginfo=text) + b"<html><script>alert(1)</script>" + zip_end


READABLE = {
    "rgb.png": png(0),
    "grey.png": encode(noise("L"), "PNG"),
    "16-bit.png": encode(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)), "PNG"),
    "palette.png": encode(noise().quantize(16), "PNG"),
    "alpha.png": encode(noise("RGBA"), "PNG"),
    "cmyk.jpg": encode(noise("CMYK"), "JPEG"),
    "progressive.jpg": encode(noise(), "JPEG", progressive=True),
    "turned.jpg": exif_turned(),
    "lossy.webp": encode(noise(), "WEBP"),
    "animated.png": animated("PNG"),
    "animated.webp": animated("WEBP"),
    "polyglot.png": polyglot(),
    "thin.png": png(1, (3000, 1)),
    "named.jpg.exe": png(2),
}


@pytest.mark.parametrize("name", READABLE)
def test_what_can_be_read_gives_the_librarys_pixels(readers: Readers, name: str) -> None:
    (pixels,) = readers.read([Upload(name, READABLE[name])])
    (expected,) = to_tensor([read_image(READABLE[name])], R).numpy()
    assert not isinstance(pixels, Refused), pixels.detail
    assert pixels.dtype == np.uint8 and (pixels == expected).all()


def test_images_keep_their_order(readers: Readers) -> None:
    uploads = [Upload(str(seed), png(seed)) for seed in range(5)]
    pixels = readers.read(uploads)
    assert len(pixels) == 5
    for one, upload in zip(pixels, uploads, strict=True):
        assert (one == to_tensor([read_image(upload.data)], R)[0].numpy()).all()


def bomb() -> bytes:
    """A file of a few hundred bytes whose header promises 10^10 pixels."""
    data = bytearray(png(0))
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def scan_bomb(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each asks for a pass over all its blocks."""
    data = encode(Image.new("L", (2000, 1999)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


REFUSED = {
    "nothing.png": (b"", "empty"),
    "text.png": (b"hello", "not an image"),
    "page.png": (b"<html><script>alert(1)</script>", "not an image"),
    "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    "film.gif": (b"GIF89a" + bytes(20), "corrupt"),
    "scan.tif": (b"II*\0" + bytes(20), "corrupt"),
    "letter.pdf": (b"%PDF-1.7", "PDF"),
    "cut.png": (READABLE["rgb.png"][:150], "truncated"),
    "cut.jpg": (READABLE["progressive.jpg"][:300], "truncated"),
    "cut.webp": (READABLE["lossy.webp"][:100], "truncated"),
    "head.png": (READABLE["rgb.png"][:8], "corrupt"),
    "scrambled.png": (READABLE["rgb.png"][:60] + bytes(900), "corrupt"),
    "large.png": (png(0, (2001, 2000)), "4 megapixels"),
    "bomb.png": (bomb(), "100000x100000"),
    "scans.jpg": (scan_bomb(2000), "more than 100 scans"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_sentence(readers: Readers, name: str) -> None:
    data, word = REFUSED[name]
    good, refused = readers.read([Upload("good.png", png(0)), Upload(name, data)])
    assert not isinstance(good, Refused) and good.shape == (3, R, R)
    assert isinstance(refused, Refused)
    assert (refused.status_code, refused.code) == (422, "image_refused")
    assert refused.detail.startswith(name) and word in refused.detail
    assert "\n" not in refused.detail


def test_an_image_that_takes_too_long_is_killed() -> None:
    data = scan_bomb(80)  # ten more would be refused unread
    readers = Readers(1, R, Limits(image_seconds=0.2))
    try:
        first = readers._all[0].process
        begun = time.monotonic()
        (refused,) = readers.read([Upload("slow.jpg", data)])
        assert isinstance(refused, Refused)
        assert (refused.status_code, refused.code) == (422, "image_too_slow")
        assert "slow.jpg" in refused.detail and "0.2 s" in refused.detail
        assert time.monotonic() - begun >= 0.2
        assert not first.is_alive()
    finally:
        readers.close()


def test_a_reader_that_died_costs_the_next_image_nothing(readers: Readers) -> None:
    process = readers._all[0].process
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (pixels,) = readers.read([Upload("lucky.png", png(0))])
    assert not isinstance(pixels, Refused) and pixels.shape == (3, R, R)
    assert readers._all[0].process.pid != process.pid


def test_an_image_that_kills_its_reader_is_refused(readers: Readers) -> None:
    reader, killed = readers._all[0], []
    answer = reader.answer

    def crash(seconds: float) -> object:
        """As if the decoder crashed on the image."""
        if seconds == LIMITS.image_seconds:
            killed.append(reader.process.pid)
            reader.stop()
            raise EOFError
        return answer(seconds)

    with mock.patch.object(reader, "answer", crash):
        (refused,) = readers.read([Upload("deadly.png", png(0))])
    assert isinstance(refused, Refused) and len(killed) == 2
    assert refused.code == "image_refused" and "deadly.png" in refused.detail
    (pixels,) = readers.read([Upload("good.png", png(0))])
    assert not isinstance(pixels, Refused)


def test_a_reader_that_took_much_memory_is_replaced() -> None:
    readers = Readers(1, R, Limits(pixels=20_000_000))
    try:
        reader = readers._all[0]
        first = reader.process
        large = Upload("large.png", encode(Image.new("RGB", (5000, 4000)), "PNG"))
        for upload in (Upload("small.png", png(0)), large, Upload("small.png", png(0))):
            (pixels,) = readers.read([upload])
            assert not isinstance(pixels, Refused), pixels.detail
        assert reader.process.pid != first.pid
        first.join(30)
        assert not first.is_alive()
    finally:
        readers.close()


def test_a_readers_memory_is_bounded(readers: Readers) -> None:
    process = readers._all[0].process
    limits = Path(f"/proc/{process.pid}/limits")
    if not limits.exists():
        pytest.skip("no /proc here")
    (line,) = [one for one in limits.read_text().splitlines() if one.startswith("Max data size")]
    assert int(line.split()[3]) == (1 << 30) + 40 * LIMITS.pixels


def test_closing_leaves_no_process() -> None:
    readers = Readers(2, R, LIMITS)
    processes = [reader.process for reader in readers._all]
    assert all(process.is_alive() for process in processes)
    readers.close()
    assert not any(process.is_alive() for process in processes)


def test_pixels_are_those_of_a_file_like_object() -> None:
    data = png(3)
    assert (np.asarray(read_image(io.BytesIO(data))) == np.asarray(read_image(data))).all()
