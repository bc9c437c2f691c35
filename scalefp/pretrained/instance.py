"""A recipient's copy of an adopted generator: its own class and state dict, with other values.

The file is the state dict as safetensors, which whatever loads the original loads. What it says
besides, in the metadata, is how to sample it here: class, inputs and range; no key.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.errors import UserError
from scalefp.pretrained.inputs import Inputs
from scalefp.pretrained.source import Pictures, load_into, make
from scalefp.release.container import PRETRAINED_INSTANCE, load_tensors, save_tensors


@dataclass(frozen=True)
class InstanceSizes:
    """What is said of every instance, whatever its network."""

    resolution: int
    latent_dim: int | None = None  # what feeds it is the generator's own affair


class PretrainedInstance:
    """One recipient's network.

    Attributes:
        network: of the class that was modulated.
        release_digest: of the release that made it; not in its own file.
    """

    release_digest: str | None = None

    def __init__(self, network: nn.Module, origin: dict[str, Any], resolution: int) -> None:
        self.network, self.origin = network, origin
        self.config = InstanceSizes(resolution)
        how = origin["modulation"]
        low, high = how["range"]
        self.method, self.pictures = how["method"], Pictures(low, high)

    def __call__(self, *inputs: Any) -> Tensor:
        """Images [b, 3, R, R], nominally in [-1, 1]."""
        return self.pictures.of(getattr(self.network, self.method)(*inputs))

    @torch.inference_mode()
    def stream(self, n: int, *, seed: int = 0, batch_size: int = 32) -> Iterator[Tensor]:
        """The images of :meth:`sample` as batches, one at a time."""
        inputs: Inputs = make(self.origin["inputs"], "inputs")
        source = torch.Generator().manual_seed(seed)
        with tqdm(total=n, unit="img", desc="sample", delay=2, leave=False) as progress:
            for start in range(0, n, batch_size):
                count = min(batch_size, n - start)
                drawn = torch.cat([inputs.draw(1, source) for _ in range(count)])
                yield self(drawn).clamp(-1, 1)
                progress.update(count)

    def sample(self, n: int, *, seed: int = 0, batch_size: int = 32) -> Tensor:
        """Images of ``n`` inputs drawn from ``seed``, [n, 3, R, R] in [-1, 1].

        The i-th image depends on the seed and i alone, not on ``n`` or ``batch_size``.
        """
        side = self.config.resolution
        batches = list(self.stream(n, seed=seed, batch_size=batch_size))
        return torch.cat(batches) if batches else torch.empty(0, 3, side, side)

    def save(self, path: str | Path, *, half: bool = False) -> None:
        """Write the state dict as safetensors. Atomic."""
        if half:
            raise UserError("an instance of an adopted generator keeps the types of its weights")
        about = {
            "generator": {k: v for k, v in self.origin["generator"].items() if k != "weights"},
            "inputs": self.origin["inputs"],
            "modulation": {k: self.origin["modulation"][k] for k in ("method", "range")},
            "resolution": self.config.resolution,
        }
        save_tensors(path, PRETRAINED_INSTANCE, self.network.state_dict(), about)

    def export(self, path: str | Path, *, format: str, uint8: bool = False) -> None:
        """Refused: other runtimes get such a network as they get the original."""
        raise UserError(
            f"an instance of an adopted generator is written as its state dict, not as {format}: "
            "export it as you export the original"
        )


def load_pretrained_instance(path: str | Path) -> PretrainedInstance:
    """Read a file of :meth:`PretrainedInstance.save`: its class is imported and made.

    Raises:
        UserError: missing, damaged, of another kind, or its class is not installed.
    """
    tensors, header = load_tensors(path, PRETRAINED_INSTANCE)
    try:
        network: nn.Module = make(header["generator"], "generator", nn.Module)
        load_into(network, tensors, path)
        resolution = int(header["resolution"])
        return PretrainedInstance(network.eval().requires_grad_(False), header, resolution)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a whole instance: its header is damaged") from error
