"""A recipient's network as a file for other runtimes, if torch can follow it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from scalefp.data.images import to_uint8
from scalefp.errors import UserError
from scalefp.pretrained.inputs import handed_out
from scalefp.release.container import PRETRAINED_INSTANCE
from scalefp.release.export import Ports, export

if TYPE_CHECKING:
    from scalefp.pretrained.instance import PretrainedInstance


class _Images(nn.Module):
    """An instance as a module of one input, whose images are those of the project.

    Args:
        uint8: the images are the pixels that a file would hold.
    """

    def __init__(self, instance: PretrainedInstance, uint8: bool) -> None:
        super().__init__()
        self.network, self.uint8 = instance.network, uint8
        self.method, self.pictures = instance.method, instance.pictures

    def forward(self, z: Tensor) -> Tensor:
        images = self.pictures.of(getattr(self.network, self.method)(z))
        return to_uint8(images) if self.uint8 else images


@torch.no_grad()
def ports(instance: PretrainedInstance, uint8: bool) -> Ports:
    """What goes into an instance and comes out of it.

    Raises:
        UserError: what feeds it cannot be made here.
    """
    side, free = instance.config.resolution, {0: "batch"}
    sides: list[int | str] = [side, side]
    if instance.takes_pictures:
        latents = instance.encoder(torch.zeros(1, 3, side, side))
        # Of other sides, or torch takes for a rule of the network that they are equal, or 1.
        example = latents.new_zeros(2, latents.shape[1], latents.shape[2] + 1, latents.shape[3] + 2)
        free |= {2: "height", 3: "width"}
        sides = [f"{instance.factor} height", f"{instance.factor} width"]
    else:
        example = instance.inputs(2, torch.Generator().manual_seed(0))
    images: dict[str, Any] = {"name": "images", "shape": ["batch", 3, *sides], "colours": "RGB"}
    if uint8:
        images |= {"type": "uint8", "range": [0, 255], "clamp": False}
    else:
        images |= {"type": "float32", "range": [-1, 1], "clamp": True}
    name = "latents" if instance.takes_pictures else "z"
    shape = [free.get(place, length) for place, length in enumerate(example.shape)]
    about = {
        "kind": PRETRAINED_INSTANCE,
        "input": {
            "name": name, "shape": shape, "type": str(example.dtype).removeprefix("torch."),
            "made_by": handed_out(instance.origin["inputs"]),
        },
        "output": images,
        "release_digest": instance.release_digest,
    }  # fmt: skip
    return Ports(name, ["images"], example, about, free)


def export_instance(
    instance: PretrainedInstance, path: str | Path, *, format: str, uint8: bool
) -> None:
    """Write an instance as ``onnx`` or ``pt2``; of one that is fed with pictures its decoder.

    Raises:
        UserError: unknown format, packages that are missing, or a network that cannot be followed.
    """
    goes = ports(instance, uint8)
    try:
        export(_Images(instance, uint8).eval(), goes, path, format=format)
    except UserError:
        raise
    except Exception as error:  # whatever torch says of somebody else's network
        why = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(
            f"torch cannot write {type(instance.network).__name__} as {format} ({why}): write the "
            "instance as safetensors, and export it as you export the original"
        ) from error
