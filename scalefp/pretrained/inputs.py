"""What feeds a generator in training and sampling: any class with ``draw``."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from scalefp.data.images import to_float
from scalefp.data.source import Source, resolve_source
from scalefp.errors import UserError
from scalefp.files import printable
from scalefp.pretrained.encoder import PictureEncoder
from scalefp.pretrained.source import digest_of, weights_path

KEPT = 2**30  # bytes of pixels of pictures that are not decoded again
MOST_NAMED = 10  # pictures that are left out, in the log

_log = logging.getLogger(__name__)


class Inputs(Protocol):
    """What ``inputs._target_`` must offer."""

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        """``count`` inputs [count, ...] of the generator, drawn from ``source`` alone."""


class Normal:
    """Latents drawn from the standard normal distribution.

    Args:
        shape: of one latent, without the batch.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        return torch.randn(count, *self.shape, generator=source)


class Uniform:
    """Latents drawn evenly from a range.

    Args:
        shape: of one latent, without the batch.
        low, high: ends of the range.
    """

    def __init__(self, shape: Sequence[int], low: float = -1.0, high: float = 1.0) -> None:
        self.shape, self.low, self.high = tuple(shape), low, high

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        return torch.rand(count, *self.shape, generator=source) * (self.high - self.low) + self.low


ENCODED, OWNERS = "scalefp.pretrained.inputs.Encoded", ("images", "crop")


def known_inputs(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of what feeds a generator, with the digest of an encoder's weights."""
    if options["_target_"] != ENCODED:
        return dict(options)
    path = weights_path(str(options["encoder"]["weights"]), "inputs.encoder")
    return {**options, "digest": digest_of(path)}


def handed_out(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of the options of what feeds a generator, those that its recipients need.

    Of an encoder of pictures not the pictures, and of a path from the root the file's name alone:
    the names of folders on its owner's machine are no business of a recipient.
    """
    if options["_target_"] != ENCODED:
        return dict(options)
    encoder = dict(options["encoder"])
    if Path(str(encoder["weights"])).is_absolute():
        encoder["weights"] = Path(encoder["weights"]).name
    return {n: v for n, v in options.items() if n not in OWNERS} | {"encoder": encoder}


class Encoded(nn.Module):
    """Random crops of pictures, encoded. Moved to a device, it encodes there.

    Pictures that cannot be read or are smaller than the crop are left out, with a line in the log.

    Args:
        images: folder or zip of pictures, or a bundled name.
        crop: side of the crops in pixels.
        encoder: class, ``weights`` and arguments of the encoder, as those of a generator.
        method, range, digest: as of :class:`scalefp.pretrained.encoder.PictureEncoder`.
    """

    def __init__(
        self,
        images: str,
        crop: int,
        encoder: Mapping[str, Any],
        method: str = "forward",
        range: Sequence[float] = (-1.0, 1.0),
        digest: str | None = None,
    ) -> None:
        super().__init__()
        if type(crop) is not int or crop < 1:
            raise UserError(f"inputs.crop must be a side in pixels, not {crop!r}")
        self.encoder = PictureEncoder(encoder, method=method, range=range, digest=digest)
        self.crop, self.pictures = crop, Source(resolve_source(images))
        self._kept: dict[int, np.ndarray] = {}
        self._room = KEPT  # bytes left for more of them
        self._left_out: set[int] = set()

    def _read(self, index: int) -> np.ndarray | None:
        """Pixels uint8 [H, W, 3] of a picture; None of one that is of no use."""
        if index in self._kept or index in self._left_out:
            return self._kept.get(index)
        name = self.pictures.names[index]
        try:
            pixels = np.array(self.pictures.read(index))
            if min(pixels.shape[:2]) < self.crop:
                height, width = pixels.shape[:2]
                raise UserError(f"{name} is {width}x{height}, smaller than {self.crop}")
        except UserError as error:
            self._left_out.add(index)
            if len(self._left_out) <= MOST_NAMED:
                _log.warning("left out: %s", printable(error))
            return None
        if pixels.nbytes <= self._room:
            self._kept[index] = pixels
            self._room -= pixels.nbytes
        return pixels

    def crops(self, count: int, source: torch.Generator) -> Tensor:
        """Crops uint8 [count, 3, S, S], each of a picture and at a place drawn from ``source``.

        Raises:
            UserError: no picture is of use.
        """

        def below(limit: int) -> int:
            return int(torch.randint(limit, (), generator=source))

        found: list[np.ndarray] = []
        while len(found) < count:
            if len(self._left_out) == len(self.pictures.names):
                raise UserError(
                    f"{self.pictures.path} holds no picture of at least {self.crop}x{self.crop}: "
                    "give other inputs.images, or smaller inputs.crop and model.resolution"
                )
            pixels = self._read(below(len(self.pictures.names)))
            if pixels is not None:
                top, left = (below(side - self.crop + 1) for side in pixels.shape[:2])
                found.append(pixels[top : top + self.crop, left : left + self.crop])
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        device = next(self.encoder.parameters(), torch.empty(0)).device
        latents: Tensor = self.encoder(to_float(self.crops(count, source)).to(device))
        return latents
