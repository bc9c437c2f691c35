"""What single files say of a key, for scripts that read one at a time: reading by inversion takes
seconds, so they read few."""

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from scalefp.attribution.evidence import log_p_soft
from scalefp.key import Key
from scalefp.pretrained.release import PretrainedModel

ISSUED, FPR = 10**6, 1e-6  # keys among which one is named, and how often an innocent one is


def drawn_key(n_bits: int, *seeds: int) -> Key:
    """A random key of so many bits, always the same for the same numbers."""
    return Key.from_bits(np.random.default_rng(seeds).integers(0, 2, n_bits))


def read_file(model: PretrainedModel, file: Image.Image, key: Key) -> dict[str, float]:
    """The share of a key's bits that are read from a file (``right``), and whether it names the
    key among :data:`ISSUED` (``named``, 0 or 1)."""
    reading = model.decode(file, progress=False)
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
