"""What every release can do, whatever else is in it: read fingerprints from images."""

import copy
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from scalefp.attribution.evidence import Reading
from scalefp.networks.decoder import Decoder
from scalefp.networks.layers import fold_gains_
from scalefp.release.alignment import read
from scalefp.release.inputs import Images, Pictures
from scalefp.release.matched import MatchedFilter
from scalefp.release.readable import unreadable

N = TypeVar("N", bound=nn.Module)


class Sizes(Protocol):
    """What reading asks of the sizes in a release."""

    @property
    def resolution(self) -> int: ...

    @property
    def n_bits(self) -> int: ...


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

    def __init__(self, decoder: Decoder | None, *, training: dict[str, Any], digest: str) -> None:
        if decoder is not None:  # one that reads without has its own decode()
            self.decoder = decoder.requires_grad_(False).eval()
        self.training = training
        self.digest = digest

    @cached_property
    def _reader(self) -> Decoder:
        return ready(self.decoder)

    @cached_property
    def _filter(self) -> MatchedFilter:
        return MatchedFilter(self._reader)

    @property
    def searches(self) -> bool:
        """Whether :meth:`decode` can try crops and turns (a decoder without localizer cannot)."""
        return self.decoder.localizer is not None

    @property
    def unreadable(self) -> str | None:
        """Why its images will be attributed to nobody, in a sentence; None if they may well be.

        Known from what the release's file says of its training; earlier releases say nothing.
        """
        return unreadable(self.training, self.config.n_bits)

    @torch.inference_mode()
    def decode(
        self, images: Images, *, batch_size: int = 32, search: bool = True, progress: bool = True
    ) -> Reading:
        """Read the fingerprint of images.

        What does not read clearly is tried as a crop, turned or mirrored, which costs as much as
        seven to thirty images that do (see alignment.py).

        Args:
            images: one image or any number of them: paths and PIL images of any size and mode,
                which are centre-cropped to a square and resized; 8-bit arrays and tensors [3, H, W]
                or [H, W, 3], or a batch of them, likewise; or floats in [-1, 1] at the release's
                resolution.
            batch_size: images decoded at a time.
            search: try crops, turns and mirroring on what is unclear; else all are read as they
                are.
            progress: show a bar on standard error if it takes long.

        Returns:
            Reading of b images; take ``reading[i]`` for the i-th alone.

        Raises:
            UserError: no image, one that cannot be read, or floats of another range.
        """
        pictures = Pictures(images, self.config.resolution)
        device = self._reader.output.weight.device
        logits = []
        total, hidden = len(pictures), not progress
        with tqdm(
            total=total, unit="img", desc="decode", delay=2, leave=False, disable=hidden
        ) as bar:
            for pixels in pictures.batches(batch_size):
                pixels = pixels.to(device)
                found = (
                    read(self._reader, pixels, self._filter) if search else self._reader(pixels)[0]
                )
                logits.append(found.double().cpu().numpy())
                bar.update(len(pixels))
        return Reading(logits=np.concatenate(logits), model_digest=self.digest)
