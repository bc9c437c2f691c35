"""A recipient's copy of an adopted generator: its own class and state dict, with other values.

The file is the state dict as safetensors, which whatever loads the original loads. What it says
besides, in the metadata, is how to sample it here: class, inputs and range; no key.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.errors import UserError
from scalefp.pretrained.encoder import PictureEncoder, continued, encoder_of, theirs
from scalefp.pretrained.exporting import export_instance
from scalefp.pretrained.inputs import ENCODED, Inputs, handed_out
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
        folder: of the file that it was read from, where its encoder may lie.
    """

    release_digest: str | None = None
    folder: Path | None = None

    def __init__(
        self,
        network: nn.Module,
        origin: dict[str, Any],
        resolution: int,
        feed: Callable[[], Inputs] | None = None,
    ) -> None:
        """The network of one key.

        Args:
            origin: what a release says of generator, inputs and modulation.
            feed: gives what draws its inputs, if others use that too; None = as origin says.
        """
        self.network, self.origin, self._shared = network, origin, feed
        self.config = InstanceSizes(resolution)
        how = origin["modulation"]
        low, high = how["range"]
        self.method, self.pictures = how["method"], Pictures(low, high)

    def __call__(self, *inputs: Any) -> Tensor:
        """Images [b, 3, R, R], nominally in [-1, 1]."""
        return self.pictures.of(getattr(self.network, self.method)(*inputs))

    def state_dict(self) -> dict[str, Tensor]:
        """Of the network, with the names of the original's."""
        state: dict[str, Tensor] = self.network.state_dict()
        return state

    def around(self, network: nn.Module) -> "PretrainedInstance":
        """The same with another network of its class, as one has it whose weights were changed."""
        side = self.config.resolution
        changed = PretrainedInstance(network, self.origin, side, lambda: self._feed)
        changed.folder = self.folder
        return changed

    @property
    def takes_pictures(self) -> bool:
        """Whether it is fed with pictures, by an encoder, and not with latents that are drawn."""
        return bool(self.origin["inputs"].get("_target_") == ENCODED)

    @cached_property
    def encoder(self) -> PictureEncoder:
        """What makes its inputs of pictures; its weights lie where the file says or beside it.

        Raises:
            UserError: its inputs are drawn; or class or weights of the encoder are missing.
        """
        if not self.takes_pictures:
            raise UserError("this instance draws its inputs itself and takes no pictures")
        return encoder_of(self.origin["inputs"], self.folder)

    @cached_property
    def factor(self) -> int:
        """Pixels of a picture to a place of the latents, along each side."""
        side = self.config.resolution
        latents: Tensor = self.encoder(torch.zeros(1, 3, side, side))
        if latents.ndim != 4 or side % latents.shape[-1]:
            raise UserError(
                f"the encoder makes latents {list(latents.shape)} of pictures of {side}x{side}: "
                "those of other sizes cannot be told from that"
            )
        return side // int(latents.shape[-1])

    @torch.inference_mode()
    def reconstruct(self, pictures: Tensor) -> Tensor:
        """Pictures [b, 3, H, W] in [-1, 1] of any size, encoded and decoded again.

        Raises:
            UserError: the networks cannot do that, as :attr:`encoder` and :attr:`factor` say.
        """
        height, width = pictures.shape[2:]
        whole = continued(pictures, self.factor)
        latents = self.encoder(whole)
        with theirs(f"{type(self.network).__name__} does not decode pictures of {width}x{height}"):
            images = self(latents)
        if images.shape != whole.shape:
            raise UserError(
                f"a picture of {whole.shape[3]}x{whole.shape[2]} comes back as "
                f"{images.shape[3]}x{images.shape[2]}"
            )
        return images[:, :, :height, :width].clamp(-1, 1)

    @cached_property
    def _feed(self) -> Inputs:
        if self.takes_pictures and "images" not in self.origin["inputs"]:
            raise UserError(
                "this instance is fed with pictures: `scalefp sample --images DIR` gives it some"
            )
        if self._shared is not None:
            return self._shared()
        feed: Inputs = make(self.origin["inputs"], "inputs")
        return feed

    def inputs(self, count: int, source: torch.Generator) -> Tensor:
        """``count`` inputs of the network, drawn as in its training.

        Raises:
            UserError: what draws them cannot be made here.
        """
        return self._feed.draw(count, source)

    @torch.inference_mode()
    def stream(self, n: int, *, seed: int = 0, batch_size: int = 32) -> Iterator[Tensor]:
        """The images of :meth:`sample` as batches, one at a time."""
        source = torch.Generator().manual_seed(seed)
        with tqdm(total=n, unit="img", desc="sample", delay=2, leave=False) as progress:
            for start in range(0, n, batch_size):
                count = min(batch_size, n - start)
                drawn = torch.cat([self.inputs(1, source) for _ in range(count)])
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
        """Write the state dict as safetensors. Atomic.

        Args:
            half: floating-point numbers in half precision, in half the space; what loads the
                original's state dict gives them its own types again.
        """
        about = {
            "generator": {k: v for k, v in self.origin["generator"].items() if k != "weights"},
            "inputs": handed_out(self.origin["inputs"]),
            "modulation": {k: self.origin["modulation"][k] for k in ("method", "range")},
            "resolution": self.config.resolution,
        }
        save_tensors(path, PRETRAINED_INSTANCE, self.state_dict(), about, half=half)

    def export(self, path: str | Path, *, format: str, uint8: bool = False) -> None:
        """Write it for other runtimes, ``onnx`` or ``pt2``, if torch can follow the network.

        Both take its inputs, of any number, and of one that is fed with pictures latents of any
        size; they give images [b, 3, H, W] as :meth:`scalefp.release.instance.Instance.export`.

        Raises:
            UserError: unknown format, packages that are missing, or a network that cannot be
                written so.
        """
        export_instance(self, path, format=format, uint8=uint8)


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
        instance = PretrainedInstance(network.eval().requires_grad_(False), header, resolution)
        instance.folder = Path(path).parent
        if instance.takes_pictures:  # which may be large
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return instance
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a whole instance: its header is damaged") from error
