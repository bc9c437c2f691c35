"""One visible training loop, resumed exactly by the same command.

Progress counts images. What one step does is in step.py.
"""

import os
import time
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from scalefp import perturb
from scalefp.config import TrainConfig
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_uint8
from scalefp.networks.generator import Generator
from scalefp.training.distributed import join, pick_device, pick_precision
from scalefp.training.log import TrainingLog, check_finite
from scalefp.training.run import caught_signals, make_run_folder, stop
from scalefp.training.schedule import psnr
from scalefp.training.state import TrainingState
from scalefp.training.step import step


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
    run_dir = make_run_folder(run_dir)
    world = join(device)
    data = ImageSet(
        config.data.source,
        config.model.resolution,
        workers=config.data.workers,
        progress=world.is_main,
    )

    state = TrainingState.build(config, world.device)
    state.restore(run_dir, config)
    if config.run.compile:
        # Not the discriminator: compiled networks have no second derivatives, which R1 needs.
        for network in (state.generator, state.decoder):
            network.compile()
    progress = state.progress
    if world.is_main and progress.images and not (run_dir / "release.safetensors").exists():
        state.save(run_dir, config)

    total, batch = config.schedule.total_images, config.optimizer.batch
    with (
        closing(world),
        caught_signals() as signals,
        TrainingLog(
            run_dir, progress.images, tensorboard=config.run.tensorboard, writes=world.is_main
        ) as log,
        tqdm(
            total=total, initial=progress.images, unit="img", desc="train",
            disable=not world.is_main, mininterval=1,
        ) as bar,
    ):  # fmt: skip
        saved_at = time.monotonic()
        while progress.images < total:
            terms = step(config, state, data, world, precision)
            check_finite(terms, progress.images)
            log.add(terms, batch)
            progress.images += batch
            bar.update(batch)

            # Log.
            finished = progress.images >= total
            if (progress.images // batch) % config.run.log_steps == 0 or finished:
                figures = {"images": progress.images, "n_active": progress.n_active, **log.means()}
                figures["images_per_second"] = log.images_per_second()
                if config.fingerprint:
                    figures["psnr"] = psnr(figures["consistency"])
                    figures["consistency_weight"] = progress.consistency_weight
                    bar.set_postfix_str(
                        f"bits {figures['bit_accuracy']:.3f} of {progress.n_active}, "
                        f"key hides at {figures['psnr']:.1f} dB"
                    )
                log.write(figures)

            # Pictures.
            period = config.run.grid_images
            passed = progress.images // period > (progress.images - batch) // period
            if world.is_main and (passed or finished):
                for name, pictures in picture_grids(state.average_generator).items():
                    log.show(name, pictures, progress.images)

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
                stop(signals, progress.images, quiet=not world.is_main)
    return log.figures
