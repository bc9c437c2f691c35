"""The release in memory: generator and decoder of one training, as their owner uses them."""

import copy
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.alignment import read
from scalefp.attribution import Reading
from scalefp.checkpoint import load_strictly, load_tensors, save_tensors
from scalefp.config import ModelConfig
from scalefp.decoder import Decoder
from scalefp.errors import UserError
from scalefp.export import Ports, export
from scalefp.folding import Folding
from scalefp.generator import Generator
from scalefp.images import read_image, to_float, to_tensor
from scalefp.instantiate import Instance
from scalefp.key import Key
from scalefp.layers import fold_gains_

BUNDLED = Path(__file__).parent / "assets"
Images = Tensor | Image.Image | str | os.PathLike[str] | Sequence[Any]


class Model:
    """A release: the secret generator and decoder, and where they come from.

    What instantiates and what decodes is prepared from the networks on first use: a change of
    their weights afterwards goes unseen.

    Attributes:
        config: sizes.
        training: what the release file says of its training (images seen, seed, options).
        digest: SHA-256 of the release file, 64 hex digits; registries are bound to it.
    """

    def __init__(
        self,
        config: ModelConfig,
        generator: Generator,
        decoder: Decoder,
        *,
        training: dict[str, Any],
        digest: str,
    ) -> None:
        self.config = config
        self.generator = generator.requires_grad_(False).eval()
        self.decoder = decoder.requires_grad_(False).eval()
        self.training = training
        self.digest = digest

    @cached_property
    def _folding(self) -> Folding:
        return Folding(self.generator)

    @cached_property
    def _reader(self) -> Decoder:
        with torch.inference_mode(False):  # whoever asks first; it may be exported later
            reader = copy.deepcopy(self.decoder)
            fold_gains_(reader)
        return reader

    def instantiate(self, key: Key) -> Instance:
        """The recipient's network for ``key``; see :func:`scalefp.instantiate.instantiate`."""
        return self._folding(key)

    def instantiate_many(self, keys: Iterable[Key]) -> Iterator[Instance]:
        """The instances of ``keys`` in their order, each made when it is asked for."""
        return map(self.instantiate, keys)

    def export_decoder(self, path: str | Path, *, format: str) -> None:
        """Write the decoder for other runtimes: ``onnx`` or ``pt2`` (``torch.export``).

        Both take ``images`` [b, 3, R, R] in [-1, 1] of any batch size and give ``logits`` [b, n]
        and ``latents`` [b, dz]. The file is as secret as the release.

        Raises:
            UserError: unknown format, or the packages for ONNX are not installed.
        """
        size = self.config.resolution
        ports = Ports("images", ["logits", "latents"], torch.zeros(2, 3, size, size))
        export(self._reader, ports, path, format=format)

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
                centre-cropped to a square and resized), or a tensor [b, 3, R, R] at the model's
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
        if isinstance(images, Tensor) and images.shape[1:] != (3, resolution, resolution):
            raise UserError(
                f"a tensor of images must have shape [b, 3, {resolution}, {resolution}], "
                f"not {list(images.shape)}"
            )
        if isinstance(images, Tensor) and not (
            images.is_floating_point() or images.dtype == torch.uint8
        ):
            raise UserError(f"a tensor of images must be uint8 or floating, not {images.dtype}")
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


def save_release(
    path: str | Path,
    config: ModelConfig,
    generator: Generator,
    decoder: Decoder,
    *,
    training: dict[str, Any],
) -> None:
    """Write a release file: both networks, sizes and a note on the training. Atomic."""
    tensors = {f"generator.{name}": tensor for name, tensor in generator.state_dict().items()}
    tensors |= {f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()}
    header = {"model": dataclasses.asdict(config), "training": training}
    save_tensors(path, "release", tensors, header)


def load(name_or_path: str | Path) -> Model:
    """Load a release: a bundled name (``emoji``) or the path of a release file.

    Raises:
        UserError: neither, or the file is damaged or of another kind.
    """
    path = Path(name_or_path)
    bundled = sorted(file.stem for file in BUNDLED.glob("*.safetensors"))
    if str(name_or_path) in bundled:
        path = BUNDLED / f"{name_or_path}.safetensors"
    elif not path.is_file():
        raise UserError(
            f"There is no release {str(name_or_path)!r}: give the path of a release file "
            f"or a bundled name ({', '.join(bundled) or 'none is bundled'})."
        )
    tensors, header = load_tensors(path, "release")
    try:
        config = ModelConfig(**header["model"])
        config.check()
        training = header["training"]
    except (TypeError, KeyError) as error:
        raise UserError(f"{path} is not a whole release: its header is damaged.") from error
    generator, decoder = Generator(config), Decoder(config)
    load_strictly(nn.ModuleDict({"generator": generator, "decoder": decoder}), tensors, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Model(config, generator, decoder, training=training, digest=digest)
