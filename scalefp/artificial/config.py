"""Schema of ``conf/artificial.yaml``: every option of marker and its training. No Hydra here."""

from dataclasses import dataclass, field

from scalefp.config import ComputeConfig, DataConfig, OptimizerConfig
from scalefp.errors import UserError
from scalefp.options import (
    MAX_SEED,
    RESOLUTIONS,
    WIDEST,
    check_options,
    check_run_name,
    images,
    one_of,
    weight,
    within,
)

FITTED_CHANNELS = 24  # 12 planes of pixels and their negatives; see artificial/start.py


@dataclass
class MarkConfig:
    """Sizes of encoder and decoder, and the strength of the mark. Stored in every marker."""

    resolution: int = within(64, 32, 512)  # image height and width
    n_bits: int = within(128, 8, 256)  # key length
    # Of every marked image, in dB; None = whatever the loss makes it (published).
    psnr: float | None = within(38.0, 1, 1000, none_was=0.0)
    # Feature channels after the first halving; at most 4 times that below.
    encoder_width: int = within(32, 1, WIDEST // 4)
    decoder_resolution: int = one_of(32, *RESOLUTIONS)  # larger images are low-passed to this
    # Decoder's feature channels = decoder_base / size, at most decoder_max.
    decoder_base: int = within(2048, 1, 2**20)
    decoder_max: int = within(256, 1, WIDEST)
    decoder_carriers: bool = True  # one carrier for each bit, in encoder and decoder
    decoder_localizer: bool = False  # estimate how an image was cropped or turned, and undo it

    latent_dim = 0  # what the decoder reads besides the key: nothing

    def check(self) -> None:
        """Raise :class:`UserError` unless the sizes can be built."""
        check_options(self, "model.")
        if self.decoder_resolution > self.resolution:
            raise UserError(
                f"model.decoder_resolution ({self.decoder_resolution}) must not exceed "
                f"model.resolution ({self.resolution})."
            )
        if self.decoder_base < self.decoder_resolution:
            raise UserError(
                f"model.decoder_base must be at least model.decoder_resolution "
                f"({self.decoder_resolution}), not {self.decoder_base}."
            )


@dataclass
class MarkLossConfig:
    """Weights of the named loss terms; a weight of 0 leaves the term out."""

    bits: float = weight(1.0)  # key bits, BCE
    pixels: float = weight(0.0)  # pixel MSE between marked image and image
    visibility: float = weight(0.0)  # how visible the residual is; see artificial/losses.py
    geometry: float = weight(0.3)  # where a cropped or turned image came from; needs the localizer


@dataclass
class MarkScheduleConfig:
    """First the bits become readable; then the mark is made to hide and to last.

    The second phase (weights of `pixels` and `visibility`, strength of mark and perturbations)
    begins `wait_images` after a batch is read with `readable` accuracy and takes `ramp_images` to
    come in. Lengths count images.
    """

    total_images: int = images(200_000, least=1)
    readable: float = within(0.9, 0, 1)  # bit accuracy of a batch that begins the second phase
    wait_images: int = images(0)
    ramp_images: int = images(50_000)
    # Of the mark before the second phase, in dB; unused if model.psnr is null.
    start_psnr: float = within(30.0, 1, 100)
    decay_images: int = images(60_000)  # the learning rate falls to 0 over the last images


@dataclass
class MarkOptimizerConfig(OptimizerConfig):
    """As :class:`OptimizerConfig`, for encoder and decoder; `batch` counts images, each its key."""

    ema_images: float = within(5_000, 1e-3, 10**12)


@dataclass
class MarkTrainConfig:
    """Everything ``scalefp artificial train`` knows."""

    name: str = "marker"  # names the run folder, runs/NAME
    seed: int = within(0, 0, MAX_SEED)
    model: MarkConfig = field(default_factory=MarkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: MarkLossConfig = field(default_factory=MarkLossConfig)
    schedule: MarkScheduleConfig = field(default_factory=MarkScheduleConfig)
    optimizer: MarkOptimizerConfig = field(default_factory=MarkOptimizerConfig)
    # Start from a receiver fitted to the images instead of from noise; needs the carriers.
    fitted_start: bool = True
    # Share of the residuals that are laid on another image than they were made for. What is read
    # there is what the images of a key have in common, which is what a generator learns.
    transplant: float = within(0.25, 0, 1)
    # Perturbation -> probability, between encoder and decoder.
    perturb: dict[str, float] = field(default_factory=dict)
    # Share of the perturbations' ranges that the second phase rises to.
    severity: float = within(1.0, 0, 1)
    run: ComputeConfig = field(default_factory=ComputeConfig)

    def check(self, world_size: int = 1) -> None:
        """Raise :class:`UserError` for options that cannot work, alone or together."""
        check_options(self)
        check_run_name(self.name)
        self.model.check()
        batch = self.optimizer.batch
        if batch % world_size or batch < 2 * world_size:
            raise UserError(
                f"optimizer.batch must be a multiple of {world_size} and at least {2 * world_size} "
                f"(two images on each of {world_size} processes), not {batch}."
            )
        self.optimizer.check(self.schedule.total_images)
        if self.fitted_start and not self.model.decoder_carriers:
            raise UserError(
                "fitted_start needs model.decoder_carriers: turn that on, or set "
                "fitted_start=false."
            )
        first = min(
            self.model.decoder_base // (self.model.decoder_resolution // 2), self.model.decoder_max
        )
        if self.fitted_start and first < FITTED_CHANNELS:
            raise UserError(
                f"fitted_start needs {FITTED_CHANNELS} channels in the decoder's first layer, not "
                f"{first}: raise model.decoder_base or model.decoder_max, or set "
                "fitted_start=false."
            )
        if self.model.psnr is None and not self.loss.pixels:
            raise UserError(
                "nothing keeps the mark small: set model.psnr (the improved training), or "
                "loss.pixels (the published one) above 0."
            )
