"""Generator + key -> instance: a plain network for one recipient.

With a fixed key every modulated weight is a constant, so an instance is exactly a plain
convolutional network. It holds no embedding, no modulation and no key; its recipient cannot give
it another one. Gains of the equalized layers and of the activations are folded in as well.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.data.images import to_uint8
from scalefp.errors import UserError
from scalefp.key import Key, check_fits
from scalefp.networks.generator import Generator, block_resolutions, channels_at, map_resolutions
from scalefp.networks.layers import (
    ACTIVATION_SLOPE,
    ModulatedConv2d,
    normalize_2nd_moment,
    upsample,
)
from scalefp.options import RESOLUTIONS, WIDEST, check_between, check_one_of
from scalefp.release.container import INSTANCE, load_header, load_weights, save_tensors
from scalefp.release.export import Ports, export
from scalefp.release.header import read_sizes


@dataclasses.dataclass(frozen=True)
class InstanceConfig:
    """Sizes of an instance, all that its file says besides the weights."""

    resolution: int
    latent_dim: int
    channels: tuple[int, ...]  # feature channels at 4x4, 8x8, ..., resolution
    maps: tuple[int, ...]  # resolutions at which constant maps are added

    def check(self) -> None:
        """Raise :class:`UserError` unless they are sizes that a generator's instances have."""
        check_one_of("resolution", self.resolution, RESOLUTIONS)
        check_between("latent_dim", self.latent_dim, 1, WIDEST)
        blocks = [4 * 2**i for i in range(len(self.channels))]
        if not blocks or blocks[-1] != self.resolution:
            raise UserError(
                f"{len(self.channels)} entries of channels do not lead from 4 to the resolution "
                f"{self.resolution}"
            )
        for channels in self.channels:
            check_between("channels", channels, 1, WIDEST)
        if list(self.maps) != [size for size in blocks if size in self.maps]:
            raise UserError(f"maps {list(self.maps)} are not resolutions from 4 to the image's")


