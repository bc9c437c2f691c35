"""A training step: ours against the textbook's, its parts, and the arithmetic it cannot avoid."""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from scalefp.bench import textbook
from scalefp.bench.parts import shares
from scalefp.bench.rows import Row, row
from scalefp.bench.timing import interleaved, matrix_rate, milliseconds, rates
from scalefp.config import ModelConfig, OptimizerConfig, RunConfig, TrainConfig
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_float
from scalefp.training import losses
from scalefp.training.distributed import World
from scalefp.training.precision import pick_precision
from scalefp.training.state import TrainingState
from scalefp.training.step import Step

R1_INTERVAL = 16  # steps; both sides regularize as lazily
BATCH = {32: 16, 64: 16, 128: 8}


def configuration(resolution: int) -> TrainConfig:
    """Widths 128, 128, 128, 64, 32 from 4 to 64 pixels, and so on for other resolutions."""
    return TrainConfig(
        model=ModelConfig(resolution=resolution, channel_base=32 * resolution),
        optimizer=OptimizerConfig(batch=BATCH[resolution]),
    )


def noise_pictures(resolution: int, batch: int | None = None) -> ImageSet:
    """Pictures for two batches to train on: what they show does not matter here."""
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(2 * (batch or BATCH[resolution])):
            pixels = draw.integers(0, 256, (resolution, resolution, 3), np.uint8)
            Image.fromarray(pixels).save(Path(folder) / f"{number}.png")
        return ImageSet(folder, resolution, progress=False)


class Ours:
    """A training's own step, again and again at the same place; ``number`` 0 has R1 in it."""

    def __init__(self, config: TrainConfig, data: ImageSet, precision: torch.dtype) -> None:
        self.config, world = config, World(0, 1, torch.device("cpu"))
        self.state = TrainingState.build(config, world.device)
        self._step = Step(config, self.state, data, world, precision)
        self.networks = {
            "generator": self.state.generator,
            "discriminator": self.state.discriminator,
            "decoder": self.state.decoder,
        }

    def step(self, number: int = 1) -> None:
        self.state.progress.images = number * self.config.optimizer.batch
        self._step()


