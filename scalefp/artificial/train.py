"""``scalefp artificial train``: one visible loop, resumed exactly by the same command.

Progress counts images. What one step does is in step.py.
"""

import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from scalefp import perturb
from scalefp.artificial.config import MarkTrainConfig
from scalefp.artificial.encoder import Encoder, mark
from scalefp.artificial.state import MarkState
from scalefp.artificial.step import step
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_float, to_uint8
from scalefp.training.distributed import pick_device, pick_precision
from scalefp.training.log import TrainingLog, check_finite
from scalefp.training.run import caught_signals, make_run_folder, stop
from scalefp.training.schedule import psnr

GAIN = 10  # of the residual in pictures of it


@torch.inference_mode()
def picture_grid(encoder: Encoder, data: ImageSet) -> Tensor:
    """Eight images clean, marked, and the residual times ten around grey: uint8 [24, 3, R, R]."""
    some = torch.linspace(0, len(data) - 1, 8).long()
    device = encoder.carriers.weight.device
    images = to_float(data.batch(some)).to(device)
    draw = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 2, (8, encoder.config.n_bits), generator=draw).to(device)
    marked = mark(images, encoder(images, bits))
    return to_uint8(torch.cat([images, marked, (marked - images) * GAIN])).cpu()


def train(config: MarkTrainConfig, run_dir: str | Path) -> dict[str, float]:
    """Train encoder and decoder together.

    Writes into ``run_dir``: ``state.pt`` (exact resume), ``release.safetensors`` (the averaged
    networks), ``log.jsonl``, ``grids/*.png`` and TensorBoard events.

    Returns:
        The last logged figures (``bit_accuracy``, ``psnr``, the loss terms, ...).

    Raises:
        UserError: options, data or run folder that do not work, or a loss that is not finite.
        SystemExit: stopped by SIGINT or SIGTERM, after saving (code 130 or 143).
    """
    # Check everything before anything is built.
    config.check()
    perturb.check_names(config.perturb)
    device = pick_device(config.run)
    precision = pick_precision(config.run, device)
    torch.set_num_threads(config.run.threads)
    run_dir = make_run_folder(run_dir)
    data = ImageSet(config.data.source, config.model.resolution, workers=config.data.workers)

    state = MarkState.build(config, data, device)
    state.restore(run_dir, config)
    progress = state.progress
    if progress.images and not (run_dir / "release.safetensors").exists():
        state.save(run_dir, config)

    total, batch = config.schedule.total_images, config.optimizer.batch
    with (
        caught_signals() as signals,
        TrainingLog(run_dir, progress.images, tensorboard=config.run.tensorboard) as log,
        tqdm(total=total, initial=progress.images, unit="img", desc="train", mininterval=1) as bar,
    ):
        saved_at = time.monotonic()
        while progress.images < total:
            terms = step(config, state, data, device, precision)
            check_finite(terms, progress.images)
            log.add(terms, batch)
            progress.images += batch
            bar.update(batch)

            # Log.
            finished = progress.images >= total
            if (progress.images // batch) % config.run.log_steps == 0 or finished:
                figures = {"images": progress.images, "ramp": progress.ramp(config)} | log.means()
                figures["psnr"] = psnr(figures["pixels"])
                figures["images_per_second"] = log.images_per_second()
                bar.set_postfix_str(
                    f"bits {figures['bit_accuracy']:.3f}, mark at {figures['psnr']:.1f} dB"
                )
                log.write(figures)

            # Pictures.
            period = config.run.grid_images
            if finished or progress.images // period > (progress.images - batch) // period:
                log.show("marks", picture_grid(state.average_encoder, data), progress.images)

            # Checkpoint.
            due = time.monotonic() - saved_at > 60 * config.run.checkpoint_minutes
            if signals or due or finished:
                state.save(run_dir, config)
                saved_at = time.monotonic()
            if signals and not finished:
                bar.close()
                stop(signals, progress.images)
    return log.figures
