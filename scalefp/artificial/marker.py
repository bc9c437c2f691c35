"""The marker in memory: encoder and decoder of one training, as their owner uses them."""

import dataclasses
import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scalefp.artificial.config import MarkConfig
from scalefp.artificial.encoder import Encoder, mark
from scalefp.data.images import to_float, to_uint8
from scalefp.errors import UserError
from scalefp.networks.decoder import Decoder
from scalefp.release.container import save_tensors
from scalefp.release.header import fill_networks, load_release_header
from scalefp.release.reader import Reader, check_pixels, ready

# Below the first a mark is a picture of its own, above the second it drowns in the rounding to 8
# bits, which alone costs 59 dB.
MIN_PSNR, MAX_PSNR = 15.0, 55.0
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
        if not self.config.psnr:
            raise UserError(
                "this marker was trained without a fixed strength of the mark: leave psnr out"
            )
        if not MIN_PSNR <= psnr <= MAX_PSNR:
            raise UserError(
                f"a mark is made at {MIN_PSNR:g} to {MAX_PSNR:g} dB, not at {psnr:g}; "
                f"this marker was trained at {self.config.psnr:g}"
            )

    @torch.inference_mode()
    def mark(self, images: Tensor, bits: Tensor, *, psnr: float | None = None) -> Tensor:
        """Write a key into images.

        Args:
            images: [b, 3, R, R] at the marker's resolution, uint8 or float in [-1, 1].
            bits: of one key for all [n], or one for each [b, n]; in {0, 1}.
            psnr: strength of the mark in dB, before what leaves [0, 255] is clipped; None takes
                the one trained for.

        Returns:
            The marked images, uint8 [b, 3, R, R], on the encoder's device.

        Raises:
            UserError: other shapes or types, or a strength that cannot be.
        """
        check_pixels(images, self.config.resolution)
        self.check_psnr(psnr)
        n_bits = self.config.n_bits
        if bits.shape not in ((n_bits,), (len(images), n_bits)):
            raise UserError(
                f"the bits must have shape [{n_bits}] or [{len(images)}, {n_bits}], "
                f"not {list(bits.shape)}"
            )
        device = self._writer.output.weight.device
        every = bits.expand(len(images), -1)
        marked = []
        for part, keys in zip(images.split(BATCH), every.split(BATCH), strict=True):
            pixels = (to_float(part) if part.dtype == torch.uint8 else part.float()).to(device)
            residual = self._writer(pixels, keys.to(device), psnr=psnr)
            marked.append(to_uint8(mark(pixels, residual)))
        return torch.cat(marked)


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
    tensors = {name: tensor.half() for name, tensor in networks.state_dict().items()}
    header = {"model": dataclasses.asdict(config), "training": training}
    save_tensors(path, "marker", tensors, header)


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
