"""What a trained release does with keys and latents that its training never saw."""

from dataclasses import replace
from pathlib import Path

import torch

from scalefp.evaluation.quality import measure_hiding
from scalefp.evaluation.robustness import CLEAN, Point, measure_point
from scalefp.evaluation.samples import EvaluateConfig, Samples
from scalefp.release.model import read_release
from scalefp.training.step import training_keys

ISSUED = 1_000_000  # keys among which the one of an image has to be found
AMOUNT = EvaluateConfig(
    keys=32, images_per_key=8, thorough_images=0, pools=[1], issued=[ISSUED], fpr=1e-6
)
CLEAN_FILES = Point(CLEAN, 0.0, True)


def measure_unseen(release: Path, seed: int, known: int | None = None) -> dict[str, float]:
    """Figures of the averaged networks, on what comes back from 8-bit files.

    Args:
        seed: of the training, and here of keys and latents.
        known: number of keys that the training knew; None = it had a new one for every image.

    Returns:
        ``unseen_bit_accuracy``; ``unseen_attributed``, the share of images that one million issued
        keys and an fpr of 1e-6 leave to the right one; ``unseen_psnr`` (dB) and ``unseen_ssim`` of
        pictures of one latent under two keys. With ``known`` keys also ``trained_bit_accuracy``:
        of the same latents under some of these keys instead.
    """
    config = replace(AMOUNT, seed=seed)
    model = read_release(release)
    samples = Samples(model, config)
    point = measure_point(model, samples, CLEAN_FILES, config)
    hiding = measure_hiding(samples)["same_latent_two_keys"]
    figures = {
        "unseen_bit_accuracy": point["mean"],
        "unseen_attributed": point["attributed"]["1"]["soft"][str(ISSUED)],
        "unseen_psnr": hiding["psnr"],
        "unseen_ssim": hiding["ssim"],
    }
    if known is not None:
        keys = training_keys(known, model.config.n_bits, seed, torch.device("cpu"))
        config = replace(config, keys=min(known, config.keys))
        samples = Samples(model, config, keys[: config.keys].numpy())
        point = measure_point(model, samples, CLEAN_FILES, config)
        figures["trained_bit_accuracy"] = point["mean"]
    return figures
