"""A linear classifier that knows the carriers marks are made of, as far as examples show them.

Shape legend: b images, m examples of each class, d = 3 r r residual values of images that were
low-passed to r x r.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefp.data.images import to_float
from scalefp.detection.examples import Examples
from scalefp.detection.linear import fit_linear
from scalefp.detection.scores import Detector
from scalefp.networks.layers import downsample
from scalefp.networks.receiver import predict_pixels

READ = 32  # side at which the carriers are looked for
MAX_PAIRS = 1000  # of which the carriers are computed


class Residuals:
    """What an image shows beside its own content: [b, d], from the best linear prediction."""

    def __init__(self, clean: Tensor) -> None:
        self.weights = predict_pixels(self._low_pass(clean[:512]))

    @staticmethod
    def _low_pass(pixels: Tensor) -> Tensor:
        images = to_float(pixels)
        while images.shape[-1] >= 2 * READ:
            images = downsample(images)
        return images

    def __call__(self, pixels: Tensor) -> Tensor:
        parts = []
        for part in pixels.split(256):
            planes = F.pixel_unshuffle(self._low_pass(part), 2)
            parts.append((planes - F.conv2d(planes, self.weights, padding=1)).flatten(1))
        return torch.cat(parts)


@torch.no_grad()
def fit_carriers(examples: Examples, *, carriers: int, known: Examples | None = None) -> Detector:
    """A logistic regression on how an image's residual lies to marks.

    From pairs the adversary knows marks themselves: their mean is what all keys share, their
    leading directions are the carriers. Without pairs he has the difference of the means of both
    classes, which is the mark of the one key. What marks are is taken from ``known``, if given,
    and how much of them tells the classes apart from ``examples``.
    """
    known = examples if known is None else known
    residuals = Residuals(known.clean)
    if known.paired:
        clean, marked = known.clean[:MAX_PAIRS], known.marked[:MAX_PAIRS]
        marks = residuals(marked) - residuals(clean)
        mean = marks.mean(dim=0)
        # Leading right singular vectors of [m, d], by way of [m, m], which is smaller.
        values, vectors = torch.linalg.eigh((marks @ marks.T).double())
        leading = values[-carriers:].clamp_min(1e-12).rsqrt() * vectors[:, -carriers:]
        directions = leading.T.float() @ marks
    else:
        # Sizes of images' residuals differ widely: without weights the busiest would decide.
        means = [F.normalize(residuals(x)).mean(dim=0) for x in (known.clean, known.marked)]
        mean = means[1] - means[0]
        directions = F.normalize(mean[None])
    unit = F.normalize(mean, dim=0)

    def features(pixels: Tensor) -> Tensor:
        found = residuals(pixels)
        power = found.square().sum(dim=1).clamp_min(1e-9)
        inside = (found @ directions.T).square().sum(dim=1)
        share = (inside / power).clamp(1e-6, 1 - 1e-6)
        columns = [found @ unit * power.rsqrt(), share.logit(), power.log()]
        return torch.stack(columns, dim=1).double()

    def expand(x: Tensor) -> Tensor:
        products = [x[:, i] * x[:, j] for i, j in ((0, 1), (0, 2), (1, 2))]
        return torch.cat([x, x.square(), torch.stack(products, dim=1)], dim=1)

    return fit_linear(features, expand, examples, decay=1e-4)
