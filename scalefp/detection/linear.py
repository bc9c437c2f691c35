"""Logistic regression on features of images.

Shape legend: b images, f features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefp.detection.examples import Examples
from scalefp.detection.scores import Detector, Scores


def _logistic(features: Tensor, labels: Tensor, decay: float) -> Tensor:
    """Weights [f] of a logistic regression on features [b, f], regularised by ``decay``."""
    weights = torch.zeros(features.shape[1], dtype=features.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(features @ weights, labels)
        loss = loss + decay * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def fit_linear(
    features: Callable[[Tensor], Tensor],
    expand: Callable[[Tensor], Tensor],
    examples: Examples,
    decay: float,
) -> Detector:
    """A logistic regression on standardised features [b, f], a constant and ``expand`` of them."""
    found = torch.cat([features(examples.clean), features(examples.marked)])
    centre, spread = found.mean(dim=0), found.std(dim=0).clamp_min(1e-6)

    def columns(found: Tensor) -> Tensor:
        x = (found - centre) / spread
        return torch.cat([torch.ones_like(x[:, :1]), expand(x)], dim=1)

    labels = torch.arange(len(found)).ge(len(examples.clean)).to(found.dtype)
    with torch.enable_grad():
        weights = _logistic(columns(found), labels, decay)

    @torch.inference_mode()
    def detect(pixels: Tensor) -> Scores:
        return (columns(features(pixels)) @ weights).double().numpy()

    return detect
