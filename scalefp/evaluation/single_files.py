"""What single files say of a key, for scripts that read one at a time: reading by inversion takes
seconds, so they read few."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scalefp.attribution.evidence import log_p_soft
from scalefp.attribution.reading import Reading
from scalefp.data.images import to_float, to_pil, to_uint8
from scalefp.data.source import Source, resolve_source
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.loading import load_generating
from scalefp.pretrained.release import InvertingModel, PretrainedModel

ISSUED, FPR = 10**6, 1e-6  # keys among which one is named, and how often an innocent one is


def inverting(name_or_path: str | Path, *, drawn: bool) -> InvertingModel:
    """A release that reads by inversion: of latents that are drawn, or of encoded pictures.

    Raises:
        UserError: it does not, or as :func:`scalefp.loading.load_generating`.
    """
    model = load_generating(name_or_path)
    if not isinstance(model, InvertingModel) or bool(model.config.starts) != drawn:
        how = "by inversion of drawn latents" if drawn else "encoded pictures by inversion"
        raise UserError(f"{name_or_path} does not read {how}")
    return model


def drawn_key(n_bits: int, *seeds: int) -> Key:
    """A random key of so many bits, always the same for the same numbers."""
    return Key.from_bits(np.random.default_rng(seeds).integers(0, 2, n_bits))


def photographs(source: str, count: int, seed: int, side: int) -> list[Tensor]:
    """Middles of pictures drawn by the seed, each [1, 3, side, side] in [-1, 1].

    Args:
        source: folder or zip.

    Raises:
        UserError: it has too few pictures of that size.
    """
    pictures = Source(resolve_source(source))
    found: list[Tensor] = []
    for index in np.random.default_rng(seed).permutation(len(pictures.names)):
        pixels = torch.from_numpy(np.array(pictures.read(int(index)))).permute(2, 0, 1)
        top, left = ((whole - side) // 2 for whole in pixels.shape[1:])
        if min(top, left) >= 0:
            found.append(to_float(pixels[None, :, top : top + side, left : left + side]))
        if len(found) == count:
            return found
    raise UserError(f"{source} has {len(found)} pictures of {side} pixels, and {count} are needed")


def file_of(pictures: Tensor) -> Image.Image:
    """A picture [1, 3, H, W] as a file of 8 bits."""
    return to_pil(to_uint8(pictures))[0]


def read_file(
    model: PretrainedModel, file: Image.Image, key: Key, *, search: bool = True
) -> dict[str, float]:
    """The share of a key's bits that are read from a file (``right``), and whether it names the
    key among :data:`ISSUED` (``named``, 0 or 1).

    Args:
        search: also for crops and turns, which takes most of the time.
    """
    return of_key(model.decode(file, progress=False, search=search), key)


def of_key(reading: Reading, key: Key) -> dict[str, float]:
    """What the reading of a single file says of a key, as :func:`read_file` does."""
    p = float(np.exp(log_p_soft(reading.logits, key.bits[None])[0]))
    return {"right": float((reading.bits[0] == key.bits).mean()), "named": float(p * ISSUED <= FPR)}


def mean(readings: Sequence[Mapping[str, float]], name: str = "right") -> float:
    """Of one of these figures, over several files."""
    return float(np.mean([one[name] for one in readings]))


def milliseconds_a_key(model: PretrainedModel, keys: Iterable[Key]) -> float:
    """Of a processor, to put a key into the network: the median."""
    found = []
    for key in keys:
        begun = time.process_time()
        model.instantiate(key)
        found.append(1000 * (time.process_time() - begun))
    return float(np.median(found))
