"""The release in memory: generator and decoder of one training, as their owner uses them."""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scalefp.config import ModelConfig
from scalefp.key import Key
from scalefp.networks.decoder import Decoder
from scalefp.networks.generator import Generator
from scalefp.release.binding import Binding, BindingSizes, keyed_weight
from scalefp.release.container import load_header, save_tensors
from scalefp.release.export import Ports, export
from scalefp.release.folding import Folding
from scalefp.release.header import fill_networks, load_release_header, read_sizes
from scalefp.release.instance import Instance, sizes_of, tensor_shapes
from scalefp.release.reader import Reader


class Model(Reader):
    """A release: the secret generator and decoder, and where they come from.

    What instantiates and what decodes is prepared from the networks on first use: a change of
    their weights afterwards goes unseen. Attributes as of :class:`scalefp.release.reader.Reader`.

    Attributes:
        binding: the bound bits that instances carry beside the key, for lift checks; or None.
    """

    config: ModelConfig

    def __init__(
        self,
        config: ModelConfig,
        generator: Generator,
        decoder: Decoder,
        *,
        training: dict[str, Any],
        digest: str,
        binding: Binding | None = None,
    ) -> None:
        super().__init__(decoder, training=training, digest=digest)
        self.config, self.binding = config, binding
        self.generator = generator.requires_grad_(False).eval()

    @cached_property
    def folding(self) -> Folding:
        """What makes instances, prepared on first use."""
        return Folding(self.generator, self.binding)

    def instantiate(self, key: Key) -> Instance:
        """The recipient's network for ``key``; see :func:`scalefp.release.instance.instantiate`."""
        instance = self.folding(key)
        instance.release_digest = self.digest
        return instance

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
        about = {
            "kind": "decoder",
            "input": {
                "name": "images", "shape": ["batch", 3, size, size], "type": "float32",
                "range": [-1, 1], "colours": "RGB",
            },
            "output": [
                {"name": "logits", "shape": ["batch", self.config.n_bits], "one": "above 0"},
                {"name": "latents", "shape": ["batch", self.config.latent_dim]},
            ],
            "release_digest": self.digest,
        }  # fmt: skip
        ports = Ports("images", ["logits", "latents"], torch.zeros(2, 3, size, size), about)
        export(self._reader, ports, path, format=format, secret=True)


def save_release(
    path: str | Path,
    config: ModelConfig,
    generator: Generator,
    decoder: Decoder,
    *,
    training: dict[str, Any],
    binding: Binding | None = None,
) -> None:
    """Write a release file: both networks, sizes, a note on the training, bound bits. Atomic.

    Weights are kept in half precision, and computed with in single: a file of half the size whose
    images and readings are the same but for rounding.
    """
    networks = nn.ModuleDict({"generator": generator, "decoder": decoder})
    header = {"model": dataclasses.asdict(config), "training": training}
    if binding is not None:
        networks["binding"] = binding
        header["binding"] = dataclasses.asdict(binding.sizes)
    save_tensors(path, "release", networks.state_dict(), header, half=True)


def read_release(path: Path) -> Model:
    """Read a file of :func:`save_release`.

    Raises:
        UserError: missing, damaged, or of another kind.
    """
    config, training = load_release_header(path, "release", ModelConfig)
    with torch.device("meta"):  # no memory before the file is known to fit
        generator, decoder = Generator(config), Decoder(config)
        binding = _read_binding(path, generator)
    networks: dict[str, nn.Module] = {"generator": generator, "decoder": decoder}
    fill_networks(path, networks if binding is None else networks | {"binding": binding})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Model(config, generator, decoder, training=training, digest=digest, binding=binding)


def _read_binding(path: Path, generator: Generator) -> Binding | None:
    """The bound bits that a release's header names, without their weights; most have none."""
    about = load_header(path, "release").get("binding")
    if about is None:
        return None
    sizes = read_sizes(about, BindingSizes, path)
    return Binding(sizes, keyed_weight(sizes.layer, tensor_shapes(sizes_of(generator))))
