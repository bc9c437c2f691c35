"""Generator + key -> instance: a plain network for one recipient.

With a fixed key every modulated weight is a constant, so an instance is exactly a plain
convolutional network. It holds no embedding, no modulation and no key; its recipient cannot give
it another one. Gains of the equalized layers and of the activations are folded in as well.
"""

import dataclasses
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.checkpoint import check_strictly, load_tensors, save_tensors
from scalefp.errors import UserError
from scalefp.files import atomic_path
from scalefp.generator import Generator, block_resolutions, channels_at, map_resolutions
from scalefp.key import Key
from scalefp.layers import ACTIVATION_SLOPE, ModulatedConv2d, normalize_2nd_moment, upsample


@dataclasses.dataclass(frozen=True)
class InstanceConfig:
    """Sizes of an instance, all that its file says besides the weights."""

    resolution: int
    latent_dim: int
    channels: tuple[int, ...]  # feature channels at 4x4, 8x8, ..., resolution
    maps: tuple[int, ...]  # resolutions at which constant maps are added


def tensor_shapes(config: InstanceConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of an instance."""
    width = config.channels[0] * 16
    shapes: dict[str, tuple[int, ...]] = {
        "input.weight": (width, config.latent_dim),
        "input.bias": (width,),
    }
    previous = None
    for i, channels in enumerate(config.channels):
        size = 4 * 2**i
        convs = {"conv": (channels, size)}
        if previous is not None:
            convs["before"] = (previous, size // 2)
        for name, (inputs, where) in convs.items():
            side = where if where in config.maps else 1
            shapes[f"blocks.{i}.{name}.weight"] = (channels, inputs, 3, 3)
            shapes[f"blocks.{i}.{name}.offset"] = (1, channels, side, side)
        shapes[f"blocks.{i}.to_rgb.weight"] = (3, channels, 1, 1)
        shapes[f"blocks.{i}.to_rgb.offset"] = (1, 3, 1, 1)
        previous = channels
    return shapes


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


class PlainConv(nn.Module):
    """Convolution with constant weights, an added constant and an optional leaky ReLU."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, *, active: bool) -> None:
        super().__init__()
        self.weight = _constant(tensors[f"{name}.weight"])
        self.offset = _constant(tensors[f"{name}.offset"])
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2) + self.offset
        return F.leaky_relu(x, ACTIVATION_SLOPE) if self.active else x


class PlainBlock(nn.Module):
    """A generator block with its key folded in."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        self.before: PlainConv | None = None
        if f"{name}.before.weight" in tensors:
            self.before = PlainConv(tensors, f"{name}.before", active=True)
        self.conv = PlainConv(tensors, f"{name}.conv", active=True)
        self.to_rgb = PlainConv(tensors, f"{name}.to_rgb", active=False)

    def forward(self, x: Tensor, rgb: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.before is not None:
            x = upsample(self.before(x))
        x = self.conv(x)
        skip = self.to_rgb(x)
        return x, skip if rgb is None else upsample(rgb) + skip


class Instance(nn.Module):
    """A recipient's generator: ``instance(z [b, dz]) -> images [b, 3, R, R]``, nominally [-1, 1].

    Load one with :func:`load_instance`; make one with ``model.instantiate(key)``.
    """

    def __init__(self, config: InstanceConfig, tensors: Mapping[str, Tensor]) -> None:
        """A network around ``tensors``, which :func:`tensor_shapes` lists."""
        super().__init__()
        self.config = config
        self.input = nn.Linear(config.latent_dim, config.channels[0] * 16, device="meta")
        self.input.weight = _constant(tensors["input.weight"])
        self.input.bias = _constant(tensors["input.bias"])
        self.blocks = nn.ModuleList(
            PlainBlock(tensors, f"blocks.{i}") for i in range(len(config.channels))
        )
        self.eval()

    def forward(self, z: Tensor) -> Tensor:
        x = F.leaky_relu(self.input(normalize_2nd_moment(z)), ACTIVATION_SLOPE)
        x = x.unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        rgb = None
        for block in self.blocks:
            x, rgb = block(x, rgb)
        assert rgb is not None
        return rgb

    @torch.inference_mode()
    def sample(self, n: int, *, seed: int = 0, batch_size: int = 32) -> Tensor:
        """Images of ``n`` latents drawn from ``seed``, [n, 3, R, R] in [-1, 1].

        The i-th image depends on the seed and i alone, not on ``n`` or ``batch_size``.
        """
        generator = torch.Generator().manual_seed(seed)
        device = self.input.weight.device
        images = []
        with tqdm(total=n, unit="img", desc="sample", delay=2, leave=False) as progress:
            for start in range(0, n, batch_size):
                count = min(batch_size, n - start)
                z = torch.stack(
                    [torch.randn(self.config.latent_dim, generator=generator) for _ in range(count)]
                )
                images.append(self(z.to(device)).clamp(-1, 1).cpu())
                progress.update(count)
        if not images:
            return torch.empty(0, 3, self.config.resolution, self.config.resolution)
        return torch.cat(images)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: the weights, and the sizes in its header. Atomic."""
        save_tensors(path, "instance", self.state_dict(), dataclasses.asdict(self.config))

    def export(self, path: str | Path, *, format: str) -> None:
        """Write the instance for other runtimes: ``onnx`` or ``pt2`` (``torch.export``).

        Both take latents [b, dz] of any batch size, named ``z``, and give ``images``.

        Raises:
            UserError: unknown format, or the packages for ONNX are not installed.
        """
        if format not in EXPORTERS:
            raise UserError(f"Unknown export format {format!r}; choose onnx or pt2.")
        EXPORTERS[format](self, Path(path))


