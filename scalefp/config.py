"""Schema of ``conf/``: every option with its type, default, range and meaning. No Hydra here.

The YAML files say only what differs from these defaults. ``check`` functions raise
:class:`UserError` for values and combinations that cannot work, before anything is built. An option
that may be left out is ``None`` then, ``null`` in YAML and on the command line.
"""

from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from scalefp.errors import UserError
from scalefp.options import (
    DEEPEST,
    DEVICES,
    MAX_IMAGES,
    MAX_SEED,
    PRECISIONS,
    RESOLUTIONS,
    SIDES,
    WIDEST,
    check_options,
    check_run_name,
    images,
    one_of,
    weight,
    within,
)


@dataclass
class ModelConfig:
    """Sizes of generator, discriminator and decoder. Stored in every release."""

    resolution: int = one_of(64, *RESOLUTIONS)  # image height and width
    n_bits: int = within(128, 8, 512)  # key length
    latent_dim: int = within(64, 1, WIDEST)  # width of the latent z
    # Feature channels = channel_base / resolution, at most channel_max.
    channel_base: int = within(1024, 1, 2**20)
    channel_max: int = within(128, 1, WIDEST)
    embedding_width: int = within(256, 1, WIDEST)  # width of the key embedding
    key_gain: float = within(0.1, 0, 1000)  # initial strength of the modulation (1 = published)
    # A key modulates the layers whose input is so many pixels wide, from the one to the other.
    key_from: int = one_of(4, *SIDES, absent_was=4)
    key_to: int = one_of(256, *SIDES, absent_was=256)
    key_maps: bool = True  # a learned map for each channel, added in proportion to the key
    mapping_layers: int = within(0, 0, DEEPEST)  # key MLP depth; 0 = one linear map, 8 = published
    # Learning rate of the key MLP, relative (0.01 = published).
    mapping_lr_multiplier: float = within(1.0, 1e-9, 1000)
    decoder_resolution: int = one_of(32, *RESOLUTIONS)  # larger images are low-passed to this
    decoder_base: int = within(2048, 1, 2**20)  # the decoder's channel_base
    decoder_max: int = within(256, 1, WIDEST)  # the decoder's channel_max
    decoder_carriers: bool = True  # read one learned carrier per bit beside the trunk
    decoder_localizer: bool = False  # estimate how an image was cropped or turned, and undo it

    def check(self) -> None:
        """Raise :class:`UserError` unless the sizes can be built."""
        check_options(self, "model.")
        for name in ("channel_base", "decoder_base"):
            if getattr(self, name) < self.resolution:
                raise UserError(
                    f"model.{name} must be at least the resolution ({self.resolution}), "
                    f"not {getattr(self, name)}."
                )
        last = min(self.key_to, self.resolution)
        if self.key_from > last:
            raise UserError(
                f"model.key_from ({self.key_from}) must be at most model.key_to and the resolution "
                f"({last}), or a key has no layer to modulate."
            )


@dataclass
class DataConfig:
    """The training images."""

    source: str = "emoji64"  # bundled name, folder or zip
    flip: bool = False  # mirror each image with probability 1/2
    workers: int = within(1, 0, 256)  # threads that decode the images at start


@dataclass
class LossConfig:
    """Weights of the named loss terms; a weight of 0 leaves the term out."""

    adversarial: float = weight(1.0)  # non-saturating logistic
    latent: float = weight(1.0)  # recovered latent, MSE
    bits: float = weight(30.0)  # key bits, BCE
    consistency: float = weight(30.0)  # one latent, two keys: pixel MSE; see schedule.hide_psnr
    # Share of the consistency term in which a place counts as much as a change shows there, most in
    # flat areas; what schedule.hide_psnr is measured in has the same share.
    visibility: float = within(0.0, 0, 1)
    # In what else images should be what a generator of others made of them, besides their pixels:
    # the gradients over its sides at three scales, and LPIPS, which needs a backbone. Each counts
    # so many times as much as the consistency term, whose weight follows schedule.hide_psnr.
    gradients: float = weight(0.0)
    lpips: float = weight(0.0)
    lpips_backbone: str | None = None  # weights of torchvision's AlexNet, VGG-16 or SqueezeNet 1.1
    geometry: float = weight(1.0)  # where a moved image came from, distance in half images
    # How far pixels are outside [-1, 1], mean squared excess. A file and whoever reads one see them
    # clipped, so that without it the discriminator alone calls back what has run away.
    range: float = weight(10.0)
    # Key bits read from instances with noise in their weights, BCE; once all bits are readable.
    weight_noise: float = weight(0.0)
    weight_noise_interval: int = within(8, 1, 10**9)  # steps between its updates
    # The strongest noise, in standard deviations of each tensor, reached as `schedule` ramps up.
    weight_noise_strength: float = within(0.3, 0, 10)
    # As weight_noise, with the step of that size in the weights by which the key is read worst.
    weight_step: float = weight(0.0)
    path_length: float = weight(0.0)  # smoothness of image over key embedding (2 in StyleGAN2)
    path_length_interval: int = within(8, 1, 10**9)  # steps between path-length updates
    # Probability of each change (mirrored, shifted, coloured) of what the discriminator sees.
    augment: float = within(0.0, 0, 1)
    r1: float = weight(1.0)  # gradient penalty on real images (gamma)
    r1_interval: int = within(16, 1, 10**9)  # steps between R1 updates

    def check(self, *, adopted: bool) -> None:
        """Raise :class:`UserError` for terms that cannot be had.

        Args:
            adopted: whether the generator is one that others trained.
        """
        for name in ("gradients", "lpips", "weight_step"):
            if getattr(self, name) and not adopted:
                raise UserError(
                    f"loss.{name} is for a generator that others trained: give generator= and "
                    "inputs=, or leave it out."
                )
        if bool(self.lpips) != (self.lpips_backbone is not None):
            raise UserError(
                "loss.lpips and loss.lpips_backbone belong together: the weight of the term, and "
                "the file of torchvision's AlexNet, VGG-16 or SqueezeNet 1.1 that it is computed "
                "with."
            )


