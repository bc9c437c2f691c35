"""A linear classifier of how neighbouring values occur together behind high-pass filters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefp.data.images import to_float
from scalefp.detection.examples import Examples
from scalefp.detection.filters import high_pass_filters
from scalefp.detection.linear import fit_linear
from scalefp.detection.scores import Detector
from scalefp.networks.layers import downsample

STEPS = (1.0, 4.0)  # in grey levels, of the rich model's quantisation


def rich_features(pixels: Tensor) -> Tensor:
    """How high-passed values of neighbouring pixels occur together: [b, f].

    Of each filter and colour, quantised at two steps and cut off at +-2: the 25 joint frequencies
    of a value and its neighbour to the right or below, as square roots; at full resolution and at
    half of it. (The rich model of Fridrich and Kodovsky, made small.)
    """
    filters = high_pass_filters()[:, None]
    features = []
    for part in pixels.split(64):
        images = to_float(part) * 127.5
        columns = []
        for scale in (images, downsample(images)):
            planes = F.conv2d(scale.flatten(0, 1)[:, None], filters).flatten(0, 1)  # [3 b 7, h, w]
            for step in STEPS:
                levels = (planes / step).round_().clamp_(-2, 2).long() + 2
                pairs = [
                    (5 * levels[:, :, :-1] + levels[:, :, 1:]).flatten(1),
                    (5 * levels[:, :-1] + levels[:, 1:]).flatten(1),
                ]
                joint = torch.cat(pairs, dim=1) + 25 * torch.arange(len(levels))[:, None]
                counts = joint.flatten().bincount(minlength=25 * len(levels))
                share = counts.view(len(part), -1, 25) / joint.shape[1]
                columns.append(share.sqrt().flatten(1))
        features.append(torch.cat(columns, dim=1))
    return torch.cat(features)


@torch.no_grad()
def fit_rich_model(examples: Examples) -> Detector:
    """A logistic regression on :func:`rich_features`."""
    return fit_linear(rich_features, lambda x: x, examples, decay=1e-3)
