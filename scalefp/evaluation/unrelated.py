"""False attribution: is anybody named for pictures that no issued instance made?

Shape legend: b images, n key bits, N issued keys, w = ceil(n / 8) bytes of a packed key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from scalefp.attribution.evidence import log_binomial_tail, soft_weights
from scalefp.data.images import to_pil
from scalefp.data.source import Source, resolve_source
from scalefp.errors import UserError
from scalefp.evaluation.samples import FORMS, EvaluateConfig, Samples, read_logits, stream
from scalefp.key import Key
from scalefp.metrics import FloatArray
from scalefp.perturb import PERTURBATIONS
from scalefp.release.instance import load_instance

if TYPE_CHECKING:
    from scalefp.evaluation.method import Measured
    from scalefp.release.instance import Instance

# Keys and readings of one matrix product: it stays within the processor's cache.
KEY_BLOCK, READING_BLOCK = 2048, 256
CHANGED_KEPT = 0.8  # side that the data's changed copies keep


# Where the images come from.


def draw_images(source: str, count: int, rng: np.random.Generator) -> Iterator[Image.Image]:
    """Up to ``count`` different random images of a folder or zip, at their own size.

    Broken files are passed over: others take their place while there are any.

    Raises:
        UserError: no such source, or no usable image in it.
    """
    drawn = 0
    with Source(resolve_source(source)) as files:
        for index in rng.permutation(len(files.names)):
            if drawn == count:
                break
            try:
                image = files.read(index)
            except UserError:
                continue
            drawn += 1
            yield image
    if drawn == 0:
        raise UserError(f"{source} holds no usable image: give another source.")


def load_twin(path: str, config: EvaluateConfig) -> Instance:
    """The generator trained without keys: an instance file, or a release at a key that does not
    matter.

    Raises:
        UserError: neither of the two.
    """
    from scalefp.loading import load_model

    try:
        return load_instance(path)
    except UserError:
        model = load_model(path)
    bits = stream(config, "twin").integers(0, 2, model.config.n_bits)
    return model.instantiate(Key.from_bits(bits))


def _changed_copies(config: EvaluateConfig, count: int) -> Iterator[Image.Image]:
    """The data's images mirrored and cropped at random: other pictures to the decoder."""
    draw = stream(config, "unrelated, changed")
    for image in draw_images(config.data, count, draw):
        flipped = PERTURBATIONS["flip"].apply(image, 1.0, draw)
        yield PERTURBATIONS["crop_random"].apply(flipped, CHANGED_KEPT, draw)


def sources(config: EvaluateConfig) -> dict[str, Callable[[int], Iterator[Image.Image]]]:
    """Name -> a function that gives up to so many images, in the order in which they are taken."""

    def drawn(source: str) -> Callable[[int], Iterator[Image.Image]]:
        return lambda count: draw_images(source, count, stream(config, "unrelated"))

    result = {Path(source).name: drawn(source) for source in config.unrelated}
    if (path := config.twin) is not None:
        seed = int(stream(config, "twin images").integers(2**31))
        result["twin without keys"] = lambda count: iter(
            to_pil(load_twin(path, config).sample(count, seed=seed))
        )
    result[Path(config.data).name] = drawn(config.data)
    result[f"{Path(config.data).name}, mirrored and cropped"] = lambda count: _changed_copies(
        config, count
    )
    return result


# The search.