@dataclass
class ScheduleConfig:
    """The order in which things are learned, and for how long. Lengths count images.

    First the key bits become readable, while a key may change the picture as far as
    `reading_psnr`; then that allowance shrinks to `hide_psnr`. The consistency weight follows.
    """

    total_images: int = images(200_000, least=1)
    # Key bits switched on at a time; None = all from the start.
    curriculum_bits: int | None = within(None, 1, 512)
    curriculum_accuracy: float = within(0.93, 0, 1)  # running accuracy that counts as readable
    reading_psnr: float = within(22.0, 1, 100)  # dB between two keys' images, until all is readable
    # dB between them in the end; None = the consistency weight stays as it is in `loss`.
    hide_psnr: float | None = within(29.0, 1, 100)
    ramp_images: int = images(100_000)  # from reading_psnr to hide_psnr
    # Steps from one look at how well keys are read and hidden to the next; a GPU does not wait in
    # between.
    look_steps: int = within(10, 1, 10_000)
    decay_images: int = images(50_000)  # the learning rate falls to 0 over the last images


@dataclass
class OptimizerConfig:
    """Adam for all networks."""

    # Images per step over all processes; half as many latents, two keys each.
    batch: int = within(32, 2, 2**16)
    learning_rate: float = within(0.002, 1e-9, 1)
    beta1: float = within(0.5, 0, 0.999999)
    decoder_beta1: float | None = within(None, 0, 0.999999)  # of the decoder; None = as the others
    beta2: float = within(0.99, 0, 0.999999)
    # Half-life of the averaged weights that are released.
    ema_images: float = within(10_000, 1e-3, MAX_IMAGES)

    def check(self, total_images: int) -> None:
        """Raise :class:`UserError` unless so many images can be trained on."""
        if total_images < self.batch:
            raise UserError(
                f"schedule.total_images ({total_images}) is less than one batch ({self.batch})."
            )


@dataclass
class ComputeConfig:
    """How and where it runs; none of these changes what is learned (but for rounding)."""

    device: str = one_of("auto", *DEVICES)
    # auto: bf16 on GPUs that have it and where a CPU was measured to be faster in it; a resumed
    # training keeps what it began with.
    precision: str = one_of("auto", *PRECISIONS)
    threads: int = within(1, 1, 1024)  # CPU threads for each process
    log_steps: int = within(20, 1, 10**9)  # steps between lines of log.jsonl
    grid_images: int = images(32_000, least=1)  # images between picture grids
    checkpoint_minutes: float = within(5.0, 0, 10**6)
    tensorboard: bool = True


@dataclass
class RunConfig(ComputeConfig):
    """As :class:`ComputeConfig`, with what the large networks of a generator may need."""

    # Parts of a process's batch that are computed one after another: as many times less memory for
    # activations, one pass of the generator more.
    accumulate: int = within(1, 1, 1024)
    # Blocks of this resolution and up are computed again in the backward pass instead of kept;
    # None = all are kept.
    recompute_from: int | None = within(None, 4, 256)
    compile: bool = False  # torch.compile for generator and decoder; meant for GPUs


