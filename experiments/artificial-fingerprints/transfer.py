"""Can the key be read from what generators make that were trained on marked images?

One job marks a data set with one random key (or does not), trains a generator on it that knows
nothing of fingerprints, and reads its images. transfer_report.py makes the table of all jobs.

    python experiments/artificial-fingerprints/transfer.py -m \\
        data=emoji,cifar,faces generator=ours,dcgan,ddpm marked=true,false \\
        sources.cifar=cifar10-train32.zip sources.faces=faces128.zip
"""

import copy
import json
import subprocess
import sys
import time
import zlib
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from generators.kept import save_generator
from generators.learner import Learner
from scalefp.artificial.marker import Marker
from scalefp.data.dataset import ImageSet
from scalefp.data.images import grid, save_png, to_uint8
from scalefp.errors import UserError
from scalefp.experiment import hardware, write_json
from scalefp.key import Key
from scalefp.loading import load_marker
from scalefp.release.container import load_state, save_state
from scalefp.training.log import check_finite
from transfer_config import GENERATORS, TransferConfig, check_settings
from transfer_figures import Yardstick, write_samples

CHECKPOINT_MINUTES = 2.0
BLOCK = 1024  # images marked at a time


# Marked images.


def get_marker(config: TransferConfig) -> Marker:
    """The marker of the data set: as given, or trained on it (once: it is kept in ``folder``).

    Raises:
        UserError: a marker that cannot be used here, or whose training failed.
    """
    path = config.markers.get(config.data)
    if not path:
        run = Path(config.folder) / f"marker-{config.data}"
        path = str(run / "release.safetensors")
        # In a process of its own: a Hydra program cannot run inside another. It goes on where it
        # was stopped, and a finished training ends at once.
        options = [f"marker={config.marker}", f"data.source={config.sources[config.data]}"]
        options += [f"hydra.run.dir={run}", f"name=marker-{config.data}", "run.tensorboard=false"]
        command = [sys.executable, "-m", "scalefp.cli", "artificial", "train", *options]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
            raise UserError(f"the marker of {config.data!r} could not be trained; see above.")
    return load_marker(path)


def marked_copy(data: ImageSet, marker: Marker, key: Key, psnr: float | None) -> ImageSet:
    """The data set with ``key`` written into every image, as the 8-bit files would hold it."""
    copied = copy.copy(data)
    copied.pixels = np.empty_like(data.pixels)
    bits = torch.from_numpy(key.bits)
    for start in tqdm(range(0, len(data), BLOCK), "marking", unit="block", delay=2, leave=False):
        rows = slice(start, start + BLOCK)
        pixels = torch.from_numpy(data.pixels[rows])
        copied.pixels[rows] = marker.mark(pixels, bits, psnr=psnr).numpy()
    return copied


# Training.


def make_learner(config: TransferConfig, data: ImageSet) -> Learner:
    """The generator before its first image."""
    module, name = GENERATORS[config.generator].split(":")
    learner: Learner = getattr(import_module(module), name)(
        data, config.images[config.generator], config.seed
    )
    return learner


def train(learner: Learner, config: TransferConfig, run_dir: Path, settings: Any) -> float:
    """Train to the end, from the last checkpoint if there is one; seconds spent on training.

    Raises:
        UserError: the checkpoint is damaged or belongs to other settings, or a loss is not finite.
    """
    total, batch = config.images[config.generator], learner.batch
    kept, seen, seconds = run_dir / "state.pt", 0, 0.0
    if kept.exists():
        state = load_state(kept)
        check_settings(state, settings, kept)
        learner.load_state_dict(state["learner"])
        seen, seconds = state["images"], state["seconds"]

    since = time.monotonic()
    with tqdm(total=total, initial=seen, unit="img", desc="train", mininterval=1) as bar:
        while seen < total:
            terms = learner.step(seen)
            check_finite(terms, seen)
            seen += batch
            bar.update(batch)
            bar.set_postfix({name: f"{value:.3f}" for name, value in terms.items()}, refresh=False)
            if time.monotonic() - since > 60 * CHECKPOINT_MINUTES or seen >= total:
                seconds += time.monotonic() - since
                since = time.monotonic()
                saved = {"images": seen, "seconds": seconds, "learner": learner.state_dict()}
                save_state(kept, {**saved, "settings": settings})
    return seconds


# One job.


def key_of(config: TransferConfig, n_bits: int) -> Key:
    """The key of a data set: uniformly random from the seed, the same for both of its trainings."""
    draw = np.random.default_rng([config.seed, zlib.crc32(config.data.encode())])
    return Key.from_bits(draw.integers(0, 2, n_bits, dtype=np.uint8))


def run(config: TransferConfig, run_dir: Path) -> dict[str, Any]:
    """Mark, train, sample, read.

    Writes ``result.json``, ``samples.png``, ``samples.zip`` and the generator into ``run_dir``.

    Returns:
        The content of ``result.json``, from the file if the job has finished before.

    Raises:
        UserError: options, data, marker or files that do not work.
    """
    config.check()
    marker = get_marker(config)
    settings, done = config.settings(marker), run_dir / "result.json"
    if done.exists():
        result: dict[str, Any] = json.loads(done.read_text())
        check_settings(result, settings, done)
        return result
    run_dir.mkdir(parents=True, exist_ok=True)

    data = ImageSet(config.sources[config.data], marker.config.resolution)
    if len(data) < 2 * config.samples:
        raise UserError(
            f"{config.samples} samples are compared with twice as many images, and {config.data!r} "
            f"has {len(data)}: lower samples="
        )
    key = key_of(config, marker.config.n_bits)
    shown = marked_copy(data, marker, key, config.psnr) if config.marked else data
    learner = make_learner(config, shown)
    seconds = train(learner, config, run_dir, settings)

    save_generator(run_dir, learner, settings)
    samples = to_uint8(learner.sample(config.samples, seed=config.seed))
    save_png(run_dir / "samples.png", grid(samples[:64], columns=16))
    write_samples(run_dir / "samples.zip", samples)
    yardstick = Yardstick(config, data, marker, key, settings)
    result = {
        "settings": settings,
        "key": str(key),
        "data_images": len(data),
        "training_seconds": round(seconds, 1),
        "images_per_second": round(config.images[config.generator] / max(seconds, 1e-9), 1),
        "generated": yardstick.measure(samples),
        **yardstick.of_data(),
        "extractor": yardstick.distances.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
    }
    write_json(done, result)
    (run_dir / "state.pt").unlink()
    return result


ConfigStore.instance().store(name="transfer_schema", node=TransferConfig)


@hydra.main(version_base="1.3", config_path="conf", config_name="transfer")
def main(options: DictConfig) -> float:
    """Hydra entry point; returns the bit accuracy of single images, for sweepers."""
    config = OmegaConf.to_object(options)
    assert isinstance(config, TransferConfig)
    torch.set_num_threads(1)
    try:
        result = run(config, Path(HydraConfig.get().runtime.output_dir))
    except UserError as error:
        print(f"transfer: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    generated = result["generated"]
    pools = {size: f"{pool['accuracy']:.3f}" for size, pool in generated["pools"].items()}
    print(f"{config.data} {config.generator} marked={config.marked}: bit accuracy {pools}")
    return float(generated["accuracy"])


if __name__ == "__main__":
    main()
