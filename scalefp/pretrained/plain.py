"""This project's own generator as anybody's: an instance whose layers are those of torch.

:class:`scalefp.release.instance.Instance` calls its convolutions on tensors, since that is made
faster, and so has no layer that :func:`scalefp.modulate` could find. Here the same network has
layers; its state dict has the same names, so an instance file is the file of its weights.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from scalefp.release.instance import Instance, InstanceConfig, tensor_shapes

PARTS = "weight", "bias"  # of a layer


def _renamed(
    state: dict[str, Tensor], prefix: str, layers: Sequence[str], before: str, after: str
) -> None:
    """Names LAYER + ``before`` + PART of a state dict to LAYER + ``after`` + PART, in place."""
    for layer in layers:
        for part in PARTS:
            tensor = state.pop(f"{prefix}{layer}{before}{part}", None)
            if tensor is not None:
                state[f"{prefix}{layer}{after}{part}"] = tensor


def _as_instance(
    network: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object
) -> None:
    """Gives a state dict that was made the names of an instance's."""
    _renamed(state, prefix, list(network._modules), ".", "_")


def _as_layers(network: nn.Module, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
    """Takes a state dict with the names of an instance's, to be loaded."""
    _renamed(state, prefix, list(network._modules), "_", ".")


class Generator(Instance):
    """``G(z [b, dz]) -> images [b, 3, R, R]`` in [-1, 1], as files of an instance hold them.

    Args:
        resolution, latent_dim, channels, maps: as ``scalefp.load_instance(FILE).config`` says them.

    Raises:
        UserError: no instance has such sizes.
    """

    def __init__(
        self, resolution: int, latent_dim: int, channels: Sequence[int], maps: Sequence[int]
    ) -> None:
        sizes = InstanceConfig(resolution, latent_dim, tuple(channels), tuple(maps))
        sizes.check()
        super().__init__(sizes, {})
        for name, shape in tensor_shapes(sizes).items():
            layer, _, part = name.rpartition("_")
            if part == "offset":
                self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
            elif part == "weight" and len(shape) == 2:
                self.add_module(layer, nn.Linear(shape[1], shape[0]))
            elif part == "weight":
                side = shape[2]
                self.add_module(layer, nn.Conv2d(shape[1], shape[0], side, padding=side // 2))
        self.register_state_dict_post_hook(_as_instance)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_as_layers)  # type: ignore[no-untyped-call]

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z).clamp(-1, 1)

    @property
    def input_weight(self) -> Any:  # type: ignore[override]
        return self.get_submodule("input").weight

    # What an instance does on its tensors, done by layers.

    def _add(self, rgb: Tensor, skip: Tensor) -> Tensor:
        # Several keys for each input begin at a layer that the picture so far passes by.
        return rgb.repeat_interleave(len(skip) // len(rgb), dim=0) + skip

    def _enter(self, z: Tensor) -> Tensor:
        return cast(Tensor, self.get_submodule("input")(z))

    def _apply_layer(self, x: Tensor, name: str) -> Tensor:
        return cast(Tensor, self.get_submodule(name)(x))
