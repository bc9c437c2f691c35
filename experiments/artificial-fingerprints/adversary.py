"""An adversary who wants to know whether a picture is marked: four detectors, and their scores.

He knows the method and sees labelled examples, never the decoder. Two detectors are small residual
networks, on pixels and behind the high-pass filters of steganalysis (detector_network.py); one is
a linear classifier of how values of neighbours occur together behind these filters, and one knows
the carriers that marks are made of, as far as the examples show them (detector_linear.py).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from detector_linear import fit_carriers, fit_rich_model
from detector_network import train_network
from examples import Detector, Examples, Scores

GROUP = 16  # images of one source that are judged together
Z95 = 1.959964

DETECTORS = ("network", "high-pass network", "rich model", "carriers")


def train(name: str, examples: Examples, *, images: int, carriers: int, seed: int) -> Detector:
    """A detector by its name; ``images`` is what a network is trained on, repetitions counted."""
    if name == "carriers":
        return fit_carriers(examples, carriers=carriers)
    if name == "rich model":
        return fit_rich_model(examples)
    return train_network(examples, high_pass=name != "network", images=images, seed=seed)


# What is reached.


def wilson(right: int, trials: int) -> list[float]:
    """95% interval of a share (Wilson, JASA 22, 1927)."""
    share = right / trials
    middle = (share + Z95**2 / (2 * trials)) / (1 + Z95**2 / trials)
    root = math.sqrt(share * (1 - share) / trials + (Z95 / 2 / trials) ** 2)
    half = Z95 / (1 + Z95**2 / trials) * root
    # Rounding must not leave the share outside where it is 0 or 1.
    return [min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))]


def ranked(clean: Scores, marked: Scores) -> float:
    """Probability that a marked image scores above a clean one (area under the ROC curve)."""
    order = np.sort(clean)
    below = np.searchsorted(order, marked, "left") + np.searchsorted(order, marked, "right")
    return float(below.mean() / (2 * len(clean)))


def accuracy_figures(clean: Scores, marked: Scores) -> dict[str, Any]:
    """Share judged rightly of equally many clean and marked images, one by one and in groups.

    The threshold is 0, which the adversary settled on his own examples. A group is so many images
    of one class, their scores added; consecutive scores are of one source.
    """
    n = min(len(clean), len(marked))
    clean, marked = clean[:n], marked[:n]
    right = int((clean <= 0).sum() + (marked > 0).sum())
    figures: dict[str, Any] = {
        "images": 2 * n,
        "accuracy": right / (2 * n),
        "ci95": wilson(right, 2 * n),
        "ranked": ranked(clean, marked),
        "group": None,
    }
    if (groups := n // GROUP) > 0:
        sums = [x[: groups * GROUP].reshape(groups, GROUP).sum(axis=1) for x in (clean, marked)]
        right = int((sums[0] <= 0).sum() + (sums[1] > 0).sum())
        figures["group"] = {
            "groups": 2 * groups,
            "accuracy": right / (2 * groups),
            "ci95": wilson(right, 2 * groups),
        }
    return figures
