"""What every release can do, whatever else is in it: read fingerprints from images."""

import copy
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.attribution.evidence import Reading
from scalefp.data.images import read_image, to_float, to_tensor
from scalefp.errors import UserError
from scalefp.networks.decoder import Decoder
from scalefp.networks.layers import fold_gains_
from scalefp.release.alignment import read

Images = Tensor | Image.Image | str | os.PathLike[str] | Sequence[Any]
N = TypeVar("N", bound=nn.Module)


class Sizes(Protocol):
    """What reading asks of the sizes in a release."""

    @property
    def resolution(self) -> int: ...

    @property
    def n_bits(self) -> int: ...


def check_pixels(images: Tensor, resolution: int) -> None:
    """Raise UserError unless a tensor is uint8 or floating, [b, 3, R, R] at this resolution."""
    if images.shape[1:] != (3, resolution, resolution):
        raise UserError(
            f"a tensor of images must have shape [b, 3, {resolution}, {resolution}], "
            f"not {list(images.shape)}"
        )
    if not (images.is_floating_point() or images.dtype == torch.uint8):
        raise UserError(f"a tensor of images must be uint8 or floating, not {images.dtype}")


def ready(network: N) -> N:
    """A copy for use, which computes faster: what only matters in training is folded away."""
    with torch.inference_mode(False):  # whoever asks first; it may be exported later
        network = copy.deepcopy(network)
        fold_gains_(network)
    return network


class Reader:
    """A release as far as it reads images; what else it does is up to its kind.

    The decoder is prepared for reading on first use: a change of its weights afterwards goes
    unseen.

    Attributes:
        config: sizes.
        decoder: reads the key from images; secret.
        training: what the release file says of its training (images seen, seed, options).
        digest: SHA-256 of the release file, 64 hex digits; registries are bound to it.
    """

    config: Sizes

    def __init__(self, decoder: Decoder, *, training: dict[str, Any], digest: str) -> None:
        self.decoder = decoder.requires_grad_(False).eval()
        self.training = training
        self.digest = digest

    @cached_property
    def _reader(self) -> Decoder:
        return ready(self.decoder)

    @property
    def searches(self) -> bool:
        """Whether :meth:`decode` can try crops and turns (a decoder without localizer cannot)."""
        return self.decoder.localizer is not None

    @torch.inference_mode()
    def decode(self, images: Images, *, batch_size: int = 32, search: bool = True) -> Reading:
        """Read the fingerprint of images.

        What does not read clearly is tried as a crop, turned or mirrored (see alignment.py), which
        takes the time of about a hundred images.

        Args:
            images: one picture or a sequence of them (PIL images or paths; any size and mode:
                centre-cropped to a square and resized), or a tensor [b, 3, R, R] at the release's
                resolution, float in [-1, 1] or uint8.
            batch_size: images decoded at a time.
            search: try crops, turns and mirroring on what is unclear; else all are read as they
                are.

        Returns:
            Reading of b images; take ``reading[i]`` for the i-th alone.

        Raises:
            UserError: no image, or one that cannot be read.
        """
        resolution = self.config.resolution
        if isinstance(images, Tensor):
            check_pixels(images, resolution)
        if isinstance(images, str | os.PathLike | Image.Image):
            images = [images]
        if len(images) == 0:
            raise UserError("there is no image to decode; give at least one")
        device = self._reader.output.weight.device
        logits = []
        with tqdm(total=len(images), unit="img", desc="decode", delay=2, leave=False) as progress:
            for start in range(0, len(images), batch_size):
                batch = images[start : start + batch_size]
                if isinstance(batch, Tensor):
                    pixels = batch
                else:
                    pixels = to_tensor([read_image(source) for source in batch], resolution)
                if pixels.dtype == torch.uint8:
                    pixels = to_float(pixels)
                pixels = pixels.float().to(device)
                found = read(self._reader, pixels) if search else self._reader(pixels)[0]
                logits.append(found.double().cpu().numpy())
                progress.update(len(batch))
        return Reading(logits=np.concatenate(logits), model_digest=self.digest)
