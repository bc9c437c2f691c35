"""``scalefp train``: one visible loop, resumed exactly by the same command.

Progress counts images. All randomness of a step comes from (seed, process, images seen), so that a
run that was stopped goes on as if it had not been.
"""

import json
import math
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from scalefp import losses, perturb
from scalefp.config import TrainConfig, conf_dir
from scalefp.data import ImageSet, sample_indices
from scalefp.distributed import World, join, leave, pick_device, pick_precision
from scalefp.errors import UserError
from scalefp.files import atomic_path
from scalefp.generator import Generator
from scalefp.images import grid, save_png, to_float, to_uint8
from scalefp.schedule import learning_rate, psnr, step_generator
from scalefp.training_state import TrainingState

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@torch.inference_mode()
def picture_grids(generator: Generator) -> dict[str, Tensor]:
    """The pictures to judge a training by, each uint8 [n, 3, R, R] to be shown 8 in a row.

    ``latents``: 8 latents under one key. ``keys``: each of 8 latents (columns) under 4 keys (rows).
    ``difference``: those of the last three keys less the first, times 10, around grey.
    """
    draw, config = torch.Generator().manual_seed(0), generator.config
    z = torch.randn(32, config.latent_dim, generator=draw).to(generator.input.weight.device)
    bits = torch.randint(0, 2, (4, config.n_bits), generator=draw).to(z.device)
    latents = generator(z, bits[:1].expand(32, -1))
    keys = generator(z[:8].repeat(4, 1), bits.repeat_interleave(8, dim=0))
    difference = (keys[8:] - keys[:8].repeat(3, 1, 1, 1)) * 10
    pictures = {"latents": latents, "keys": keys, "difference": difference}
    return {name: to_uint8(images).cpu() for name, images in pictures.items()}