def _export_onnx(instance: Instance, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401  torch's exporter needs it and says so less clearly
    except ImportError as error:
        raise UserError("Writing ONNX needs `pip install scalefp[onnx]`.") from error
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of operators of packages that are not installed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # raised by the exporter's own calls
            program = torch.onnx.export(
                instance,
                (torch.zeros(2, instance.config.latent_dim),),
                input_names=["z"],
                output_names=["images"],
                dynamic_shapes={"z": {0: torch.export.Dim("batch")}},
                dynamo=True,
                verbose=False,
            )
    finally:
        log.setLevel(level)
    assert program is not None
    with atomic_path(path) as temporary:
        program.save(os.fspath(temporary))


def _export_pt2(instance: Instance, path: Path) -> None:
    program = torch.export.export(
        instance,
        (torch.zeros(2, instance.config.latent_dim),),
        dynamic_shapes={"z": {0: torch.export.Dim("batch")}},
    )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.export.save(program, file)


EXPORTERS = {"onnx": _export_onnx, "pt2": _export_pt2}


@torch.no_grad()
def instantiate(generator: Generator, key: Key) -> Instance:
    """Fold ``key`` into the weights of ``generator``.

    The result equals ``generator(z, key.bits)`` to rounding.

    Raises:
        UserError: the key's length is not the generator's.
    """
    config = generator.config
    if key.n_bits != config.n_bits:
        raise UserError(
            f"The key has {key.n_bits} bits but this model takes {config.n_bits}; "
            "use a key issued for this model."
        )
    device = generator.input.weight.device
    bits = torch.from_numpy(key.bits)[None].to(device)
    embedding = generator.embedding(bits)  # [1, e]
    weight, bias = generator.input.folded()
    assert bias is not None
    tensors = {"input.weight": weight, "input.bias": bias}
    for i, block in enumerate(generator.blocks):
        for name, layer in block.named_children():
            assert isinstance(layer, ModulatedConv2d)
            weight, offset = layer.folded(embedding)
            tensors[f"blocks.{i}.{name}.weight"] = weight
            tensors[f"blocks.{i}.{name}.offset"] = offset
    sizes = InstanceConfig(
        resolution=config.resolution,
        latent_dim=config.latent_dim,
        channels=tuple(channels_at(config, r) for r in block_resolutions(config)),
        maps=tuple(map_resolutions(config)),
    )
    return Instance(sizes, tensors)


def load_instance(path: str | Path) -> Instance:
    """Read a file of :meth:`Instance.save`.

    Raises:
        UserError: missing, truncated, foreign, or not an instance.
    """
    tensors, header = load_tensors(path, "instance")
    try:
        lists = {name: tuple(header[name]) for name in ("channels", "maps")}
        config = InstanceConfig(**{**header, **lists})
        shapes = tensor_shapes(config)
    except (TypeError, KeyError, IndexError) as error:
        raise UserError(f"{path} is not a whole instance: its header is damaged") from error
    check_strictly(shapes, tensors, path)
    return Instance(config, tensors)
