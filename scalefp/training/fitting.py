"""Which batch fits, where one was too large for a GPU: found by trying."""

import copy
import gc
from collections.abc import Callable
from typing import Any

import torch

from scalefp.errors import UserError
from scalefp.training.distributed import World
from scalefp.training.precision import pick_precision
from scalefp.training.run import TooLittleMemoryError, named_memory_errors

STEPS = 2  # the first has all regularizers in it


def fitting_batch(
    kind: Callable[[Any, World], Any], config: Any, device: torch.device
) -> int | None:
    """The largest half, quarter, ... of the batch whose first steps fit; None if none does.

    Args:
        kind: makes a training before its first image.
        config: its options, whose batch did not fit.
    """
    config = copy.deepcopy(config)
    while config.optimizer.batch > 2:
        config.optimizer.batch //= 2
        gc.collect()  # what the last try held
        if device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            config.check()
            with named_memory_errors(config):
                training = kind(config, World(0, 1, device))
                for _ in range(STEPS):
                    training.step(pick_precision(config.run, device))
                    training.state.progress.images += config.optimizer.batch
            return int(config.optimizer.batch)
        except TooLittleMemoryError:
            continue
        except UserError:  # no batch of that size
            return None
    return None
