"""What a detector says of images, and how often it is right."""

from collections.abc import Callable, Mapping, Sequence
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


def summed(clean: Scores, marked: Scores, together: int) -> dict[str, Any] | None:
    """Share judged rightly of groups of so many images of one class, their scores added.

    Consecutive scores are of one source. None where there is not one whole group of each class.
    """
    groups = min(len(clean), len(marked)) // together
    if groups == 0:
        return None
    sums = [x[: groups * together].reshape(groups, together).sum(axis=1) for x in (clean, marked)]
    right = int((sums[0] <= 0).sum() + (sums[1] > 0).sum())
    accuracy, interval = right / (2 * groups), wilson(right, 2 * groups)
    return {"groups": 2 * groups, "accuracy": accuracy, "ci95": interval}


def accuracy_figures(clean: Scores, marked: Scores) -> dict[str, Any]:
    """Share judged rightly of equally many clean and marked images, one by one and in groups.

    The threshold is 0, which the adversary settled on his own examples.
    """
    n = min(len(clean), len(marked))
    clean, marked = clean[:n], marked[:n]
    right = int((clean <= 0).sum() + (marked > 0).sum())
    return {
        "images": 2 * n,
        "accuracy": right / (2 * n),
        "ci95": wilson(right, 2 * n),
        "ranked": ranked(clean, marked),
        "group": summed(clean, marked, GROUP),
    }


def best_of_each(
    rows: Sequence[Mapping[str, Any]], case: Sequence[str], by: str = "validation"
) -> list[Mapping[str, Any]]:
    """Of each adversary in each case, the detector that did best on his own examples.

    Args:
        case: fields that rows of one case have in common.
        by: the figure that decides.
    """
    best: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in rows:
        key = tuple(row[field] for field in case)
        if key not in best or row[by] > best[key][by]:
            best[key] = row
    return list(best.values())