def issued_keys(n_bits: int, issued: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random keys packed as a registry holds them: [N, w], pad bits zero."""
    packed = rng.integers(0, 256, (issued, -(-n_bits // 8)), dtype=np.uint8)
    packed[:, -1] &= 256 - (1 << (-n_bits % 8))
    return packed


def expected_best_match(n_bits: int, issued: int) -> float:
    """What the best match of one innocent image among N independent random keys is on average.

    The sum over t = 1..n of P[best >= t] = 1 - (1 - P[Binomial(n, 1/2) >= t])^N.
    """
    tail = np.exp(log_binomial_tail(n_bits, np.arange(1, n_bits + 1)))
    with np.errstate(divide="ignore"):  # a tail that rounds to 1 gives log 0, and 1 in the end
        return float(-np.expm1(issued * np.log1p(-tail)).sum())


def best_keys(
    logits: FloatArray, weights: NDArray[np.int64], packed: NDArray[np.uint8], title: str = ""
) -> NDArray[np.int64]:
    """Which key of [N, w] agrees best with each reading [b, n]: index of the first, int64 [b].

    A key's score is the weight of the bits that agree, as in attribution/search.py, which finds
    the keys over a threshold; here even the best innocent is of interest. Scores are twice the dot
    product of signs less a constant, and whole numbers, so float32 is exact.
    """
    b, n = logits.shape
    queries = torch.from_numpy(np.where(logits > 0, weights, -weights)).float()
    best = torch.full((b,), -math.inf)
    index = torch.zeros(b, dtype=torch.int64)
    blocks = range(0, len(packed), KEY_BLOCK)
    for start in tqdm(blocks, f"searching for {title}", unit="block", delay=2, leave=False):
        bits = np.unpackbits(packed[start : start + KEY_BLOCK], axis=1, count=n)
        signs = torch.from_numpy(bits).float() * 2 - 1
        for first in range(0, b, READING_BLOCK):
            rows = slice(first, first + READING_BLOCK)
            scores, places = (signs @ queries[rows].T).max(dim=0)
            better = scores > best[rows]
            best[rows] = scores.where(better, best[rows])
            index[rows] = (start + places).where(better, index[rows])
    return index.numpy()


def search_figures(
    name: str, logits: FloatArray, packed: NDArray[np.uint8], fpr: float
) -> dict[str, Any]:
    """Search all issued keys for each reading [b, n]: how many images are attributed to anybody.

    Returns:
        ``attributed`` and ``least_p`` (of any image, over all issued keys) for each form, and how
        many bits of each image's best key match.
    """
    n_bits = logits.shape[1]
    weights = {"hard": np.ones(logits.shape, np.int64), "soft": soft_weights(logits)}
    figures: dict[str, Any] = {
        "source": name,
        "images": len(logits),
        # Images that read alike are not independent evidence.
        "distinct_readings": len(np.unique(logits > 0, axis=0)),
        "attributed": {},
        "least_p": {},
    }
    for form, log_p in FORMS.items():
        keys = packed[best_keys(logits, weights[form], packed, f"{name}, {form}")]
        best = np.unpackbits(keys, axis=1, count=n_bits)
        logs = log_p(logits, best) + math.log(len(packed))
        figures["attributed"][form] = int((logs <= math.log(fpr)).sum())
        figures["least_p"][form] = min(1.0, math.exp(logs.min()))
        if form == "hard":
            matches = (best == (logits > 0)).sum(axis=1)
            figures["best_match_mean"] = float(matches.mean())
            figures["best_match_max"] = int(matches.max())
    return figures


# The measurement.


def measure_unrelated(model: Measured, samples: Samples, config: EvaluateConfig) -> dict[str, Any]:
    """How many images that no issued key made are attributed to anybody all the same?

    The sources share ``unrelated_images``: those given besides the data equally, the data the rest,
    and what is then missing are its images mirrored and cropped. All are read as they are, and the
    first of each again as :meth:`Model.decode` reads what is unclear. The evaluation's own
    instances, whose keys are not among the issued ones, must be nobody's too; they are counted
    apart.
    """
    n_bits = model.config.n_bits
    packed = issued_keys(n_bits, config.searched, stream(config, "issued"))
    own = to_pil(samples.images[: config.curve_keys].flatten(0, 1))

    def search(name: str, images: list[Image.Image], *, thorough: bool = False) -> dict[str, Any]:
        logits = read_logits(model, images, len(images), config.batch_size, name, thorough=thorough)
        return search_figures(name, logits, packed, config.fpr)

    found: list[dict[str, Any]] = []
    thorough: list[dict[str, Any]] = []
    available = sources(config)
    share = config.unrelated_images // max(1, len(available) - 1)
    for number, (name, draw) in enumerate(available.items()):
        missing = config.unrelated_images - sum(figures["images"] for figures in found)
        quota = missing if number >= len(available) - 2 else share
        if quota == 0:
            continue
        images = list(islice(draw(quota), quota))
        found.append(search(name, images))
        if model.searches and config.thorough_images:
            thorough.append(search(name, images[: config.thorough_images], thorough=True))
    named = {
        form: sum(figures["attributed"][form] for figures in found + thorough) for form in FORMS
    }
    return {
        "searched": config.searched,
        "best_match_expected": expected_best_match(n_bits, config.searched),
        "images": sum(figures["images"] for figures in found),
        "attributed": named,
        "sources": found,
        "thorough": thorough,
        "other_keys": search("instances of other keys", own),
    }
