"""Images as people have them -> pixels [b, 3, R, R] in [-1, 1]: one door for reading and marking.

Paths, PIL images, tensors and arrays, one or many. Floats carry no word on their range, so they are
looked at: what was scaled to [0, 1] or 0..255 would else be read, or marked, as another picture.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from scalefp.data.images import read_image, to_float, to_pil, to_tensor
from scalefp.errors import UserError

Array = Tensor | NDArray[Any]
OneImage = Array | Image.Image | str | os.PathLike[str]
Images = OneImage | Iterable[OneImage]

# Generators overshoot [-1, 1], at the edges of lines most; none of ours by more than this.
OVERSHOOT = 4.0
GRID = 1e-3  # of a level: nearer to whole levels than this, floats were made of 8-bit pixels


def _channels_first(images: Array) -> Tensor:
    """Pixels [..., 3, H, W] of an array or tensor [..., 3, H, W] or [..., H, W, 3]."""
    if isinstance(images, np.ndarray):
        if images.dtype not in (np.uint8, np.float16, np.float32, np.float64):
            raise UserError(
                f"an array of images must be uint8 or floating, not {images.dtype}: give 8-bit "
                "pixels, or floats in [-1, 1]"
            )
        images = torch.from_numpy(np.ascontiguousarray(images))
    if not (images.is_floating_point() or images.dtype == torch.uint8):
        raise UserError(
            f"a tensor of images must be uint8 or floating, not {images.dtype}: give 8-bit pixels, "
            "or floats in [-1, 1]"
        )
    if images.ndim in (3, 4) and images.shape[-3] == 3:
        return images.contiguous()
    if images.ndim in (3, 4) and images.shape[-1] == 3:
        return images.movedim(-1, -3).contiguous()
    raise UserError(
        "a tensor or array of images must have shape [b, 3, H, W] or [b, H, W, 3], or this without "
        f"b for one image, not {list(images.shape)}"
    )


def _check_range(floats: list[Tensor], overshoot: float) -> None:
    """Raise UserError unless floats lie in [-1, 1], all tensors taken together, and look like it.

    Where none is negative, they are believed only if they are whole 8-bit levels on that scale: a
    picture of which no pixel is dark in any colour is rare, and one scaled to [0, 1] is not.
    """
    ends = [end for one in floats if one.numel() for end in one.aminmax()]
    if not ends:
        return
    low, high = float(min(ends)), float(max(ends))
    if not np.isfinite([low, high]).all():
        raise UserError("the images hold numbers that are not finite: they are damaged")
    found = f"the images' floats lie between {low:.3g} and {high:.3g}"
    if low >= 0 and high > 1 + overshoot:
        raise UserError(
            f"{found}, which looks like pixels from 0 to 255: give them as uint8, or divide by "
            "127.5 and subtract 1"
        )
    if low < -1 - overshoot or high > 1 + overshoot:
        raise UserError(f"{found}: scale, or clamp, them to [-1, 1], or give uint8 pixels")
    if low >= 0 and not all(_is_eight_bit(one) for one in floats):
        raise UserError(
            f"{found}, which looks like [0, 1]: multiply by 2 and subtract 1, or give uint8 pixels"
        )


def _is_eight_bit(floats: Tensor) -> bool:
    """Whether floats are whole levels of 8-bit pixels, -1 being 0 and 1 being 255."""
    levels = (floats.double() + 1) * 127.5
    return bool(((levels - levels.round()).abs() < GRID).all())


class Pictures:
    """One or more images, of which pixels are made a batch at a time.

    Args:
        images: a path, PIL image, array or tensor, or any number of them; arrays and tensors
            [3, H, W] or [H, W, 3], or [b, 3, H, W] or [b, H, W, 3] by themselves; uint8, or float
            in [-1, 1].
        resolution: R; None = every image in its own size, a batch of which is one image.
        as_they_are: for marking: refuse images of another size, and floats beyond [-1, 1]. Else
            8-bit images of any size are centre-cropped to a square and resized, as files are, and
            floats may overshoot as a generator's do.

    Raises:
        UserError: no image; another shape, type or size; or floats that do not look like [-1, 1].
    """

    def __init__(
        self, images: Images, resolution: int | None, *, as_they_are: bool = False
    ) -> None:
        self.resolution, self.as_they_are = resolution, as_they_are
        self._all: Tensor | list[Any]
        if isinstance(images, Tensor | np.ndarray):
            tensor = _channels_first(images)
            self._all = tensor if tensor.ndim == 4 else tensor[None]
        elif isinstance(images, str | os.PathLike | Image.Image):
            self._all = [images]
        else:
            self._all = [self._one(image) for image in images]
        if len(self._all) == 0:
            raise UserError("there is no image; give at least one")
        tensors = [self._all] if isinstance(self._all, Tensor) else self._all
        floats = [one for one in tensors if isinstance(one, Tensor) and one.is_floating_point()]
        self._check_sides(tensors)
        _check_range(floats, 1e-3 if as_they_are else OVERSHOOT)

    @staticmethod
    def _one(image: OneImage) -> Any:
        if not isinstance(image, Tensor | np.ndarray):
            return image
        if image.ndim != 3:
            raise UserError(
                f"each array or tensor of a list is one image [3, H, W] or [H, W, 3], not "
                f"{list(image.shape)}: give a batch by itself"
            )
        return _channels_first(image)

    def _check_sides(self, images: list[Any]) -> None:
        side = self.resolution
        for image in images if side is not None else []:
            if not isinstance(image, Tensor) or image.shape[-2:] == (side, side):
                continue
            if image.is_floating_point() or self.as_they_are:
                raise UserError(
                    f"a tensor of images must have shape [b, 3, {side}, {side}], "
                    f"not {list(image.shape)}: resize them first"
                )

    def __len__(self) -> int:
        """Number of images."""
        return len(self._all)

    def batches(self, size: int) -> Iterator[Tensor]:
        """The images' pixels, float [<= size, 3, R, R] in [-1, 1], in their order.

        In their own size they come one by one, whatever ``size``.
        """
        size = 1 if self.resolution is None else size
        for start in range(0, len(self), size):
            part = self._all[start : start + size]
            if isinstance(part, Tensor):
                yield self._pixels(part)
            else:
                yield torch.cat([self._pixels(self._loaded(image)) for image in part])

    def _loaded(self, image: Any) -> Tensor:
        """Pixels [1, 3, ?, ?] of one image of a list."""
        if isinstance(image, Tensor):
            return image[None]
        picture = read_image(image)
        side = self.resolution
        if side is None:
            return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        if self.as_they_are and picture.size != (side, side):
            width, height = picture.size
            name = image if isinstance(image, str | os.PathLike) else "the image"
            raise UserError(
                f"{name} is {width}x{height}, and this marker marks {side}x{side} only: resize it "
                "first"
            )
        return to_tensor([picture], side)

    def _pixels(self, images: Tensor) -> Tensor:
        """float [b, 3, R, R] of uint8 pixels of any size, or of floats."""
        if images.dtype != torch.uint8:
            return images.float()
        side = self.resolution
        if side is not None and images.shape[-2:] != (side, side):
            images = to_tensor(to_pil(images), side)
        return to_float(images)
