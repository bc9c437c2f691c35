"""What a trained release does with keys and latents that its training never saw."""

from dataclasses import replace
from pathlib import Path

from scalefp.evaluation.quality import measure_hiding
from scalefp.evaluation.robustness import CLEAN, Point, measure_point
from scalefp.evaluation.samples import EvaluateConfig, Samples
from scalefp.release.model import read_release

ISSUED = 1_000_000  # keys among which the one of an image has to be found
AMOUNT = EvaluateConfig(
    keys=32, images_per_key=8, thorough_images=0, pools=[1], issued=[ISSUED], fpr=1e-6
)


def measure_unseen(release: Path, seed: int) -> dict[str, float]:
    """Figures of the averaged networks, on what comes back from 8-bit files.

    Args:
        seed: of keys and latents.

    Returns:
        ``unseen_bit_accuracy``; ``unseen_attributed``, the share of images that one million issued
        keys and an fpr of 1e-6 leave to the right one; ``unseen_psnr`` (dB) and ``unseen_ssim`` of
        pictures of one latent under two keys.
    """
    config = replace(AMOUNT, seed=seed)
    model = read_release(release)
    samples = Samples(model, config)
    point = measure_point(model, samples, Point(CLEAN, 0.0, True), config)
    hiding = measure_hiding(samples)["same_latent_two_keys"]
    return {
        "unseen_bit_accuracy": point["mean"],
        "unseen_attributed": point["attributed"]["1"]["soft"][str(ISSUED)],
        "unseen_psnr": hiding["psnr"],
        "unseen_ssim": hiding["ssim"],
    }
