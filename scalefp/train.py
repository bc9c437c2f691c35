"""``scalefp train``: one visible loop, resumed exactly by the same command.

Progress counts images. What one step does is in step.py.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import hydra
import numpy as np
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from scalefp import perturb
from scalefp.config import TrainConfig, conf_dir
from scalefp.data import ImageSet
from scalefp.distributed import join, leave, pick_device, pick_precision
from scalefp.errors import UserError
from scalefp.generator import Generator
from scalefp.images import grid, save_png, to_uint8
from scalefp.schedule import psnr
from scalefp.step import step
from scalefp.training_log import check_finite, open_tensorboard, trim_log
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
    if config.run.compile:
        # Not the discriminator: compiled networks have no second derivatives, which R1 needs.
        for network in (state.generator, state.decoder):
            network.compile()
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
                seconds, since = time.monotonic() - since, time.monotonic()
                steps = len(recent["adversarial"])
                figures["images_per_second"] = batch * steps / max(seconds, 1e-9)
                recent = {}
                if config.fingerprint:
                    figures["psnr"] = psnr(figures["consistency"])
                    figures["consistency_weight"] = progress.consistency_weight
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
