"""The marker in memory: encoder and decoder of one training, as their owner uses them."""

import dataclasses
import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scalefp.artificial.config import MarkConfig
from scalefp.artificial.encoder import Encoder, mark
from scalefp.data.images import to_uint8
from scalefp.errors import UserError
from scalefp.key import Key, check_fits
from scalefp.networks.decoder import Decoder
from scalefp.release.container import save_tensors
from scalefp.release.header import fill_networks, load_release_header
from scalefp.release.inputs import Images, Pictures
from scalefp.release.reader import Reader, ready

# Below the first a mark is a picture of its own, above the second it drowns in the rounding to 8
# bits, which alone costs 59 dB.
STRONGEST, WEAKEST = 15.0, 55.0  # in dB
BATCH = 32  # images marked at a time


class Marker(Reader):
    """A release that marks images and reads the marks: the secret encoder and decoder.

    What marks and what reads is prepared from the networks on first use: a change of their
    weights afterwards goes unseen. Attributes as of :class:`scalefp.release.reader.Reader`.
    """

    config: MarkConfig

    def __init__(
        self,
        config: MarkConfig,
        encoder: Encoder,
        decoder: Decoder,
        *,
        training: dict[str, Any],
        digest: str,
    ) -> None:
        super().__init__(decoder, training=training, digest=digest)
        self.config = config
        self.encoder = encoder.requires_grad_(False).eval()

    @cached_property
    def _writer(self) -> Encoder:
        return ready(self.encoder)

    def check_psnr(self, psnr: float | None) -> None:
        """Raise UserError unless images can be marked at this strength; None always can."""
        if psnr is None:
            return
        if self.config.psnr is None:
            raise UserError(
                "this marker was trained without a fixed strength of the mark: leave psnr out"
            )
        if not STRONGEST <= psnr <= WEAKEST:
            raise UserError(
                f"a mark is made at {STRONGEST:g} to {WEAKEST:g} dB, not at {psnr:g}; "
                f"this marker was trained at {self.config.psnr:g}"
            )

    @torch.inference_mode()
    def mark(
        self, images: Images, key: Key | Tensor | NDArray[Any], *, psnr: float | None = None
    ) -> Tensor:
        """Write a key into images.

        Args:
            images: at the marker's resolution, as for :meth:`decode`: paths, PIL images, 8-bit
                arrays and tensors, or floats in [-1, 1].
            key: of all images, or bits in {0, 1}: of one key [n], or of one for each image [b, n].
            psnr: strength of the mark in dB, before what leaves [0, 255] is clipped; None takes
                the one trained for.

        Returns:
            The marked images, uint8 [b, 3, R, R], on the encoder's device.

        Raises:
            UserError: other shapes, types or ranges, or a strength that cannot be.
        """
        self.check_psnr(psnr)
        pictures = Pictures(images, self.config.resolution, as_they_are=True)
        device = self._writer.output.weight.device
        every = self._bits(key, len(pictures)).to(device).split(BATCH)
        marked = []
        for pixels, bits in zip(pictures.batches(BATCH), every, strict=True):
            pixels = pixels.to(device)
            residual = self._writer(pixels, bits, psnr=psnr)
            marked.append(to_uint8(mark(pixels, residual)))
        return torch.cat(marked)

    def _bits(self, key: Key | Tensor | NDArray[Any], count: int) -> Tensor:
        """Bits [count, n] of the key, or keys, of so many images."""
        bits = torch.as_tensor(key.bits if isinstance(key, Key) else key)
        n_bits = self.config.n_bits
        if isinstance(key, Key):
            check_fits(key, n_bits)
        if bits.shape not in ((n_bits,), (count, n_bits)):
            raise UserError(
                f"the bits must have shape [{n_bits}] or [{count}, {n_bits}], "
                f"not {list(bits.shape)}"
            )
        if not ((bits == 0) | (bits == 1)).all():
            raise UserError("the bits of a key are 0 and 1; these hold other values")
        return bits.expand(count, -1)


def save_marker(
    path: str | Path,
    config: MarkConfig,
    encoder: Encoder,
    decoder: Decoder,
    *,
    training: dict[str, Any],
) -> None:
    """Write a marker's file: both networks, sizes and a note on the training. Atomic.

    Weights are kept in half precision, and computed with in single: a file of half the size whose
    readings are the same but for rounding.
    """
    networks = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    header = {"model": dataclasses.asdict(config), "training": training}
    save_tensors(path, "marker", networks.state_dict(), header, half=True)


def read_marker(path: Path) -> Marker:
    """Read a file of :func:`save_marker`.

    Raises:
        UserError: missing, damaged, or of another kind.
    """
    config, training = load_release_header(path, "marker", MarkConfig)
    with torch.device("meta"):  # no memory before the file is known to fit
        encoder, decoder = Encoder(config), Decoder(config)
    fill_networks(path, {"encoder": encoder, "decoder": decoder})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Marker(config, encoder, decoder, training=training, digest=digest)
