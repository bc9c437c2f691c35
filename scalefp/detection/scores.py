"""What a detector says of images, and how often it is right."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scalefp.experiment import wilson

Scores = NDArray[np.float64]  # above 0: marked
Detector = Callable[[Tensor], Scores]  # uint8 [b, 3, R, R] -> [b]

GROUP = 16  # images of one source that are judged together


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
