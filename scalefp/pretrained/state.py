"""Everything the training of an adopted generator is made of; and the release's sizes."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.config import ModelConfig, TrainConfig
from scalefp.networks.decoder import Decoder
from scalefp.networks.receiver import fit_content, halved
from scalefp.options import RESOLUTIONS, WIDEST, check_options, one_of, within
from scalefp.pretrained.adopted import Adopted, draw
from scalefp.pretrained.modulation import Parent, modulate
from scalefp.training.schedule import Progress

FITTED_IMAGES = 512  # of the original, to which the decoder's start is fitted
QUIET = 0.1  # of the trunk's logits at first, beside the carriers'


@dataclass
class ReaderSizes:
    """Sizes of key, images and decoder. Stored in every release of an adopted generator."""

    resolution: int = one_of(64, *RESOLUTIONS)
    n_bits: int = within(128, 8, 512)
    decoder_resolution: int = one_of(32, *RESOLUTIONS)
    decoder_base: int = within(2048, 1, 2**20)
    decoder_max: int = within(256, 1, WIDEST)
    decoder_carriers: bool = True
    decoder_localizer: bool = False

    latent_dim = 0  # what the decoder reads besides the key: nothing

    def check(self) -> None:
        """Raise :class:`UserError` unless the sizes can be built."""
        check_options(self)

    @classmethod
    def of(cls, config: ModelConfig) -> "ReaderSizes":
        """Those of a training's options."""
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})


@torch.no_grad()
def fit(decoder: Decoder, images: Tensor) -> float:
    """Begin as the linear receiver that fits images [b, 3, R, R], with carriers still to be found.

    Returns:
        The rate at which the carriers learn, relative: as if what is left of the images, and the
        carriers on it, were of unit size.
    """
    fit_content(decoder, images)
    assert decoder.content is not None
    pixels = halved(decoder.low_pass(images))
    unit = float((pixels - decoder.content(decoder.stem(pixels))).std())
    decoder.carriers.weight.div_(unit)
    decoder.output.weight[: decoder.n_bits] *= QUIET
    return math.sqrt(decoder.carriers.weight.shape[1]) / unit


@dataclass
class AdoptedState:
    """The networks and the optimizer by the names they are saved under, and the progress."""

    progress: Progress
    parent: Parent
    decoder: Decoder
    average_parent: Parent
    average_decoder: Decoder
    optimizer: torch.optim.Optimizer

    @classmethod
    def build(cls, config: TrainConfig, adopted: Adopted, device: torch.device) -> "AdoptedState":
        """A training before its first image; the same seed gives the same weights everywhere."""
        torch.manual_seed(config.seed)
        options = config.modulation
        parent = modulate(
            adopted.network, config.model.n_bits, adopted.layers, deltas=options.deltas,
            key_gain=options.key_gain, delta_gain=options.delta_gain, method=options.method,
        )  # fmt: skip
        decoder, carriers_rate = Decoder(ReaderSizes.of(config.model)), 1.0
        if options.fitted_start:
            source = torch.Generator().manual_seed(config.seed)
            inputs = draw(adopted.inputs, FITTED_IMAGES, source).split(16)
            shown = tqdm(inputs, desc="fit the decoder", unit="batch", delay=2, leave=False)
            images = torch.cat([adopted.images(some) for some in shown])
            carriers_rate = fit(decoder, images.clamp(-1, 1))
        parent.to(device)
        decoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(
            progress=Progress.start(config),
            parent=parent,
            decoder=decoder,
            average_parent=copy.deepcopy(parent).requires_grad_(False),
            average_decoder=copy.deepcopy(decoder).requires_grad_(False),
            optimizer=optimizer(config, parent, decoder, carriers_rate),
        )

    def averages(self) -> list[tuple[nn.Module, nn.Module]]:
        """What is released, each with the network that it is the average of."""
        return [(self.average_parent, self.parent), (self.average_decoder, self.decoder)]


def optimizer(
    config: TrainConfig, parent: Parent, decoder: Decoder, carriers_rate: float
) -> torch.optim.Optimizer:
    """Adam for what a key changes and the decoder; ``scale`` of a group is its rate, relative."""
    groups: dict[float, list[nn.Parameter]] = {}
    for network, prefix in ((parent, "keyed."), (decoder, "")):
        for name, parameter in network.named_parameters():
            if not name.startswith(prefix):
                continue
            scale = config.modulation.delta_rate if name.endswith("deltas") else 1.0
            if network is decoder and name == "carriers.weight":
                scale = carriers_rate
            groups.setdefault(scale, []).append(parameter)
    options = config.optimizer
    return torch.optim.Adam(
        [{"params": members, "scale": scale} for scale, members in groups.items()],
        lr=options.learning_rate,
        betas=(options.beta1, options.beta2),
        fused=True,
    )
