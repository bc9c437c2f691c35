"""Schema of ``conf/``: every option with its type, default and meaning. Nothing here knows Hydra.

The YAML files say only what differs from these defaults. ``check`` functions raise
:class:`UserError` for combinations that cannot work, before anything is built.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from scalefp.errors import UserError

RESOLUTIONS = (16, 32, 64, 128, 256)
WIDEST = 8192  # channels of a layer, or numbers of a latent or an embedding
DEEPEST = 32  # layers of the key MLP
PRECISIONS = ("auto", "fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda")


def check_least(name: str, value: float, least: float) -> None:
    """Raise :class:`UserError` naming an option that is too small."""
    if value < least:
        raise UserError(f"{name} must be at least {least}, not {value}.")


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Raise :class:`UserError` naming an option that lies outside a range."""
    if not low <= value <= high:
        raise UserError(f"{name} must lie between {low} and {high}, not {value}.")


def check_one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise :class:`UserError` naming an option that is none of those that exist."""
    if value not in allowed:
        raise UserError(f"{name} must be one of {', '.join(map(str, allowed))}, not {value!r}.")


@dataclass
class ModelConfig:
    """Sizes of generator, discriminator and decoder. Stored in every release."""

    resolution: int = 64  # image height and width: 16, 32, 64, 128 or 256
    n_bits: int = 128  # key length, 8..512
    latent_dim: int = 64  # width of the latent z
    channel_base: int = 1024  # feature channels = channel_base / resolution, at most channel_max
    channel_max: int = 128
    embedding_width: int = 256  # width of the key embedding
    key_gain: float = 0.1  # initial strength of the modulation (1 = published)
    key_maps: bool = True  # a learned map for each channel, added in proportion to the key
    mapping_layers: int = 0  # key MLP depth; 0 = one linear map, 8 = published
    mapping_lr_multiplier: float = 1.0  # learning rate of the key MLP, relative (0.01 = published)
    decoder_resolution: int = 32  # larger images are low-passed to this before decoding
    decoder_base: int = 2048  # the decoder's channel_base
    decoder_max: int = 256  # the decoder's channel_max
    decoder_carriers: bool = True  # read one learned carrier per bit beside the trunk
    decoder_localizer: bool = False  # estimate how an image was cropped or turned, and undo it

    def check(self) -> None:
        """Raise :class:`UserError` unless the sizes can be built."""
        check_one_of("model.resolution", self.resolution, RESOLUTIONS)
        check_between("model.n_bits", self.n_bits, 8, 512)
        check_one_of("model.decoder_resolution", self.decoder_resolution, RESOLUTIONS)
        for name in ("latent_dim", "channel_max", "embedding_width", "decoder_max"):
            check_between(f"model.{name}", getattr(self, name), 1, WIDEST)
        for name in ("channel_base", "decoder_base"):
            if getattr(self, name) < self.resolution:
                raise UserError(
                    f"model.{name} must be at least the resolution ({self.resolution}), "
                    f"not {getattr(self, name)}."
                )
        check_between("model.key_gain", self.key_gain, 0, 1000)
        check_between("model.mapping_layers", self.mapping_layers, 0, DEEPEST)
        if not 0 < self.mapping_lr_multiplier <= 1000:
            raise UserError(
                f"model.mapping_lr_multiplier must be above 0 and at most 1000, "
                f"not {self.mapping_lr_multiplier}."
            )


@dataclass
class DataConfig:
    """The training images."""

    source: str = "emoji64"  # bundled name, folder or zip
    flip: bool = False  # mirror each image with probability 1/2
    workers: int = 1  # threads that decode the images at start


@dataclass
class LossConfig:
    """Weights of the named loss terms; a weight of 0 leaves the term out."""

    adversarial: float = 1.0  # non-saturating logistic
    latent: float = 1.0  # recovered latent, MSE
    bits: float = 30.0  # key bits, BCE
    consistency: float = 30.0  # same latent under two keys, pixel MSE; see schedule.hide_psnr
    geometry: float = 1.0  # where a cropped or turned image came from, distance in half images
    elsewhere: float = 5.0  # key bits read at wrong frames, BCE: to be unsure there
    path_length: float = 0.0  # smoothness of image over key embedding (2 in StyleGAN2)
    path_length_interval: int = 8  # steps between path-length updates
    r1: float = 1.0  # gradient penalty on real images (gamma)
    r1_interval: int = 16  # steps between R1 updates


@dataclass
class ScheduleConfig:
    """The order in which things are learned, and for how long. Lengths count images.

    First the key bits become readable, while a key may change the picture as far as
    `reading_psnr`; then that allowance shrinks to `hide_psnr`. The consistency weight follows.
    """

    total_images: int = 200_000
    curriculum_bits: int = 0  # key bits switched on at a time; 0 = all from the start
    curriculum_accuracy: float = 0.93  # running bit accuracy that counts as readable
    reading_psnr: float = 22.0  # dB between two keys' images of one latent, until all is readable
    hide_psnr: float = 29.0  # dB in the end; 0 = the consistency weight stays as it is in `loss`
    ramp_images: int = 100_000  # from reading_psnr to hide_psnr
    # Share of the moved images that are read at the localizer's estimate instead of near the truth.
    guessed: float = 0.5
    # Share of the ramp after which the decoder also learns where not to read (loss.elsewhere).
    elsewhere_from: float = 0.5
    decay_images: int = 50_000  # the learning rate falls to 0 over the last images


@dataclass
class OptimizerConfig:
    """Adam for all networks."""

    batch: int = 32  # images per step over all processes; half as many latents, two keys each
    learning_rate: float = 0.002
    beta1: float = 0.5
    beta2: float = 0.99
    ema_images: float = 10_000  # half-life of the averaged weights that are released

    def check(self, total_images: int) -> None:
        """Raise :class:`UserError` unless so many images can be trained on."""
        if self.ema_images <= 0:
            raise UserError(f"optimizer.ema_images must be above 0, not {self.ema_images}.")
        if total_images < self.batch:
            raise UserError(
                f"schedule.total_images ({total_images}) is less than one batch ({self.batch})."
            )


@dataclass
class ComputeConfig:
    """How and where it runs; none of these changes what is learned (but for rounding)."""

    device: str = "auto"  # auto, cpu or cuda
    precision: str = "auto"  # auto (bf16 where the hardware gains from it), fp32 or bf16
    threads: int = 1  # CPU threads for each process
    log_steps: int = 20  # steps between lines of log.jsonl
    grid_images: int = 32_000  # images between picture grids
    checkpoint_minutes: float = 5.0
    tensorboard: bool = True

    def check(self) -> None:
        """Raise :class:`UserError` for values that do not exist."""
        for name in ("log_steps", "grid_images", "threads"):
            check_least(f"run.{name}", getattr(self, name), 1)
        check_one_of("run.precision", self.precision, PRECISIONS)
        check_one_of("run.device", self.device, DEVICES)


@dataclass
class RunConfig(ComputeConfig):
    """As :class:`ComputeConfig`, with what the large networks of a generator may need."""

    # Parts of a process's batch that are computed one after another: as many times less memory for
    # activations, one pass of the generator more.
    accumulate: int = 1
    # Blocks of this resolution and up are computed again in the backward pass instead of kept.
    recompute_from: int = 0  # 0 = none
    compile: bool = False  # torch.compile for generator and decoder; meant for GPUs

    def check(self) -> None:
        super().check()
        check_least("run.accumulate", self.accumulate, 1)
        check_least("run.recompute_from", self.recompute_from, 0)


@dataclass
class TrainConfig:
    """Everything ``scalefp train`` knows."""

    name: str = "default"  # names the run folder, runs/NAME
    start_from: str = ""  # state.pt of another run, of the same model, to go on from
    seed: int = 0
    # False: the same networks trained without keys, each latent of its own, as a baseline that
    # tells what the fingerprint costs.
    fingerprint: bool = True
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    # Perturbation -> probability, applied to what the decoder sees once all bits are readable,
    # mildly at first and in full after schedule.ramp_images.
    perturb: dict[str, float] = field(default_factory=dict)
    run: RunConfig = field(default_factory=RunConfig)

    def check(self, world_size: int = 1) -> None:
        """Raise :class:`UserError` for options that cannot work together."""
        self.model.check()
        self.run.check()
        check_least("loss.r1_interval", self.loss.r1_interval, 1)
        check_least("loss.path_length_interval", self.loss.path_length_interval, 1)
        check_least("seed", self.seed, 0)
        batch, share = self.optimizer.batch, 2 * world_size
        if batch < share or batch % share:
            raise UserError(
                f"optimizer.batch must be a multiple of {share} (two keys for each latent on each "
                f"of {world_size} processes), not {batch}."
            )
        unit = 16 * self.run.accumulate * world_size  # see step.split
        if self.run.accumulate > 1 and batch % unit:
            raise UserError(
                f"with run.accumulate={self.run.accumulate} optimizer.batch must be a multiple of "
                f"{unit} (16 images for each part on each of {world_size} processes), not {batch}."
            )
        self.optimizer.check(self.schedule.total_images)
        if not 0 <= self.schedule.curriculum_bits <= self.model.n_bits:
            raise UserError(
                f"schedule.curriculum_bits must lie between 0 and model.n_bits "
                f"({self.model.n_bits}), not {self.schedule.curriculum_bits}."
            )
        if self.schedule.hide_psnr and self.loss.consistency <= 0:
            raise UserError(
                "schedule.hide_psnr moves the consistency weight, so loss.consistency must be "
                "above 0; set schedule.hide_psnr=0 to train without it."
            )


def flat_options(config: Any) -> dict[str, Any]:
    """The options of a configuration (a dataclass) by dotted name."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                visit(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    visit("", asdict(config))
    return flat


def conf_dir() -> Path:
    """The Hydra tree, which a checkout also shows at its top level."""
    return Path(str(files("scalefp") / "conf"))
