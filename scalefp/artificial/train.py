"""``scalefp artificial train``: one visible loop, resumed exactly by the same command.

Progress counts images. What one step does is in step.py.
"""

import json
import math
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
from scalefp.artificial.config import MarkTrainConfig
from scalefp.artificial.encoder import Encoder, mark
from scalefp.artificial.losses import psnr
from scalefp.artificial.state import MarkState
from scalefp.artificial.step import step
from scalefp.config import conf_dir
from scalefp.data import ImageSet
from scalefp.distributed import pick_device, pick_precision
from scalefp.errors import UserError
from scalefp.images import grid, save_png, to_float, to_uint8
from scalefp.training_log import check_finite, open_tensorboard, trim_log

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
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
    run_dir = Path(run_dir)
    try:
        (run_dir / "grids").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to run folder {run_dir}: {error.strerror}.") from error
    data = ImageSet(config.data.source, config.model.resolution, workers=config.data.workers)

    state = MarkState.build(config, data, device)
    state.restore(run_dir, config)
    progress = state.progress
    if progress.images and not (run_dir / "release.safetensors").exists():
        state.save(run_dir, config)

    # A signal lets the current step finish and be saved.
    signals: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    handlers = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS}
    writer = open_tensorboard(run_dir, progress.images) if config.run.tensorboard else None
    total, batch = config.schedule.total_images, config.optimizer.batch
    bar = tqdm(total=total, initial=progress.images, unit="img", desc="train", mininterval=1)
    log = run_dir / "log.jsonl"
    figures = trim_log(log, progress.images)
    recent: dict[str, list[float]] = {}  # each step's terms since the last line of the log
    since = saved_at = time.monotonic()
    try:
        while progress.images < total:
            terms = step(config, state, data, device, precision)
            check_finite(terms, progress.images)
            progress.images += batch
            for name, value in terms.items():
                recent.setdefault(name, []).append(value)
            bar.update(batch)

            # Log.
            finished = progress.images >= total
            if (progress.images // batch) % config.run.log_steps == 0 or finished:
                figures = {"images": progress.images, "ramp": progress.ramp(config)}
                figures |= {name: sum(values) / len(values) for name, values in recent.items()}
                figures["psnr"] = psnr(figures["pixels"])
                seconds, since = time.monotonic() - since, time.monotonic()
                steps = len(recent["bits"])
                figures["images_per_second"] = batch * steps / max(seconds, 1e-9)
                recent = {}
                bar.set_postfix_str(
                    f"bits {figures['bit_accuracy']:.3f}, mark at {figures['psnr']:.1f} dB"
                )
                with log.open("a") as file:
                    file.write(json.dumps(figures) + "\n")
                if writer is not None:
                    for name, value in figures.items():
                        writer.add_scalar(name, value, progress.images)

            # Pictures.
            period = config.run.grid_images
            if finished or progress.images // period > (progress.images - batch) // period:
                sheet = grid(picture_grid(state.average_encoder, data), columns=8)
                save_png(run_dir / "grids" / f"marks-{progress.images:09d}.png", sheet)
                if writer is not None:
                    writer.add_image("marks", np.asarray(sheet), progress.images, dataformats="HWC")

            # Checkpoint.
            due = time.monotonic() - saved_at > 60 * config.run.checkpoint_minutes
            if signals or due or finished:
                state.save(run_dir, config)
                saved_at = time.monotonic()
            if signals and not finished:
                bar.close()
                print(
                    f"Stopped and saved at {progress.images} images; "
                    "the same command goes on from there.",
                    file=sys.stderr,
                )
                raise SystemExit(128 + signals[0])
    finally:
        bar.close()
        if writer is not None:
            writer.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return figures


ConfigStore.instance().store(name="artificial_schema", node=MarkTrainConfig)


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="artificial")
def main(options: DictConfig) -> float:
    """Hydra entry point; returns the bit accuracy, for sweepers."""
    config = OmegaConf.to_object(options)
    assert isinstance(config, MarkTrainConfig)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    try:
        figures = train(config, run_dir)
    except UserError as error:
        print(f"scalefp: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    print(run_dir / "release.safetensors")
    return figures.get("bit_accuracy", math.nan)


if __name__ == "__main__":
    main()
