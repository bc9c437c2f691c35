"""Everything a marker's training is made of: networks, averages, optimizer, how far it is."""

import copy
import dataclasses

import torch

from scalefp.artificial.config import MarkTrainConfig
from scalefp.artificial.encoder import Encoder
from scalefp.artificial.start import start_fitted
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_float
from scalefp.networks.decoder import Decoder
from scalefp.training.schedule import Standing
from scalefp.training.state import adam

FITTED_IMAGES = 512  # to which a fitted start is fitted


@dataclasses.dataclass
class MarkProgress(Standing):
    """Where the training of a marker stands."""

    readable_at: int | None = None  # images seen when a batch was read

    def ramp(self, config: MarkTrainConfig) -> float:
        """How far the second phase is, 0..1."""
        if self.readable_at is None:
            return 0.0
        begins = self.readable_at + config.schedule.wait_images
        ramp = (self.images - begins) / max(1, config.schedule.ramp_images)
        return min(1.0, max(0.0, ramp))

    def strength(self, config: MarkTrainConfig) -> float | None:
        """Strength of the mark now, in dB; None if it is left to the loss."""
        if config.model.psnr is None:
            return None
        start = config.schedule.start_psnr
        return start + self.ramp(config) * (config.model.psnr - start)

    def weights(self, config: MarkTrainConfig) -> dict[str, float]:
        """Weights of the loss terms now."""
        ramp, loss = self.ramp(config), config.loss
        weights = {
            "bits": loss.bits,
            "pixels": ramp * loss.pixels,
            "visibility": ramp * loss.visibility,
        }
        if config.model.decoder_localizer:
            weights["geometry"] = loss.geometry
        return weights

    def advance(self, accuracy: float, config: MarkTrainConfig) -> None:
        """Account for a step's bit accuracy."""
        if self.readable_at is None and accuracy > config.schedule.readable:
            self.readable_at = self.images


@dataclasses.dataclass
class MarkState:
    """The networks and the optimizer by the names they are saved under, and the progress."""

    progress: MarkProgress
    encoder: Encoder
    decoder: Decoder
    average_encoder: Encoder
    average_decoder: Decoder
    optimizer: torch.optim.Optimizer

    @classmethod
    def build(cls, config: MarkTrainConfig, data: ImageSet, device: torch.device) -> "MarkState":
        """A training before its first image; the same seed gives the same weights everywhere."""
        torch.manual_seed(config.seed)
        encoder, decoder = Encoder(config.model), Decoder(config.model)
        if config.fitted_start:
            draw = torch.Generator().manual_seed(config.seed)
            some = torch.randperm(len(data), generator=draw)[:FITTED_IMAGES]
            start_fitted(encoder, decoder, to_float(data.batch(some)), draw)
        for network in (encoder, decoder):
            network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(
            progress=MarkProgress(),
            encoder=encoder,
            decoder=decoder,
            average_encoder=copy.deepcopy(encoder).requires_grad_(False),
            average_decoder=copy.deepcopy(decoder).requires_grad_(False),
            optimizer=adam(config.optimizer, encoder, decoder),
        )
