"""The adversary: he learns from labelled examples to tell marked images from clean ones.

He knows the method and never sees the decoder. Two of his detectors are small residual networks,
on pixels and behind the high-pass filters of steganalysis; one is a linear classifier of how values
of neighbours occur together behind these filters; and one knows the carriers that marks are made
of, as far as he has seen marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from scalefp.detection.carriers import fit_carriers
from scalefp.detection.examples import Examples
from scalefp.detection.network import train_network
from scalefp.detection.rich_model import fit_rich_model
from scalefp.detection.scores import Detector, accuracy_figures

DETECTORS = ("network", "high-pass network", "rich model", "carriers")
VALIDATION = 0.15  # of his examples, by which he chooses a detector


@dataclass(frozen=True)
class Training:
    """What the training of any detector needs besides examples."""

    images: int  # that a network is trained on, repetitions counted
    carriers: int  # that a mark is made of: its bits
    seed: int


def train(
    name: str, examples: Examples, training: Training, known: Examples | None = None
) -> Detector:
    """A detector by its name; ``known`` are pairs that show marks, if ``examples`` do not."""
    if name == "carriers":
        return fit_carriers(examples, carriers=training.carriers, known=known)
    if name == "rich model":
        return fit_rich_model(examples)
    return train_network(
        examples, high_pass=name != "network", images=training.images, seed=training.seed
    )


def validated(detect: Detector, held_out: Examples) -> float:
    """A detector's accuracy on examples that it was not trained on."""
    return float(accuracy_figures(detect(held_out.clean), detect(held_out.marked))["accuracy"])


def learn(name: str, examples: Examples, training: Training) -> tuple[Detector, float]:
    """A detector, and its accuracy on examples that were kept back."""
    first, held_out = examples.split(VALIDATION)
    detect = train(name, first, training)
    return detect, validated(detect, held_out)


def learn_from_generators(
    name: str, pairs: Sequence[Examples], training: Training, known: Examples
) -> tuple[Detector, float]:
    """A detector for outputs, from those of the adversary's own generators.

    Two generators are told apart whatever they were trained on. Whether a detector has found more
    than that shows only elsewhere: on a pair of generators that it has not seen, the last, if there
    are several; else on images, which have nothing but the mark in common with outputs.

    Args:
        pairs: outputs of a clean and of a marked generator each.
        known: pairs of a clean and a marked image.

    Returns:
        The detector, learned from all pairs, and its accuracy elsewhere.
    """
    detect = train(name, joined(pairs), training, known)
    if len(pairs) == 1:
        return detect, validated(detect, known)
    return detect, validated(train(name, joined(pairs[:-1]), training, known), pairs[-1])


def joined(parts: Sequence[Examples]) -> Examples:
    """Examples of the same kind together."""
    return Examples(
        torch.cat([part.clean for part in parts]),
        torch.cat([part.marked for part in parts]),
        parts[0].paired,
    )
