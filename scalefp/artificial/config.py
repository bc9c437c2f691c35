"""Schema of ``conf/artificial.yaml``: every option of marker and its training. No Hydra here."""

from dataclasses import dataclass, field

from scalefp.config import (
    RESOLUTIONS,
    WIDEST,
    ComputeConfig,
    DataConfig,
    OptimizerConfig,
    check_between,
    check_least,
    check_one_of,
)
from scalefp.errors import UserError

FITTED_CHANNELS = 24  # 12 planes of pixels and their negatives; see artificial/start.py


@dataclass
class MarkConfig:
    """Sizes of encoder and decoder, and the strength of the mark. Stored in every marker."""

    resolution: int = 64  # image height and width, 32..512
    n_bits: int = 128  # key length, 8..256
    psnr: float = 38.0  # of every marked image, in dB; 0 = whatever the loss makes it (published)
    encoder_width: int = 32  # feature channels after the first halving; at most 4 times that below
    decoder_resolution: int = 32  # larger images are low-passed to this before decoding
    decoder_base: int = 2048  # decoder's feature channels = decoder_base / size, ...
    decoder_max: int = 256  # ... at most this
    decoder_carriers: bool = True  # one carrier for each bit, in encoder and decoder
    decoder_localizer: bool = False  # estimate how an image was cropped or turned, and undo it

    latent_dim = 0  # what the decoder reads besides the key: nothing

    def check(self) -> None:
        """Raise :class:`UserError` unless the sizes can be built."""
        check_between("model.resolution", self.resolution, 32, 512)
        check_between("model.n_bits", self.n_bits, 8, 256)
        check_one_of("model.decoder_resolution", self.decoder_resolution, RESOLUTIONS)
        if self.decoder_resolution > self.resolution:
            raise UserError(
                f"model.decoder_resolution ({self.decoder_resolution}) must not exceed "
                f"model.resolution ({self.resolution})."
            )
        for name in ("encoder_width", "decoder_max"):
            check_between(f"model.{name}", getattr(self, name), 1, WIDEST)
        if self.decoder_base < self.decoder_resolution:
            raise UserError(
                f"model.decoder_base must be at least model.decoder_resolution "
                f"({self.decoder_resolution}), not {self.decoder_base}."
            )
        if not 0 <= self.psnr <= 1000:
            raise UserError(f"model.psnr must be 0 or above, at most 1000, not {self.psnr}.")


@dataclass
class MarkLossConfig:
    """Weights of the named loss terms; a weight of 0 leaves the term out."""

    bits: float = 1.0  # key bits, BCE
    pixels: float = 0.0  # pixel MSE between marked image and image
    visibility: float = 0.0  # how visible the residual is; see artificial/losses.py
    geometry: float = 0.3  # where a cropped or turned image came from; needs the localizer


@dataclass
class MarkScheduleConfig:
    """First the bits become readable; then the mark is made to hide and to last.

    The second phase (weights of `pixels` and `visibility`, strength of mark and perturbations)
    begins `wait_images` after a batch is read with `readable` accuracy and takes `ramp_images` to
    come in. Lengths count images.
    """

    total_images: int = 200_000
    readable: float = 0.9  # bit accuracy of a batch that begins the second phase
    wait_images: int = 0
    ramp_images: int = 50_000
    start_psnr: float = 30.0  # of the mark before the second phase, in dB; unused if psnr is 0
    decay_images: int = 60_000  # the learning rate falls to 0 over the last images


@dataclass
class MarkOptimizerConfig(OptimizerConfig):
    """As :class:`OptimizerConfig`, for encoder and decoder; `batch` counts images, each its key."""

    ema_images: float = 5_000


@dataclass
class MarkTrainConfig:
    """Everything ``scalefp artificial train`` knows."""

    name: str = "marker"  # names the run folder, runs/NAME
    seed: int = 0
    model: MarkConfig = field(default_factory=MarkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: MarkLossConfig = field(default_factory=MarkLossConfig)
    schedule: MarkScheduleConfig = field(default_factory=MarkScheduleConfig)
    optimizer: MarkOptimizerConfig = field(default_factory=MarkOptimizerConfig)
    # Start from a receiver fitted to the images instead of from noise; needs the carriers.
    fitted_start: bool = True
    # Share of the residuals that are laid on another image than they were made for. What is read
    # there is what the images of a key have in common, which is what a generator learns.
    transplant: float = 0.25
    # Perturbation -> probability, between encoder and decoder.
    perturb: dict[str, float] = field(default_factory=dict)
    severity: float = 1.0  # share of the perturbations' ranges that the second phase rises to
    run: ComputeConfig = field(default_factory=ComputeConfig)

    def check(self) -> None:
        """Raise :class:`UserError` for options that cannot work together."""
        self.model.check()
        self.run.check()
        check_least("seed", self.seed, 0)
        check_least("optimizer.batch", self.optimizer.batch, 2)
        self.optimizer.check(self.schedule.total_images)
        check_between("transplant", self.transplant, 0, 1)
        check_between("severity", self.severity, 0, 1)
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
        if not self.model.psnr and not self.loss.pixels:
            raise UserError(
                "nothing keeps the mark small: set model.psnr (the improved training) or "
                "loss.pixels (the published one) above 0."
            )