@dataclass
class ModulationConfig:
    """How a key is attached to a generator that others trained; see scalefp/pretrained/."""

    # Names of the layers whose channels a key scales; None = all that are used and can be.
    layers: list[str] | None = None
    # Of those whose weights get a sum of learned tensors, one for each bit and with its sign.
    deltas: list[str] = field(default_factory=list)
    key_gain: float = within(0.1, 0, 1000)  # initial strength of the modulation
    # Initial change of weights by `deltas`, in units of the weights' own deviation.
    delta_gain: float = within(1.0, 0, 1000)
    delta_rate: float = within(10.0, 1e-6, 1e6)  # learning rate of `deltas`, relative
    method: str = "forward"  # what makes the images, for example decode
    # Values of the images that stand for black and white; -1 and 1, or 0 and 1.
    range: list[float] = field(
        default_factory=lambda: [-1.0, 1.0], metadata={"allowed": ([-1, 1], [0, 1])}
    )
    # Keys for each input. What comes before the first modulated layer is computed once for all.
    keys_each: int = within(1, 1, 1024)
    fitted_start: bool = True  # the decoder begins as the receiver that fits the original's images
    # What reads: a decoder that is trained, or `inversion` of the generator, which takes none.
    reader: str = one_of("decoder", "decoder", "inversion")
    inversion_steps: int = within(20, 1, 10_000)  # in which a picture is read by inversion
    # Where inputs are drawn and not encoded: how many are changed in these steps until the nearest
    # goes on, and rounds in which it and the key are found together.
    inversion_starts: int = within(2, 1, 1024)
    inversion_rounds: int = within(6, 1, 1000)

    def check(self, batch: int) -> None:
        """Raise :class:`UserError` for options that cannot work."""
        if batch % self.keys_each:
            raise UserError(
                f"optimizer.batch (of one process {batch}) must be a multiple of "
                f"modulation.keys_each ({self.keys_each})."
            )


@dataclass
class TrainConfig:
    """Everything ``scalefp train`` knows."""

    name: str = "default"  # names the run folder, runs/NAME
    # Folder or state.pt of another run of the same model, or a folder of its networks as `scalefp
    # release networks` writes them.
    start_from: str | None = None
    seed: int = within(0, 0, MAX_SEED)
    # False: the same networks trained without keys, each latent of its own, as a baseline that
    # tells what the fingerprint costs.
    fingerprint: bool = True
    # Number of keys trained on, drawn once by the seed; None = a new one for every image.
    training_keys: int | None = within(None, 2, 10**7)
    model: ModelConfig = field(default_factory=ModelConfig)
    # A generator that others trained, to be fingerprinted instead of training one: `_target_`, its
    # class; `weights`, a file of its state dict (PACKAGE:FILE for one in a package); `weights_key`,
    # where in the file that is; anything else goes to the class. Of `model` only the sizes of
    # pictures, key and decoder count then, and of `loss` all but what a discriminator, latents,
    # path lengths or the range of pixels are for: such a generator stays near its own pictures.
    generator: dict[str, Any] = field(default_factory=dict)
    # What such a generator is fed with: `_target_`, a class with `draw`, and its arguments.
    inputs: dict[str, Any] = field(default_factory=dict)
    modulation: ModulationConfig = field(default_factory=ModulationConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    # Perturbation -> probability, applied to what the decoder sees once all bits are readable,
    # mildly at first and in full after schedule.ramp_images.
    perturb: dict[str, float] = field(default_factory=dict)
    run: RunConfig = field(default_factory=RunConfig)

    def check(self, world_size: int = 1) -> None:
        """Raise :class:`UserError` for options that cannot work, alone or together."""
        check_options(self)
        check_run_name(self.name)
        self.model.check()
        if bool(self.generator) != bool(self.inputs):
            raise UserError("generator and inputs belong together: give both, or neither.")
        if self.generator:
            if not self.fingerprint or self.run.accumulate > 1:
                raise UserError(
                    "fingerprint=false and run.accumulate are for generators that are trained from "
                    "nothing; leave them out with generator=."
                )
            self.modulation.check(self.optimizer.batch // world_size)
        elif self.modulation != ModulationConfig():
            raise UserError(
                "modulation is for a generator that others trained: give generator= and inputs=, "
                "or leave it out."
            )
        self.loss.check(adopted=bool(self.generator))
        batch, share = self.optimizer.batch, 2 * world_size
        if batch < share or batch % share:
            raise UserError(
                f"optimizer.batch must be a multiple of {share} (two keys for each latent on each "
                f"of {world_size} processes), not {batch}."
            )
        unit = 16 * self.run.accumulate * world_size  # see training/batch.py
        if self.run.accumulate > 1 and batch % unit:
            raise UserError(
                f"with run.accumulate={self.run.accumulate} optimizer.batch must be a multiple of "
                f"{unit} (16 images for each part on each of {world_size} processes), not {batch}."
            )
        self.optimizer.check(self.schedule.total_images)
        if (self.schedule.curriculum_bits or 0) > self.model.n_bits:
            raise UserError(
                f"schedule.curriculum_bits must be at most model.n_bits "
                f"({self.model.n_bits}), not {self.schedule.curriculum_bits}."
            )
        if self.schedule.hide_psnr is not None and self.loss.consistency <= 0:
            raise UserError(
                "schedule.hide_psnr moves the consistency weight, so loss.consistency must be "
                "above 0; set schedule.hide_psnr=null to train without it."
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
