"""Measurements of a release against other images: the data set's look, and false attribution.

Shape legend: b images, n key bits, N issued keys, d features, g keys or latents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from tqdm import tqdm

from scalefp.attribution import CHUNK, log_binomial_tail
from scalefp.errors import UserError
from scalefp.features import extract
from scalefp.images import to_tensor
from scalefp.measure import EvaluateConfig, Generated, read_logits, stream
from scalefp.metrics import FloatArray, Statistics, feature_diversity, frechet_distance, kid
from scalefp.source import Source, resolve_source

if TYPE_CHECKING:
    from scalefp.model import Model

KID_SUBSETS, KID_SUBSET_SIZE = 50, 500


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


def measure_features(
    extractor: nn.Module, generated: Generated, config: EvaluateConfig
) -> dict[str, Any]:
    """Distance of instances' images to the data set, and diversity, beside the data's own.

    Two disjoint halves of as many images as are generated are drawn from the data. Generated to the
    second half is the distance, first half to second its floor: equal numbers on every side, so
    that the upward bias of small samples is the same in both.

    The crossed sample tells what moves a picture: features over the latents of one key should be
    as diverse as the data, over the keys of one latent hardly diverse at all.
    """
    rng = stream(config, "features")
    images = generated.images.flatten(0, 1)
    wanted = 2 * min(config.feature_images, len(images))
    resolution = images.shape[-1]
    drawn = draw_images(config.data, wanted, rng)
    bar = tqdm(drawn, "opening the data set", total=wanted, unit="img", delay=1)
    data = torch.cat([to_tensor([image], resolution) for image in bar])
    n = len(data) // 2
    first = extract(extractor, data[:n], config.batch_size)
    second = extract(extractor, data[n : 2 * n], config.batch_size)
    chosen = torch.from_numpy(rng.permutation(len(images))[:n])
    fake = extract(extractor, images[chosen], config.batch_size)
    g = len(generated.crossed)
    crossed = extract(extractor, generated.crossed.flatten(0, 1), config.batch_size)
    crossed = crossed.reshape(g, g, -1)  # [key, latent, d]
    reference = Statistics.of(second)
    subsets = {"subsets": KID_SUBSETS, "subset_size": KID_SUBSET_SIZE}
    return {
        "extractor": getattr(extractor, "name", type(extractor).__name__),
        "images_each": n,
        "distance": frechet_distance(Statistics.of(fake), reference),
        "distance_floor": frechet_distance(Statistics.of(first), reference),
        "kernel_distance": kid(fake, second, **subsets),
        "kernel_distance_floor": kid(first, second, **subsets),
        "diversity": feature_diversity(fake),
        "diversity_data": feature_diversity(second),
        "crossed": g,
        "diversity_over_latents": float(np.mean([feature_diversity(x) for x in crossed])),
        "diversity_over_keys": float(
            np.mean([feature_diversity(x) for x in crossed.transpose(1, 0, 2)])
        ),
    }


def issued_keys(n_bits: int, issued: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random keys packed as a registry holds them: [N, ceil(n / 8)], pad bits zero."""
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


def best_matches(
    bits: NDArray[np.uint8], packed: NDArray[np.uint8], title: str = ""
) -> NDArray[np.int64]:
    """The most matching bits that any key of [N, w] has with each reading of [b, n]: int64 [b].

    Equals the highest of :func:`scalefp.attribution.count_matches`; one contiguous column for each
    machine word of the keys makes it ten times as fast, and here thousands of images are searched.
    """
    n_bits = bits.shape[1]
    padding = ((0, 0), (0, -packed.shape[1] % 8))
    columns = np.ascontiguousarray(np.pad(packed, padding).view(np.uint64).T)  # [words, N]
    queries = np.pad(np.packbits(bits, axis=1), padding).view(np.uint64)  # [b, words]
    counted = np.uint8 if n_bits < 256 else np.uint16
    best = np.empty(len(bits), np.int64)
    for row, query in enumerate(tqdm(queries, f"searching for {title}", unit="img", delay=1)):
        fewest = n_bits
        for start in range(0, len(packed), CHUNK):
            differing: NDArray[Any] = np.zeros(len(columns[0, start : start + CHUNK]), counted)
            for column, word in zip(columns, query, strict=True):
                differing += np.bitwise_count(column[start : start + CHUNK] ^ word)
            fewest = min(fewest, int(differing.min()))
        best[row] = n_bits - fewest
    return best


def search_figures(
    name: str, logits: FloatArray, packed: NDArray[np.uint8], needed: int | None
) -> dict[str, Any]:
    """Search all issued keys for each reading [b, n]: how many images are attributed to anybody."""
    bits = (logits > 0).astype(np.uint8)
    best = best_matches(bits, packed, name).tolist()
    return {
        "source": name,
        "images": len(best),
        # Images that read alike are not independent evidence.
        "distinct_readings": len(np.unique(bits, axis=0)),
        "attributed": sum(needed is not None and match >= needed for match in best),
        "best_match_mean": float(np.mean(best)),
        "best_match_max": max(best),
        "best_match_histogram": {str(m): count for m, count in sorted(Counter(best).items())},
    }


def measure_unrelated(
    model: Model, own_logits: FloatArray, needed: int | None, config: EvaluateConfig
) -> dict[str, Any]:
    """How many images that no issued key made are attributed to anybody all the same?

    Args:
        own_logits: readings [b, n] of the evaluation's own instances. Their keys are not among the
            issued ones, so they too must be nobody's; counted apart from unrelated images.
        needed: matching bits at which a key is named; None where no number suffices.
    """
    n_bits, count = model.config.n_bits, config.unrelated_images
    packed = issued_keys(n_bits, config.issued, stream(config, "issued"))
    sources = []
    for source in [config.data, *config.unrelated]:
        name = Path(source).name
        images = draw_images(source, count, stream(config, "unrelated"))
        logits = read_logits(model, images, count, config.batch_size, name)
        sources.append(search_figures(name, logits, packed, needed))
    return {
        "issued": config.issued,
        "best_match_expected": expected_best_match(n_bits, config.issued),
        "images": sum(figures["images"] for figures in sources),
        "attributed": sum(figures["attributed"] for figures in sources),
        "sources": sources,
        "other_keys": search_figures("instances of other keys", own_logits, packed, needed),
    }
