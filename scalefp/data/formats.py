"""The bytes of an image file -> an opened image that holds its pixels and little else.

A file is judged by its content, never by its name. What is no part of the picture (text, colour
profiles, further frames) is left out before Pillow sees it where Pillow could stumble over it: a
workflow of some megabytes in a PNG is no damage. Only formats that Pillow decodes without running
a program or a language (as EPS does) are opened.
"""

import re
import struct
import zlib
from io import BytesIO
from typing import IO

import numpy as np
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from scalefp.errors import UserError

READABLE = "PNG, JPEG, WebP, AVIF, GIF, TIFF or BMP"
HEAD_BYTES = 64  # enough to recognise a format
MAX_FILE_BYTES = 512 * 2**20
# Scans of a progressive JPEG; each may cost as much time as a whole picture, usual are 10.
MAX_SCANS = 100
FULL_SCANS = 15  # of a picture with as many pixels as are allowed
MAX_MISSING = 0.5  # share of a picture that may be missing where its file was cut off

# (offset, magic bytes, name)
_KNOWN = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (8, b"WEBP", "WEBP"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"BM", "BMP"),
)
_FORMATS: dict[str, type[ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WEBP": WebPImageFile,
    "AVIF": AvifImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
}
# Recognised only to be named in the refusal.
_FOREIGN = (
    (4, b"ftyphei", "a HEIC file"),
    (4, b"ftypmif1", "a HEIF file"),
    (4, b"ftypmsf1", "a HEIF file"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"%PDF", "a PDF file"),
    (0, b"\0\5\x16\7", "the part of a file's attributes that macOS writes beside it"),
)

# The chunks of a PNG that make its picture, and those that may say how the camera was held.
_PNG_PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_PNG_TURNED = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
_MAX_TEXT = 1 << 16
# A marker in a JPEG, other than stuffed and fill bytes and restarts.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


def recognise(head: bytes) -> str | None:
    """The format, a key of Pillow's names, of a file that begins with these HEAD_BYTES, or None."""
    for offset, magic, name in _KNOWN:
        if head.startswith(magic, offset):
            # Two letters are too little to tell a bitmap from text; its header has zeros there.
            if name == "BMP" and head[6:10] != bytes(4):
                continue
            return name
    if head[4:12] in (b"ftypmif1", b"ftypmsf1") and b"avif" in head[16:HEAD_BYTES]:
        return "AVIF"
    return None


def _is_turn(kind: bytes, body: bytes) -> bool:
    """Whether a text chunk may hold the EXIF orientation, and unpacks to little enough."""
    if not body.startswith(_PNG_TURNED):
        return False
    if kind == b"tEXt":
        return True
    packed = body[body.index(b"\0") + 1 :]
    if kind == b"iTXt":  # which starts with a flag: packed or not
        return packed[:1] == b"\0"
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed[1:], _MAX_TEXT)
    except zlib.error:
        return False
    return unpacker.eof


def _png(stream: IO[bytes], header_only: bool) -> IO[bytes]:
    """The chunks of a PNG that make its picture; of an animation, its default image."""
    kept = BytesIO()
    kept.write(stream.read(8))
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if header_only and kind == b"IDAT":
            head, length = struct.pack(">I4s", 0, kind), 0
            kept.write(head + struct.pack(">I", zlib.crc32(kind)))
            break
        if kind in _PNG_PICTURE or kind == b"eXIf":
            kept.write(head + stream.read(length + 4))
        elif kind in _PNG_TEXT and length <= _MAX_TEXT:
            body = stream.read(length + 4)
            if _is_turn(kind, body):
                kept.write(head + body)
        elif kind.isalpha() and kind.isascii():
            stream.seek(length + 4, 1)
        else:
            break  # damaged: Pillow says what is missing
        if kind == b"IEND":
            break
    kept.seek(0)
    return kept


class Jpeg(JpegImageFile):
    """A JPEG.

    Attributes:
        scans: passes over the picture that decoding it takes.
    """

    scans = 1


class CutJpeg(Jpeg):
    """A JPEG whose end is missing; what is missing is grey after loading.

    Attributes:
        is_coarse: it is progressive and ends before the details of the picture.
    """

    is_coarse = False

    def missing(self) -> float:
        """Share of the picture that the file no longer held; after loading."""
        if self.is_coarse:
            return 1.0
        samples = np.asarray(self).reshape(self.height, -1)  # [H, W * channels]
        there = np.flatnonzero(((samples < 127) | (samples > 128)).any(axis=1))
        return 1 - (int(there[-1]) + 1 if there.size else 0) / self.height


def _jpeg(stream: IO[bytes], name: str) -> ImageFile:
    """A JPEG, given its end where that is missing, unless it has too many scans."""
    data = stream.read()
    at, scans = 2, list[bytes]()
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        start, at = found.span()
        if found.group() == _END_OF_IMAGE:
            whole = Jpeg(BytesIO(data))
            whole.scans = len(scans)
            return whole
        body = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        at += 2 + len(body)
        if at >= len(data):  # the file ends in this segment
            data = data[:start]
            break
        if found.group() == _START_OF_SCAN:
            scans.append(body)
        if len(scans) > MAX_SCANS:
            raise UserError(
                f"{name} is a JPEG of more than {MAX_SCANS} scans, which takes too long to decode: "
                "save it anew"
            )
    if not scans:
        return JpegImageFile(BytesIO(data))  # Pillow says what is missing
    image = CutJpeg(BytesIO(data + _END_OF_IMAGE))
    image.scans = len(scans)
    # The body of a scan: the number of components c, two bytes for each of them, the first and
    # last of the 64 frequencies, a byte more. Brightness is the first component of the first scan.
    brightness = scans[0][1:2]
    image.is_coarse = not any(
        brightness in scan[1:-3:2] and scan[-2:-1] == b"\x3f" for scan in scans
    )
    return image


def open_image(stream: IO[bytes], name: str, *, header_only: bool = False) -> ImageFile:
    """Open an image without decoding it.

    Pillow's format classes are called directly: ``Image.open`` would try formats that are not
    wanted here, and apply Pillow's own size limit, as a process-wide warning that a library must
    not switch off for its user.

    Args:
        stream: seekable, at its beginning; of at most MAX_FILE_BYTES.
        name: of the image, in messages.
        header_only: nothing but the size is wanted.

    Raises:
        UserError: not an image, or of a format that is not read here.
        Exception: whatever Pillow raises on damaged bytes.
    """
    head = stream.read(HEAD_BYTES)
    stream.seek(0)
    kind = recognise(head)
    if kind == "PNG":
        return PngImageFile(_png(stream, header_only))
    if kind == "JPEG" and not header_only:
        return _jpeg(stream, name)
    if kind is not None:
        return _FORMATS[kind](stream)
    for offset, magic, what in _FOREIGN:
        if head.startswith(magic, offset):
            raise UserError(f"{name} is {what}: give a {READABLE} image")
    what = "not an image" if head else "an empty file"
    raise UserError(f"{name} is {what}: give a {READABLE} image")
