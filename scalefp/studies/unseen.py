"""What a trained release does with keys and latents that its training never saw."""

import warnings
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import torch

from scalefp.attribution.evidence import log_p_soft
from scalefp.data.images import to_pil
from scalefp.evaluation.method import Measured, as_measured
from scalefp.evaluation.quality import measure_hiding
from scalefp.evaluation.samples import EvaluateConfig, Samples, read_logits, reading_figures
from scalefp.loading import load_generating
from scalefp.release.readable import UnreadableRelease
from scalefp.training.batch import training_keys

ISSUED = 1_000_000  # keys among which the one of an image has to be found
AMOUNT = EvaluateConfig(keys=32, images_per_key=8, pools=[1], issued=[ISSUED], fpr=1e-6)


def measure_unseen(release: Path, seed: int, known: int | None = None) -> dict[str, float]:
    """Figures of the averaged networks, on what comes back from 8-bit files.

    Args:
        seed: of the training, and here of keys and latents.
        known: number of keys that the training knew; None = it had a new one for every image.

    Returns:
        ``unseen_bit_accuracy``; ``unseen_evidence``, the bits of evidence that one image carries:
        -log2 of the probability that one innocent key agrees as well; ``unseen_attributed``, the
        share of images that one million issued keys and an fpr of 1e-6 leave to the right one,
        which takes 39.9 bits; ``unseen_psnr`` (dB) and ``unseen_ssim`` of pictures of one latent
        under two keys. With ``known`` keys also ``trained_bit_accuracy``: of the same latents under
        some of these keys instead.
    """
    config = replace(AMOUNT, seed=seed)
    with warnings.catch_warnings():  # of one that reads little: that is what is measured
        warnings.simplefilter("ignore", UnreadableRelease)
        model = as_measured(load_generating(release))
    samples = Samples(model, config)
    reading, hiding = _read(model, samples), measure_hiding(samples)["same_latent_two_keys"]
    figures: dict[str, float] = {
        "unseen_bit_accuracy": reading["mean"],
        "unseen_evidence": reading["evidence"],
        "unseen_attributed": reading["attributed"]["1"]["soft"][str(ISSUED)],
        "unseen_psnr": hiding["psnr"],
        "unseen_ssim": hiding["ssim"],
    }
    if known is not None:
        keys = training_keys(known, model.config.n_bits, seed, torch.device("cpu"))
        config = replace(config, keys=min(known, config.keys))
        samples = Samples(model, config, keys[: config.keys].numpy())
        figures["trained_bit_accuracy"] = _read(model, samples)["mean"]
    return figures


def _read(model: Measured, samples: Samples) -> dict[str, Any]:
    """:func:`reading_figures` of all images of the samples, and ``evidence``, their mean."""
    config, keys = samples.config, len(samples.bits)
    files = to_pil(samples.images.flatten(0, 1))
    logits = read_logits(model, files, len(files), config.batch_size, "keys", thorough=False)
    own = samples.bits.repeat(config.images_per_key, axis=0)
    return {
        "evidence": float(-log_p_soft(logits, own).mean() / log(2)),
        **reading_figures(logits.reshape(keys, config.images_per_key, -1), samples.bits, config),
    }
