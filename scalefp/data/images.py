"""An image file in, 8-bit RGB pixels out, and back.

Everything that the project reads from outside (data sets, images to attribute) comes through
``read_image``, so that a picture gives the same pixels wherever it is used, and a hostile or
broken file gives one sentence instead of a traceback.

Pixels are uint8 at files and float in [-1, 1] inside; tensors are [b, 3, H, W], RGB.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scalefp.data.formats import FULL_SCANS, MAX_FILE_BYTES, MAX_MISSING, CutJpeg, Jpeg, open_image
from scalefp.errors import UserError
from scalefp.files import atomic_path, printable

MAX_PIXELS = 100_000_000
MAX_SIDE = 200_000  # resizing a longer line of pixels would take gigabytes, however thin it is
# Of names that promise an image; what a file holds is judged by its content.
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp"
)  # fmt: skip
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {  # EXIF orientation -> the operation that shows the picture as it was taken
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_log = logging.getLogger(__name__)

# Reading.


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if max(width, height) > MAX_SIDE:
        raise UserError(
            f"{name} is {width}x{height} pixels, over the limit of {MAX_SIDE:,} on a side: cut it "
            "into parts"
        )
    if width * height > max_pixels:
        raise UserError(
            f"{name} is {width}x{height} pixels, over the limit of {max_pixels / 1e6:g} "
            "megapixels: make it smaller first"
        )
    if isinstance(image, Jpeg) and image.scans * width * height > FULL_SCANS * max_pixels:
        raise UserError(
            f"{name} is a JPEG of {width}x{height} pixels in {image.scans} scans, which takes too "
            "long to decode: save it anew"
        )


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # Pillow's EXIF parser raises many kinds; a broken tag means upright
        return 1


def _deep_grey(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """16-bit grey (modes I;16*, I) as 8-bit L by its high byte, and the mask of its colour key."""
    values = np.asarray(image).clip(0, 0xFFFF).astype(np.uint16)  # [H, W]
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    if (transparent := image.info.get("transparency")) is None:
        return grey, None
    return grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))


def _flatten(image: Image.Image, name: str) -> Image.Image:
    """Any mode -> RGB on white. The result carries no metadata, so reading it again is harmless."""
    alpha = None
    if image.mode == "F":
        raise UserError(f"{name} holds floating-point pixels: give an 8-bit image")
    if image.mode.startswith("I"):
        image, alpha = _deep_grey(image)
    elif image.has_transparency_data:  # an alpha channel, or a colour key in the file's header
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image.convert("RGB"), mask=alpha)
    return canvas


def _check_missing(image: CutJpeg, name: str, whole: bool) -> None:
    """Warn of what a JPEG that was cut off lost; UserError if that is too much."""
    missing = image.missing()
    if whole or missing > MAX_MISSING:
        what = "it is cut off" if whole else "most of the picture is missing"
        raise UserError(f"{name} is truncated or corrupt ({what}): replace it")
    lost = f"the lowest {missing:.0%} of the picture is" if missing else "its last bytes are"
    _log.warning("%s is cut off: %s missing, the rest was read", printable(name), lost)


def _decode(image: Image.Image, name: str, max_pixels: int, whole: bool) -> Image.Image:
    _check_size(image, name, max_pixels)
    image.load()
    if isinstance(image, CutJpeg):
        _check_missing(image, name, whole)
    flat = _flatten(image, name)
    turn = _UPRIGHT.get(_orientation(image))
    return flat if turn is None else flat.transpose(turn)


def _decode_stream(stream: BinaryIO, name: str, max_pixels: int, whole: bool) -> Image.Image:
    if (size := stream.seek(0, SEEK_END)) > MAX_FILE_BYTES:
        raise UserError(
            f"{name} has {size >> 20} MiB, over the limit of {MAX_FILE_BYTES >> 20} MiB: "
            "make it smaller first"
        )
    stream.seek(0)
    with open_image(stream, name) as image:
        return _decode(image, name, max_pixels, whole)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder: give an image file")
    if not path.exists():
        raise UserError(f"{path} does not exist: check the name of the image file")
    if not path.is_file():  # a pipe or a device could block for ever
        raise UserError(f"{path} is not a regular file: give an image file")


@contextmanager
def _in_one_sentence(name: str) -> Iterator[None]:
    """Whatever goes wrong with an image becomes a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} is too large an image: make it smaller first") from error
    except PermissionError as error:
        raise UserError(f"{name} may not be read: check its permissions") from error
    except MemoryError as error:
        raise UserError(f"{name} needs more memory than there is: make it smaller first") from error
    except Exception as error:  # on hostile bytes a decoder may raise anything
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not Pillow's
            raise UserError(
                f"{name} cannot be read ({error.strerror}): check its name and its disk"
            ) from error
        raise UserError(f"{name} is truncated or corrupt ({error}): replace it") from error