class Textbook:
    """The same losses on the same images by the textbook's networks, in its two phases."""

    def __init__(
        self, config: TrainConfig, data: ImageSet, device: torch.device | str = "cpu"
    ) -> None:
        model, options = config.model, config.optimizer
        torch.manual_seed(config.seed)
        self.config, self.device = config, torch.device(device)
        self.real = to_float(data.batch(range(options.batch))).to(device)
        self.generator = textbook.Generator(model)
        self.discriminator = textbook.Discriminator(model)
        self.decoder = textbook.Discriminator(model, model.n_bits + model.latent_dim)
        for network in (self.generator, self.discriminator, self.decoder):
            network.to(device)
        self.averages = [torch.zeros_like(p) for p in self.generator.parameters()]
        self.networks = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "decoder": self.decoder,
        }
        readers = [*self.generator.parameters(), *self.decoder.parameters()]
        betas = (options.beta1, options.beta2)
        self.reader_optimizer = torch.optim.Adam(readers, lr=0.002, betas=betas)
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=0.002, betas=betas
        )

    def _latents_and_bits(self) -> tuple[torch.Tensor, torch.Tensor]:
        model, batch = self.config.model, self.config.optimizer.batch
        z = torch.randn(batch // 2, model.latent_dim, device=self.device)
        bits = torch.randint(0, 2, (batch, model.n_bits), device=self.device)
        return z.repeat_interleave(2, dim=0), bits

    def step(self, r1: bool = False) -> None:
        self.discriminator_phase(r1)
        self.generator_phase()

    def discriminator_phase(self, r1: bool = False) -> None:
        self.discriminator.requires_grad_(True)
        real = self.real.detach()
        with torch.no_grad():
            fake = self.generator(*self._latents_and_bits())
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        parts = losses.discriminator_terms(self.discriminator(real), self.discriminator(fake))
        (parts["real"] + parts["fake"]).backward()
        if r1:
            real.requires_grad_(True)
            penalty = losses.r1_penalty(self.discriminator(real), real)
            (penalty * R1_INTERVAL).backward()
        self.discriminator_optimizer.step()

    def generator_phase(self) -> None:
        self.discriminator.requires_grad_(False)
        self.reader_optimizer.zero_grad(set_to_none=True)
        z, bits = self._latents_and_bits()
        fake = self.generator(z, bits)
        read = self.decoder(fake)
        logits, latents = read[:, : bits.shape[1]], read[:, bits.shape[1] :]
        (
            F.softplus(-self.discriminator(fake)).mean()
            + F.mse_loss(latents, z)
            + 30 * losses.key_bits(logits, bits)
            + 30 * F.mse_loss(fake[0::2], fake[1::2])
        ).backward()
        self.reader_optimizer.step()
        with torch.no_grad():
            for average, parameter in zip(self.averages, self.generator.parameters(), strict=True):
                average.lerp_(parameter, 0.001)


def measure(resolution: int, repeats: int = 3) -> list[Row]:
    """Rows of one resolution: whole steps, arithmetic, parts, regularizer."""
    config, data = configuration(resolution), noise_pictures(resolution)
    batch = config.optimizer.batch
    fast = pick_precision(RunConfig(), torch.device("cpu"))
    ours = {precision: Ours(config, data, precision) for precision in {fast, torch.float32}}
    book, own = Textbook(config, data), ours[fast]

    # Whole steps without regularizer.
    book_times, *our_times = interleaved(
        [book.step, *(one.step for one in ours.values())], repeats, warm_up=1
    )
    rows = []
    for precision, seconds in zip(ours, our_times, strict=True):
        name, target = ("bf16", ">= 4") if precision == torch.bfloat16 else ("fp32", ">= 2")
        what = f"training step, {name}, {resolution} px, batch {batch}"
        beside = ("textbook, fp32", rates(book_times, batch))
        rows.append(row(what, "img/s", rates(seconds, batch), beside=beside, target=target))
        if precision == fast:
            own_times = milliseconds(seconds, batch)
    textbook_times = milliseconds(book_times, batch)

    # The arithmetic of a step at the rate of matrix products.
    with FlopCounterMode(display=False) as counter:
        own.step()
    floor = 1000 * counter.get_total_flops() / batch / matrix_rate(fast)
    beside = ("its arithmetic at the matrix rate", [floor])
    rows.append(row(f"training step, {resolution} px", "ms/img", own_times, beside=beside))

    # Parts.
    whole, textbook_whole = statistics.median(own_times), statistics.median(textbook_times)
    textbook_shares = shares(book.step, book.networks)
    for name, share in shares(own.step, own.networks).items():
        beside = ("textbook", [textbook_whole * textbook_shares[name]])
        what = f"of this: {name}, {resolution} px"
        rows.append(row(what, "ms/img", [whole * share], beside=beside))
    with_r1, textbook_with_r1 = interleaved(
        [lambda: own.step(0), lambda: book.step(r1=True)],
        1,
        warm_up=1,
    )
    extra = milliseconds(with_r1, batch)[0] - whole
    textbook_extra = milliseconds(textbook_with_r1, batch)[0] - textbook_whole
    what = f"R1 in one step of {R1_INTERVAL}, {resolution} px"
    beside = ("textbook", [max(textbook_extra, 0) / R1_INTERVAL])
    return [*rows, row(what, "ms/img", [max(extra, 0) / R1_INTERVAL], beside=beside)]


def phases(repeats: int = 5) -> list[Row]:
    """The textbook's two phases at 64 pixels, to check the reference itself."""
    config = configuration(64)
    book, batch = Textbook(config, noise_pictures(64)), config.optimizer.batch
    times = interleaved([book.generator_phase, book.discriminator_phase], repeats, warm_up=1)
    names = ("generator", "discriminator")
    return [
        row(f"textbook's {name} phase, 64 px, batch {batch}", "ms/img", milliseconds(each, batch))
        for name, each in zip(names, times, strict=True)
    ]
