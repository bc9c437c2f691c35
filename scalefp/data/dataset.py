"""Training images: a folder or a StyleGAN zip in, one uint8 array in memory, batches out.

``ImageSet`` decodes a data set once; ``sample_indices`` says which images a batch takes, from
nothing but the seed and the count of images seen, so that a resumed run draws the same batches.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from scalefp.data.images import to_tensor
from scalefp.data.source import Source, resolve_source
from scalefp.errors import UserError
from scalefp.files import counted

RESOLUTIONS = range(16, 1025)  # of data; which of them a network can have is up to its sizes
MAX_NAMED = 10  # skipped files named in the log, the rest are counted

_log = logging.getLogger(__name__)


def check_resolution(resolution: int) -> None:
    """Raise UserError unless a data set can have this resolution."""
    if resolution not in RESOLUTIONS:
        raise UserError(
            f"resolution {resolution} is not possible: choose a whole number from "
            f"{RESOLUTIONS[0]} to {RESOLUTIONS[-1]}"
        )


def for_each(
    task: Callable[[int], str | None], count: int, workers: int, progress: bool, title: str
) -> list[str | None]:
    """``task(i)`` for every i below ``count``, with ``workers`` threads; results in order.

    Threads suffice: Pillow decodes and resizes without holding Python's lock.
    """
    results: list[str | None] = []
    bar = tqdm(total=count, desc=title, unit="img", delay=1, file=sys.stderr, disable=not progress)
    pool = ThreadPoolExecutor(workers) if workers > 1 else None
    try:
        for start in range(0, count, 1024):  # in blocks, so that few tasks wait in memory
            block = range(start, min(start + 1024, count))
            for result in pool.map(task, block) if pool else map(task, block):
                results.append(result)
                bar.update()
    finally:
        bar.close()
        if pool:
            pool.shutdown(cancel_futures=True)
    return results


def report_skipped(source: Source, reasons: Sequence[str | None]) -> list[tuple[str, str]]:
    """(name, reason) of every skipped file, logged; UserError if no image is left."""
    names = source.names
    skipped = [(name, why) for name, why in zip(names, reasons, strict=True) if why is not None]
    if len(skipped) == len(names):
        files = counted(len(skipped), "file")
        why = f"{files} skipped; {skipped[0][1]}" if skipped else "it is empty"
        raise UserError(f"{source.path} holds no usable image ({why}): give another source")
    for _, why in skipped[:MAX_NAMED]:
        _log.warning("skipped: %s", why)
    if len(skipped) > MAX_NAMED:
        more = counted(len(skipped) - MAX_NAMED, "more file")
        _log.warning("skipped: %s of %s", more, source.path)
    return skipped


class ImageSet:
    """All images of a folder or zip, decoded once, centre-cropped and resized to R x R.

    Attributes:
        pixels: uint8 [N, 3, R, R].
        names: of the N images, sorted by path.
        labels: int64 [N] if ``dataset.json`` gives every image an integer label, else None.
        skipped: (name, reason) of each file that is not an image or is broken.

    Raises:
        UserError: no such folder or zip, a broken zip, no usable image, an impossible resolution,
            or a set that does not fit into memory.
    """

    def __init__(
        self, source: str | Path, resolution: int, workers: int = 0, progress: bool = True
    ) -> None:
        check_resolution(resolution)
        with Source(resolve_source(source)) as entries:
            shape = (len(entries.names), 3, resolution, resolution)
            try:
                pixels = np.empty(shape, dtype=np.uint8)
            except MemoryError as error:
                raise UserError(
                    f"{entries.path} needs {np.prod(shape, dtype=float) / 2**30:.0f} GiB of memory "
                    f"at {resolution}x{resolution}: take fewer images or a lower resolution"
                ) from error

            def decode(index: int) -> str | None:
                try:
                    image = entries.read(index)
                except UserError as error:
                    return str(error)
                pixels[index] = to_tensor([image], resolution)[0].numpy()
                return None

            labels = entries.labels()
            reasons = for_each(decode, len(entries.names), workers, progress, "reading images")
            self.skipped = report_skipped(entries, reasons)
            kept = [index for index, why in enumerate(reasons) if why is None]
            self.names = [entries.names[index] for index in kept]

        for row, index in enumerate(kept):  # closes the gaps in place
            if row != index:
                pixels[row] = pixels[index]
        self.pixels = pixels[: len(kept)]
        self.labels: np.ndarray | None = None
        if all(name in labels for name in self.names):
            self.labels = np.array([labels[name] for name in self.names], dtype=np.int64)
        elif labels:
            _log.warning("labels ignored: not every image in %s has one", source)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def resolution(self) -> int:
        return int(self.pixels.shape[-1])

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Images by number -> uint8 [b, 3, R, R], a copy."""
        return torch.from_numpy(self.pixels[np.asarray(indices)])


@lru_cache(maxsize=4)
def _epoch_order(n_total: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n_total)


def sample_indices(n_total: int, seed: int, start_image: int, batch: int) -> np.ndarray:
    """Which images the training sees at positions start_image ... start_image + batch - 1.

    The endless sequence is one permutation of all ``n_total`` images after the other, epoch e
    shuffled by (seed, e). It has no state: a resumed run, or one with another batch size, goes on
    exactly where the count of images stands, and rank r of w takes ``indices[r::w]``.

    Returns:
        int64 [batch], values in 0 ... n_total - 1.
    """
    if n_total < 1 or seed < 0 or start_image < 0:
        raise UserError("sampling needs at least one image, a seed >= 0 and a position >= 0")
    positions = np.arange(start_image, start_image + batch)
    indices = np.empty(batch, dtype=np.int64)
    for epoch in np.unique(positions // n_total):
        here = positions // n_total == epoch
        indices[here] = _epoch_order(n_total, seed, int(epoch))[positions[here] % n_total]
    return indices