def read_image(
    source: Path | str | bytes | BinaryIO | Image.Image,
    name: str | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    whole: bool = False,
) -> Image.Image:
    """Read one image of a readable format (or take a PIL image) as 8-bit RGB.

    EXIF orientation is applied; transparency is laid on white; CMYK is converted; 16-bit grey
    keeps its high byte; of an animation or of several pages the first is taken. A JPEG that was
    cut off is read as far as it goes, with a warning in the log, unless a ``whole`` one is asked
    for. ``name`` stands for the image in messages (default: its path).

    Raises:
        UserError: a missing, foreign or broken file, one of which most is missing, or one of more
            than ``max_pixels`` pixels, which is refused from its header, before decoding.
    """
    if isinstance(source, (str, Path)):
        if not str(source):  # which a path takes for the current folder
            raise UserError("the name of an image is empty: give its path")
        name = name or str(source)
    elif name is None:
        name = str(getattr(source, "name", "") or getattr(source, "filename", "") or "the image")
    if not isinstance(source, (str, Path, bytes, Image.Image)):
        source = source.read(MAX_FILE_BYTES + 1)
    with _in_one_sentence(name):
        if isinstance(source, Image.Image):
            return _decode(source, name, max_pixels, whole)
        if isinstance(source, bytes):
            return _decode_stream(BytesIO(source), name, max_pixels, whole)
        _check_file(Path(source))
        with open(source, "rb") as stream:
            return _decode_stream(stream, name, max_pixels, whole)


def read_size(stream: IO[bytes], name: str) -> tuple[int, int]:
    """Width and height in the header of an image, as stored (EXIF may turn it).

    Raises:
        UserError: as :func:`read_image`, as far as the header shows it.
    """
    with _in_one_sentence(name), open_image(stream, name, header_only=True) as image:
        _check_size(image, name, MAX_PIXELS)
        return image.size


# Pixels and tensors.


def fit(image: Image.Image, resolution: int) -> Image.Image:
    """Centre-crop an RGB image to a square and resize it (Lanczos) to R x R.

    An image that is R x R already is returned as it is.
    """
    width, height = image.size
    side = min(width, height)
    if width != height:
        top, left = (height - side) // 2, (width - side) // 2
        # Sliced, not Image.crop, which would apply Pillow's size limit (see _open).
        image = Image.fromarray(np.asarray(image)[top : top + side, left : left + side])
    if side == resolution:
        return image
    return image.resize((resolution, resolution), Image.Resampling.LANCZOS)


def to_tensor(images: Sequence[Image.Image], resolution: int) -> Tensor:
    """PIL images of any size -> uint8 [b, 3, R, R], each by ``fit``; bit exact if already R x R."""
    tensor = torch.empty(len(images), 3, resolution, resolution, dtype=torch.uint8)
    for row, image in zip(tensor, images, strict=True):
        rgb = image if image.mode == "RGB" else read_image(image)
        row.copy_(torch.from_numpy(np.array(fit(rgb, resolution))).permute(2, 0, 1))
    return tensor


def to_float(images: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1]: x / 127.5 - 1. Any shape."""
    if images.dtype != torch.uint8:
        raise UserError(f"expected uint8 pixels, got {images.dtype}: give pixels as in the file")
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float in [-1, 1] -> uint8 by rounding, values outside clamped. Any shape.

    The inverse of ``to_float`` for all 256 values.
    """
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_pil(images: Tensor) -> list[Image.Image]:
    """[b, 3, H, W], uint8 or float in [-1, 1], on any device -> b RGB images."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise UserError(f"expected images of shape [b, 3, H, W], got {list(images.shape)}")
    pixels = images if images.dtype == torch.uint8 else to_uint8(images)
    rows = pixels.detach().permute(0, 2, 3, 1).cpu().numpy()  # [b, H, W, 3]
    return [Image.fromarray(row) for row in rows]


# Writing.


def save_png(path: Path | str, image: Image.Image) -> None:
    """Write a PNG file whole or not at all; a file of that name is replaced."""
    with atomic_path(path, durable=False) as temporary:
        image.save(temporary, format="PNG")


def grid(images: Tensor, columns: int, pad: int = 2) -> Image.Image:
    """uint8 [n, 3, H, W] -> one RGB sheet, row by row, ``pad`` white pixels around each image."""
    n, _, height, width = images.shape
    if n == 0 or columns < 1:
        raise UserError("a grid needs at least one image and one column")
    rows = -(-n // columns)
    size = (columns * (width + pad) + pad, rows * (height + pad) + pad)
    sheet = Image.new("RGB", size, "white")
    for index, image in enumerate(to_pil(images)):
        row, column = divmod(index, columns)
        sheet.paste(image, (column * (width + pad) + pad, row * (height + pad) + pad))
    return sheet