def step(
    config: TrainConfig,
    state: TrainingState,
    data: ImageSet,
    world: World,
    precision: torch.dtype,
) -> dict[str, float]:
    """One step of all networks on ``optimizer.batch`` images; moves the curriculum on.

    Returns:
        The unweighted loss terms and the bit accuracy, averaged over the processes.
    """
    generator, decoder, discriminator = state.generator, state.decoder, state.discriminator
    progress = state.progress
    options, loss, device = config.optimizer, config.loss, world.device
    share = options.batch // world.size  # images of this process
    draw = step_generator(config.seed, world.rank, progress.images)
    number = progress.images // options.batch
    terms: dict[str, Tensor] = {}
    for optimizer in (state.reader_optimizer, state.discriminator_optimizer):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, progress.images)

    def cast() -> Any:
        mixed = precision != torch.float32
        return torch.autocast(device.type, precision) if mixed else nullcontext()

    # Data, latents and keys: each latent under two keys, pairs side by side.
    indices = sample_indices(len(data), config.seed, progress.images, options.batch)
    real = to_float(data.batch(indices[world.rank :: world.size])).to(device)
    if config.data.flip:
        mirrored = torch.rand(share, generator=draw) < 0.5
        real[mirrored] = real[mirrored].flip(3)
    z = torch.randn(share // 2, config.model.latent_dim, generator=draw)
    z = z.repeat_interleave(2, dim=0).to(device)
    bits = torch.randint(0, 2, (share, config.model.n_bits), generator=draw).to(device)
    with cast():
        fake = generator(z, bits, progress.n_active)

    # Discriminator.
    discriminator.requires_grad_(True)
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    with cast():
        parts = losses.discriminator_terms(discriminator(real), discriminator(fake.detach()))
    (parts["real"] + parts["fake"]).backward()
    terms["discriminator_real"], terms["discriminator_fake"] = parts["real"], parts["fake"]
    if loss.r1 and number % loss.r1_interval == 0:
        real.requires_grad_(True)
        with cast():
            penalty = losses.r1_penalty(discriminator(real), real)
        (penalty * loss.r1 * loss.r1_interval).backward()
        terms["r1"] = penalty
    world.average_gradients(discriminator)
    state.discriminator_optimizer.step()

    # Generator and decoder.
    discriminator.requires_grad_(False)
    state.reader_optimizer.zero_grad(set_to_none=True)
    seen = perturb.through_file(fake, config.perturb if progress.readable else {}, draw)
    with cast():
        fake_logits = discriminator(fake)
        key_logits, recovered = decoder(seen)
    generator_terms = losses.generator_terms(
        fake_logits=fake_logits,
        key_logits=key_logits,
        bits=bits,
        n_active=progress.n_active,
        recovered=recovered,
        z=z,
        images=fake,
    )
    losses.total(generator_terms, progress.weights(config)).backward()
    terms |= generator_terms
    if loss.path_length and number % loss.path_length_interval == 0:
        embedding = generator.embedding(bits[::2], progress.n_active)
        with cast():
            images = generator.synthesize(z[::2], embedding)
        noise = torch.randn(images.shape, generator=draw).to(device)
        lengths = losses.path_lengths(images, embedding, noise)
        progress.path_mean += 0.01 * (
            float(world.average(lengths.detach().mean())) - progress.path_mean
        )
        penalty = (lengths - progress.path_mean).square().mean()
        (penalty * loss.path_length * loss.path_length_interval).backward()
        terms["path_length"] = penalty
    for module in (generator, decoder):
        world.average_gradients(module)
    state.reader_optimizer.step()

    # Averaged weights; early on the average is kept short.
    half_life = min(options.ema_images, 0.05 * (progress.images + options.batch))
    weight = 1 - 0.5 ** (options.batch / half_life)
    with torch.no_grad():
        for average, current in (
            (state.average_generator, generator),
            (state.average_decoder, decoder),
        ):
            weights = [parameter.detach() for parameter in current.parameters()]
            torch._foreach_lerp_(list[Tensor](average.parameters()), weights, weight)

    n_active = progress.n_active
    correct = (key_logits[:, :n_active] > 0) == (bits[:, :n_active] > 0)
    terms["bit_accuracy"] = correct.float().mean()
    means = world.average(torch.stack([term.detach().float() for term in terms.values()]))
    values = dict(zip(terms, means.tolist(), strict=True))
    progress.advance(values["bit_accuracy"], values["consistency"], config)
    return values


def check_finite(terms: dict[str, float], images: int) -> None:
    """Raise :class:`UserError` naming the first term that is not finite."""
    for name, value in terms.items():
        if not math.isfinite(value):
            raise UserError(
                f"The loss term {name!r} became {value} after {images} images; the last "
                "checkpoint is kept. Lower optimizer.learning_rate or that term's weight."
            )


def trim_log(log: Path, images: int) -> dict[str, float]:
    """Drop what an interrupted run logged past its checkpoint; the last figures that remain."""
    lines = log.read_text().splitlines() if log.exists() else []
    kept = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # cut off when the process was killed
            break
        if record["images"] > images:
            break
        kept.append(record)
    if len(kept) < len(lines):
        with atomic_path(log) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
    return kept[-1] if kept else {}


def open_tensorboard(run_dir: Path, images: int) -> Any:
    """A TensorBoard writer that drops what an interrupted run wrote past its checkpoint."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import, not always wanted

    return SummaryWriter(str(run_dir), purge_step=images)


def train(config: TrainConfig, run_dir: str | Path) -> dict[str, float]:
    """Train generator, decoder and discriminator together.

    Writes into ``run_dir``: ``state.pt`` (exact resume), ``release.safetensors`` (averaged
    generator and decoder), ``log.jsonl``, ``grids/*.png`` and TensorBoard events.

    Returns:
        The last logged figures (``bit_accuracy``, ``psnr``, the loss terms, ...).

    Raises:
        UserError: options, data or run folder that do not work, or a loss that is not finite.
        SystemExit: stopped by SIGINT or SIGTERM, after saving (code 130 or 143).
    """
    # Check everything before anything is built.
    config.check(int(os.environ.get("WORLD_SIZE", "1")))
    perturb.check_names(config.perturb)
    device = pick_device(config.run)
    precision = pick_precision(config.run, device)
    torch.set_num_threads(config.run.threads)
    run_dir = Path(run_dir)
    try:
        (run_dir / "grids").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to run folder {run_dir}: {error.strerror}.") from error
    world = join(device)
    data = ImageSet(
        config.data.source,
        config.model.resolution,
        workers=config.data.workers,
        progress=world.is_main,
    )

    state = TrainingState.build(config, world.device)
    state.restore(run_dir, config)
    progress = state.progress
    if world.is_main and progress.images and not (run_dir / "release.safetensors").exists():
        state.save(run_dir, config)

    # A signal lets the current step finish and be saved.
    signals: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    handlers = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS}
    writer = None
    if config.run.tensorboard and world.is_main:
        writer = open_tensorboard(run_dir, progress.images)
    bar = tqdm(
        total=config.schedule.total_images, initial=progress.images, unit="img", desc="train",
        disable=not world.is_main, mininterval=1,
    )  # fmt: skip
    batch = config.optimizer.batch
    log = run_dir / "log.jsonl"
    figures = trim_log(log, progress.images) if world.is_main else {}
    recent: dict[str, list[float]] = {}  # each step's terms since the last line of the log
    since = saved_at = time.monotonic()
    try:
        while progress.images < config.schedule.total_images:
            terms = step(config, state, data, world, precision)
            check_finite(terms, progress.images)
            progress.images += batch
            for name, value in terms.items():
                recent.setdefault(name, []).append(value)
            bar.update(batch)

            # Log.
            finished = progress.images >= config.schedule.total_images
            if (progress.images // batch) % config.run.log_steps == 0 or finished:
                figures = {"images": progress.images, "n_active": progress.n_active}
                figures |= {name: sum(values) / len(values) for name, values in recent.items()}
                figures["psnr"] = psnr(figures["consistency"])
                figures["consistency_weight"] = progress.consistency_weight
                seconds, since = time.monotonic() - since, time.monotonic()
                figures["images_per_second"] = batch * len(recent["bits"]) / max(seconds, 1e-9)
                recent = {}
                bar.set_postfix_str(
                    f"bits {figures['bit_accuracy']:.3f} of {progress.n_active}, "
                    f"key hides at {figures['psnr']:.1f} dB"
                )
                if world.is_main:
                    with log.open("a") as file:
                        file.write(json.dumps(figures) + "\n")
                if writer is not None:
                    for name, value in figures.items():
                        writer.add_scalar(name, value, progress.images)

            # Pictures.
            period = config.run.grid_images
            passed = progress.images // period > (progress.images - batch) // period
            if world.is_main and (passed or finished):
                for name, pictures in picture_grids(state.average_generator).items():
                    sheet = grid(pictures, columns=8)
                    save_png(run_dir / "grids" / f"{name}-{progress.images:09d}.png", sheet)
                    if writer is not None:
                        writer.add_image(
                            name, np.asarray(sheet), progress.images, dataformats="HWC"
                        )

            # Checkpoint.
            due = time.monotonic() - saved_at > 60 * config.run.checkpoint_minutes
            stopping, due = world.any([bool(signals), due and world.is_main])
            if stopping or due or finished:
                if world.is_main:
                    state.save(run_dir, config)
                world.barrier()
                saved_at = time.monotonic()
            if stopping and not finished:
                bar.close()
                if world.is_main:
                    print(
                        f"Stopped and saved at {progress.images} images; "
                        "the same command goes on from there.",
                        file=sys.stderr,
                    )
                raise SystemExit(128 + (signals[0] if signals else signal.SIGTERM))
    finally:
        bar.close()
        if writer is not None:
            writer.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        leave(world)
    return figures


ConfigStore.instance().store(name="train_schema", node=TrainConfig)


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")
def main(options: DictConfig) -> float:
    """Hydra entry point; returns the bit accuracy, for sweepers."""
    config = OmegaConf.to_object(options)
    assert isinstance(config, TrainConfig)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    try:
        figures = train(config, run_dir)
    except UserError as error:
        print(f"scalefp: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    if int(os.environ.get("RANK", "0")) == 0:
        print(run_dir / "release.safetensors")
    return figures.get("bit_accuracy", math.nan)


if __name__ == "__main__":
    main()
