"""A few steps of a training on made pictures: does it fit, and how long would all of it take?"""

import copy
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from scalefp import perturb
from scalefp.data.images import save_png
from scalefp.training.capture import WARM_UP
from scalefp.training.distributed import World, pick_device
from scalefp.training.loop import Training
from scalefp.training.precision import pick_precision, precision_name
from scalefp.training.run import named_memory_errors

STEPS = 3  # of which the first has all regularizers in it, and warms up
PICTURES = 16
C = TypeVar("C")


@dataclass(frozen=True)
class Rehearsal:
    """What a training takes on this device.

    Attributes:
        memory: the most that was taken so far, bytes: of the GPU, or of this process.
        images_per_second: without regularizers, logging and saving.
        hours: for all images of the schedule at that speed.
        parameters: by network, averages left out.
    """

    device: str
    precision: str
    memory: int
    images_per_second: float
    hours: float
    parameters: dict[str, int]


def make_pictures(folder: Path, resolution: int) -> None:
    """Write pictures of noise: what they show does not matter here."""
    draw = np.random.default_rng(0)
    for number in range(PICTURES):
        pixels = draw.integers(0, 256, (resolution, resolution, 3), np.uint8)
        save_png(folder / f"{number}.png", Image.fromarray(pixels))


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10  # Linux counts KiB


def rehearse(kind: Callable[[C, World], Training], config: C) -> Rehearsal:
    """Build a training and do its first steps; nothing is read and nothing is kept.

    Args:
        kind: makes a training before its first image.
        config: its options; the data need not be there.

    Raises:
        UserError: options that cannot work, or too little memory.
    """
    options: Any = copy.deepcopy(config)
    options.check()
    perturb.check_names(options.perturb)
    device = pick_device(options.run)
    with named_memory_errors(options), tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder), options.model.resolution)
        options.data.source = folder
        training = kind(options, World(0, 1, device))
        precision = pick_precision(options.run, device, None)
        seconds = []
        # On a GPU a step is captured after some others.
        for _ in range(STEPS if device.type == "cpu" else STEPS + 1 + WARM_UP):
            begun = time.perf_counter()
            training.step(precision)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - begun)
            training.state.progress.images += options.optimizer.batch
    rate = options.optimizer.batch / min(seconds[1:])
    networks = {
        name: sum(weights.numel() for weights in part.parameters())
        for name, part in vars(training.state).items()
        if isinstance(part, torch.nn.Module) and not name.startswith("average")
    }
    return Rehearsal(
        str(device),
        precision_name(precision),
        _peak_memory(device),
        rate,
        options.schedule.total_images / rate / 3600,
        networks,
    )
