"""A generator that others trained and what feeds it, tried before a training starts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scalefp.config import TrainConfig
from scalefp.errors import UserError
from scalefp.networks.perceptual import Lpips
from scalefp.pretrained.inputs import Encoded, Inputs
from scalefp.pretrained.modulation import candidates, chosen
from scalefp.pretrained.source import Pictures, load_network, make

# Inputs with which a generator is tried, and of large pictures fewer.
TRIED, TRIED_PIXELS, FEWEST = 16, 16 * 64 * 64, 4
FITTED_CHANNELS = 24  # the pixels and their negatives, see networks/receiver.py
SAME = 1e-5  # by how much the images of the same inputs may differ

# Images a and b [b, 3, R, R] to how unlike each pair looks [b].
Metric = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Adopted:
    """A generator, what feeds it, and how its output becomes pictures."""

    network: nn.Module
    inputs: Inputs
    pictures: Pictures
    method: str
    layers: list[str]  # to be modulated
    perceptual: Metric | None = None  # what else tells whether images look alike

    @torch.no_grad()
    def images(self, inputs: Tensor) -> Tensor:
        """The original's images [b, 3, R, R] in [-1, 1] of inputs [b, ...]."""
        return self.pictures.of(getattr(self.network, self.method)(inputs))


def draw(inputs: Any, count: int, source: torch.Generator) -> Tensor:
    """So many inputs, or a UserError that says what is wrong with what draws them."""
    if not callable(getattr(inputs, "draw", None)):
        raise UserError(f"inputs._target_: {type(inputs).__name__} has no draw(count, source)")
    drawn = inputs.draw(count, source)
    if not isinstance(drawn, Tensor) or drawn.ndim < 1 or len(drawn) != count:
        what = list(drawn.shape) if isinstance(drawn, Tensor) else type(drawn).__name__
        raise UserError(
            f"inputs.draw({count}, source) must give a tensor [{count}, ...], not {what}"
        )
    return drawn


def used_layers(network: nn.Module, method: str, inputs: Tensor) -> set[str]:
    """Names of the layers that one call of a network goes through."""
    used: set[str] = set()
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: used.add(name))
        for name, layer in candidates(network).items()
    ]
    try:
        with torch.no_grad():
            getattr(network, method)(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return used


def make_inputs(config: TrainConfig) -> Inputs:
    """What feeds the generator of a training's options.

    Raises:
        UserError: it cannot be made, or gives pictures of another size than is trained on.
    """
    inputs, side = make(config.inputs, "inputs"), config.model.resolution
    if isinstance(inputs, Encoded) and inputs.crop != side:
        raise UserError(
            f"inputs.crop={inputs.crop} gives pictures of another size than model.resolution={side}"
            ": set both to one side"
        )
    made: Inputs = inputs
    return made


def layers_to_modulate(config: TrainConfig, network: nn.Module, inputs: Tensor) -> list[str]:
    """The names of the layers to modulate, all of which a call of the network goes through.

    Raises:
        UserError: it does not take the inputs, or there is no such layer.
    """
    options = config.modulation
    try:
        called = used_layers(network, options.method, inputs)
    except Exception as error:  # whatever somebody else's network raises
        raise UserError(
            f"the generator does not take what inputs draws, {list(inputs.shape)}: {error}"
        ) from error
    layers = [n for n in chosen(network, options.layers) if options.layers or n in called]
    for name in (*layers, *options.deltas):
        if name not in called and name in candidates(network):
            raise UserError(f"the generator makes its images without {name!r}: leave it out")
    if not layers:
        raise UserError("the generator makes its images without any layer that can be modulated")
    if options.deltas:
        chosen(network, options.deltas, "deltas")
    return layers


def check_images(adopted: Adopted, inputs: Tensor, side: int) -> None:
    """Raise UserError unless the generator makes images of inputs as they are declared."""
    images = adopted.images(inputs)
    if len(images) != len(inputs):
        raise UserError(f"the generator made {len(images)} images of {len(inputs)} inputs")
    if isinstance(adopted.inputs, Encoded) and images.shape[2:] != (side, side):
        height, width = images.shape[2:]
        raise UserError(
            f"the generator makes pictures of {width}x{height} of what inputs.encoder makes of "
            f"{side}x{side}: they do not belong together"
        )
    adopted.pictures.check(images, side)
    if (adopted.images(inputs) - images).abs().max() > SAME:
        raise UserError(
            "the generator makes other images of the same inputs each time: it must draw nothing "
            "itself (noise inputs, dropout)"
        )


def check_perceptual(adopted: Adopted, images: Tensor) -> None:
    """Raise UserError unless LPIPS, where it is wanted, can be computed of images [b, 3, R, R]."""
    if adopted.perceptual is None:
        return
    try:
        adopted.perceptual(images[:1], images[:1])
    except RuntimeError as error:  # a backbone halves pictures several times
        height, width = images.shape[2:]
        raise UserError(
            f"LPIPS cannot be computed of pictures of {width}x{height} with this backbone: take "
            "another one, or leave out loss.lpips"
        ) from error


def adopt(config: TrainConfig) -> Adopted:
    """What ``generator`` and ``inputs`` of a training's options name, tried on a batch.

    Raises:
        UserError: something of it does not work: class, weights, layers, inputs of another shape,
            output that is no image in the range declared, or another one for the same inputs; no
            backbone for LPIPS where it is wanted.
    """
    options, side = config.modulation, config.model.resolution
    network = load_network(config.generator)
    if not callable(getattr(network, options.method, None)):
        raise UserError(f"modulation.method: {type(network).__name__} has no {options.method}")
    inputs = make_inputs(config)
    tried = min(TRIED, max(FEWEST, TRIED_PIXELS // side**2))
    some = draw(inputs, tried, torch.Generator().manual_seed(0))
    low, high = options.range
    layers = layers_to_modulate(config, network, some)
    backbone = config.loss.lpips_backbone
    adopted = Adopted(
        network, inputs, Pictures(low, high), options.method, layers,
        perceptual=None if backbone is None else Lpips(backbone),
    )  # fmt: skip
    check_images(adopted, some, side)
    check_perceptual(adopted, adopted.images(some))
    stem = config.model.decoder_base // (min(config.model.decoder_resolution, side) // 2)
    fits = config.model.decoder_carriers and min(stem, config.model.decoder_max) >= FITTED_CHANNELS
    if options.reader == "decoder" and options.fitted_start and not fits:
        raise UserError(
            f"modulation.fitted_start needs model.decoder_carriers and {FITTED_CHANNELS} channels "
            "in the decoder: raise model.decoder_base, or set modulation.fitted_start=false"
        )
    return adopted