def tensor_shapes(config: InstanceConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of an instance."""
    width = config.channels[0] * 16
    shapes: dict[str, tuple[int, ...]] = {
        "input_weight": (width, config.latent_dim),
        "input_bias": (width,),
    }
    previous = None
    for i, channels in enumerate(config.channels):
        size = 4 * 2**i
        convs = {"conv": (channels, size)}
        if previous is not None:
            convs = {"before": (previous, size // 2), **convs}
        for name, (inputs, where) in convs.items():
            shapes[f"block{i}_{name}_weight"] = (channels, inputs, 3, 3)
            shapes[f"block{i}_{name}_bias"] = (channels,)
            if where in config.maps:
                shapes[f"block{i}_{name}_offset"] = (1, inputs, where, where)
        shapes[f"block{i}_to_rgb_weight"] = (3, channels, 1, 1)
        shapes[f"block{i}_to_rgb_bias"] = (3,)
        previous = channels
    return shapes


def channels_last(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, those of convolutions laid out as convolutions on CPUs want them."""
    return {
        name: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in tensors.items()
    }


class Instance(nn.Module):
    """A recipient's generator: ``instance(z [b, dz]) -> images [b, 3, R, R]``, nominally [-1, 1].

    One module without others inside, since making modules took longer than folding a key in.
    Load one with :func:`load_instance`; make one with ``model.instantiate(key)``.
    """

    input_weight: nn.Parameter
    input_bias: nn.Parameter
    release_digest: str | None = None  # of the release that made it; not in its own file

    def __init__(self, config: InstanceConfig, tensors: Mapping[str, Tensor]) -> None:
        """A network around ``tensors``, which :func:`tensor_shapes` lists."""
        super().__init__()
        self.config = config
        for name, tensor in tensors.items():
            # Not by register_parameter, whose checks take longer than all the rest.
            self._parameters[name] = nn.Parameter(tensor, requires_grad=False)
        self.eval()

    def check_latents(self, z: Tensor) -> None:
        """Raise UserError unless latents have the shape and type that the network takes."""
        if (
            z.ndim != 2
            or z.shape[1] != self.config.latent_dim
            or z.dtype != self.input_weight.dtype
        ):
            raise UserError(
                f"latents must have shape [b, {self.config.latent_dim}] and type "
                f"{self.input_weight.dtype}, not {list(z.shape)} and {z.dtype}: draw them by "
                f"torch.randn(b, {self.config.latent_dim})"
            )

    def forward(self, z: Tensor) -> Tensor:
        self.check_latents(z)
        x = self._enter(normalize_2nd_moment(z))
        x = F.leaky_relu_(x, ACTIVATION_SLOPE).unflatten(1, (-1, 4, 4))
        x = x.contiguous(memory_format=torch.channels_last)
        rgb = None
        for i in range(len(self.config.channels)):
            if i > 0:
                x = upsample(F.leaky_relu_(self._convolve(x, f"block{i}_before"), ACTIVATION_SLOPE))
            x = F.leaky_relu_(self._convolve(x, f"block{i}_conv"), ACTIVATION_SLOPE)
            skip = self._convolve(x, f"block{i}_to_rgb")
            rgb = skip if rgb is None else self._add(upsample(rgb), skip)
        assert rgb is not None
        return rgb

    def _convolve(self, x: Tensor, name: str) -> Tensor:
        """One layer; an offset, where the layer has one, is added to its input."""
        offset = self._parameters.get(f"{name}_offset")
        return self._apply_layer(x if offset is None else x + offset, name)

    def _add(self, rgb: Tensor, skip: Tensor) -> Tensor:
        return rgb + skip

    def _enter(self, z: Tensor) -> Tensor:
        return F.linear(z, self.input_weight, self.input_bias)

    def _apply_layer(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._parameters[f"{name}_weight"], self._parameters[f"{name}_bias"]
        assert weight is not None
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    @torch.inference_mode()
    def stream(self, n: int, *, seed: int = 0, batch_size: int = 32) -> Iterator[Tensor]:
        """The images of :meth:`sample` as batches [<= batch_size, 3, R, R], one at a time."""
        generator = torch.Generator().manual_seed(seed)
        device = self.input_weight.device
        with tqdm(total=n, unit="img", desc="sample", delay=2, leave=False) as progress:
            for start in range(0, n, batch_size):
                count = min(batch_size, n - start)
                z = torch.stack(
                    [torch.randn(self.config.latent_dim, generator=generator) for _ in range(count)]
                )
                yield self(z.to(device)).clamp(-1, 1).cpu()
                progress.update(count)

    def sample(self, n: int, *, seed: int = 0, batch_size: int = 32) -> Tensor:
        """Images of ``n`` latents drawn from ``seed``, [n, 3, R, R] in [-1, 1].

        The i-th image depends on the seed and i alone, not on ``n`` or ``batch_size``.
        """
        batches = list(self.stream(n, seed=seed, batch_size=batch_size))
        if not batches:
            return torch.empty(0, 3, self.config.resolution, self.config.resolution)
        return torch.cat(batches)

    def save(self, path: str | Path, *, half: bool = False) -> None:
        """Write one safetensors file: the weights, and the sizes in its header. Atomic.

        Args:
            half: in half precision, which takes half the space.
        """
        header = dataclasses.asdict(self.config)
        save_tensors(path, INSTANCE, self.state_dict(), header, half=half)

    def export(self, path: str | Path, *, format: str, uint8: bool = False) -> None:
        """Write the instance for other runtimes: ``onnx`` or ``pt2`` (``torch.export``).

        Both take latents [b, dz] of any batch size, named ``z``, and give ``images`` [b, 3, R, R].
        The file says so itself (see export.py), and of which release it is an instance.

        Args:
            uint8: give the 8-bit pixels that a file would hold; else floats, nominally [-1, 1],
                to be clamped to that.

        Raises:
            UserError: unknown format, or the packages for ONNX are not installed.
        """
        side = self.config.resolution
        images: dict[str, Any] = {
            "name": "images",
            "shape": ["batch", 3, side, side],
            "colours": "RGB",
        }
        if uint8:
            images |= {"type": "uint8", "range": [0, 255], "clamp": False}
        else:
            images |= {"type": "float32", "range": [-1, 1], "clamp": True}
        z = {"name": "z", "shape": ["batch", self.config.latent_dim], "type": "float32"}
        about = {
            "kind": INSTANCE,
            "input": {**z, "distribution": "standard normal"},
            "output": images,
            "release_digest": self.release_digest,
        }
        ports = Ports("z", ["images"], torch.zeros(2, self.config.latent_dim), about)
        export(_EightBit(self) if uint8 else self, ports, path, format=format)


class _EightBit(nn.Module):
    """An instance that gives pixels as a file holds them."""

    def __init__(self, instance: Instance) -> None:
        super().__init__()
        self.instance = instance

    def forward(self, z: Tensor) -> Tensor:
        return to_uint8(self.instance(z))


def sizes_of(generator: Generator) -> InstanceConfig:
    """Sizes of the instances of a generator."""
    config = generator.config
    return InstanceConfig(
        resolution=config.resolution,
        latent_dim=config.latent_dim,
        channels=tuple(channels_at(config, r) for r in block_resolutions(config)),
        maps=tuple(map_resolutions(config)),
    )


def modulated_layers(generator: Generator) -> dict[str, ModulatedConv2d]:
    """The layers that a key is folded into, by the names that they have in an instance."""
    return {
        f"block{i}_{name}": layer
        for i, block in enumerate(generator.blocks)
        for name, layer in block.named_children()
        if isinstance(layer, ModulatedConv2d)
    }


def folded_tensors(generator: Generator, embedding: Tensor) -> dict[str, Tensor]:
    """Tensors of the instance of one key embedding [1, e]; gradients pass through."""
    weight, bias = generator.input.folded()
    assert bias is not None
    tensors = {"input_weight": weight, "input_bias": bias}
    for name, layer in modulated_layers(generator).items():
        weight, bias, offset = layer.folded(embedding)
        tensors |= {f"{name}_weight": weight, f"{name}_bias": bias}
        if offset is not None:
            tensors[f"{name}_offset"] = offset
    return channels_last(tensors)


@torch.no_grad()
def instantiate(generator: Generator, key: Key) -> Instance:
    """Fold ``key`` into the weights of ``generator``.

    The result equals ``generator(z, key.bits)`` to rounding. This is the specification, layer by
    layer; :class:`scalefp.release.folding.Folding` does the same faster.

    Raises:
        UserError: the key's length is not the generator's.
    """
    check_fits(key, generator.config.n_bits)
    bits = torch.from_numpy(key.bits)[None].to(generator.input.weight.device)
    return Instance(sizes_of(generator), folded_tensors(generator, generator.embedding(bits)))


def load_instance(path: str | Path) -> Instance:
    """Read a file of :meth:`Instance.save`.

    Raises:
        UserError: missing, truncated, foreign, or not an instance.
    """
    config = read_sizes(load_header(path, INSTANCE), InstanceConfig, path)
    return Instance(config, channels_last(load_weights(path, tensor_shapes(config))))
