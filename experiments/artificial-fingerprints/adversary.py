"""An adversary who wants to know whether a picture is marked: four detectors, and their scores.

He knows the method and sees labelled examples, never the decoder. Two detectors are small residual
networks, on pixels and behind the high-pass filters of steganalysis; one is a linear classifier of
how values of neighbours occur together behind these filters; and one knows the carriers that marks
are made of, as far as the examples show them.

Shape legend: b images, m examples of each class, d = 3 r r residual values of images that were
low-passed to r x r, f features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.artificial.start import predict_pixels
from scalefp.images import to_float
from scalefp.layers import downsample

Scores = NDArray[np.float64]  # above 0: marked
Detector = Callable[[Tensor], Scores]  # uint8 [b, 3, R, R] -> [b]

BATCH = 64  # images of one step of training, half of them marked
CROP = 64  # side of what a network is trained on; it judges whole images
SETTLING = 16  # batches after training
GROUP = 16  # images of one source that are judged together
TRUNCATION = 12 / 127.5  # of high-passed values: what exceeds 12 grey levels is the picture's own
READ = 32  # side at which the carriers are looked for
MAX_PAIRS = 1000  # of which the carriers are computed
STEPS = (1.0, 4.0)  # in grey levels, of the rich model's quantisation
Z95 = 1.959964


@dataclass(frozen=True)
class Examples:
    """What the adversary learns from: images uint8 [m, 3, R, R] of both classes.

    ``paired``: marked image i was made from clean image i, and by many keys; else both are other
    pictures, and all marks are of one key.
    """

    clean: Tensor
    marked: Tensor
    paired: bool

    def split(self, share: float) -> tuple[Examples, Examples]:
        """Without, and only the last ``share`` of each class."""
        cut = [len(x) - max(1, round(share * len(x))) for x in (self.clean, self.marked)]
        first = Examples(self.clean[: cut[0]], self.marked[: cut[1]], self.paired)
        return first, Examples(self.clean[cut[0] :], self.marked[cut[1] :], self.paired)


# The networks.


def high_pass_filters() -> Tensor:
    """Seven residual filters [7, 5, 5] of the spatial rich model (Fridrich & Kodovsky 2012).

    First, second and third order along both axes for the first two, the 3x3 square and the 5x5
    square ("KV"), each divided by its largest weight.
    """
    filters = torch.zeros(7, 5, 5, dtype=torch.float64)
    filters[0, 2, 2:4] = torch.tensor([-1.0, 1.0])
    filters[1] = filters[0].T
    filters[2, 2, 1:4] = torch.tensor([1.0, -2.0, 1.0])
    filters[3] = filters[2].T
    filters[4, 2, 1:5] = torch.tensor([1.0, -3.0, 3.0, -1.0])
    square = torch.tensor([[-1.0, 2.0, -1.0], [2.0, -4.0, 2.0], [-1.0, 2.0, -1.0]])
    filters[5, 1:4, 1:4] = square
    filters[6] = torch.tensor(
        [
            [-1.0, 2.0, -2.0, 2.0, -1.0],
            [2.0, -6.0, 8.0, -6.0, 2.0],
            [-2.0, 8.0, -12.0, 8.0, -2.0],
            [2.0, -6.0, 8.0, -6.0, 2.0],
            [-1.0, 2.0, -2.0, 2.0, -1.0],
        ]
    )
    return (filters / filters.flatten(1).abs().amax(dim=1)[:, None, None]).float()


class Block(nn.Module):
    """Two convolutions beside a shortcut, the first of which may halve the image."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.shortcut(x))


class Network(nn.Module):
    """``N(images [b, 3, R, R] in [-1, 1]) -> logits [b]``, above 0: marked.

    As the networks of steganalysis do (SRNet, Boroumand et al. 2019), it looks at every pixel
    before it looks at less, and judges by the average of local features.
    """

    def __init__(self, *, high_pass: bool, width: int = 24) -> None:
        super().__init__()
        self.filters: Tensor | None
        self.register_buffer("filters", high_pass_filters()[:, None] if high_pass else None)
        self.stem = nn.Conv2d(4 * (21 if high_pass else 3), width, 3, padding=1)
        self.blocks = nn.Sequential(
            Block(width, width, stride=1),
            Block(width, 2 * width, stride=2),
            Block(2 * width, 4 * width, stride=2),
        )
        self.output = nn.Linear(4 * width, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        if self.filters is not None:
            planes = F.conv2d(images.flatten(0, 1)[:, None], self.filters, padding=2)
            x = planes.clamp(-TRUNCATION, TRUNCATION).unflatten(0, (-1, 3)).flatten(1, 2)
            x = x / TRUNCATION
        # In full precision up to here: bfloat16 would round a weak mark away.
        x = self.stem(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        with torch.autocast(images.device.type, torch.bfloat16):
            x = self.blocks(x)
        return torch.as_tensor(self.output(x.float().mean(dim=(2, 3))))[:, 0]


def _draw(examples: Examples, draw: np.random.Generator) -> Tensor:
    """A batch [BATCH, 3, s, s], the clean half first, of at most CROP pixels a side.

    Pairs are mirrored and turned alike, for whatever the key, a mark stays a mark; the mark of ONE
    key must stay where it is.
    """
    first = draw.integers(0, len(examples.clean), BATCH // 2)
    second = first if examples.paired else draw.integers(0, len(examples.marked), BATCH // 2)
    batch = torch.cat([examples.clean[first], examples.marked[second]])
    if examples.paired:
        batch = batch.rot90(int(draw.integers(4)), (2, 3))
        batch = batch.flip(3) if draw.random() < 0.5 else batch
    room = max(0, batch.shape[-1] - CROP)
    top, left = (2 * int(x) for x in draw.integers(0, room // 2 + 1, 2))
    return to_float(batch[:, :, top : top + CROP, left : left + CROP])


@torch.no_grad()
def _settle(network: Network, examples: Examples, draw: np.random.Generator) -> None:
    """Switch to judging, with means and variances of the final weights: a short training moves
    faster than their running averages follow."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average from now on
    for _ in range(SETTLING):
        network(_draw(examples, draw))
    network.eval()


def train_network(examples: Examples, *, high_pass: bool, images: int, seed: int) -> Detector:
    """A network trained on so many images, with Adam and one cycle of the learning rate."""
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    network = Network(high_pass=high_pass).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-3)
    steps = max(2, images // BATCH)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    labels = torch.arange(BATCH).ge(BATCH // 2).float()
    title = "high-pass network" if high_pass else "network"
    with tqdm(range(steps), title, unit="step", delay=2, leave=False) as bar:
        for _ in bar:
            loss = F.binary_cross_entropy_with_logits(network(_draw(examples, draw)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
            bar.set_postfix_str(f"loss {loss.item():.3f}")
    _settle(network, examples, draw)

    @torch.inference_mode()
    def detect(pixels: Tensor) -> Scores:
        parts = [network(to_float(part)) for part in pixels.split(128)]
        return torch.cat(parts).double().numpy()

    return detect


# The linear classifiers.


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


def _fit(
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
    return _fit(rich_features, lambda x: x, examples, decay=1e-3)


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
def fit_carriers(examples: Examples, *, carriers: int) -> Detector:
    """A logistic regression on how an image's residual lies to the marks of the examples.

    From pairs the adversary knows marks themselves: their mean is what all keys share, their
    leading directions are the carriers. Without pairs he has the difference of the means of both
    classes, which is the mark of the one key.
    """
    residuals = Residuals(examples.clean)
    if examples.paired:
        clean, marked = examples.clean[:MAX_PAIRS], examples.marked[:MAX_PAIRS]
        marks = residuals(marked) - residuals(clean)
        mean = marks.mean(dim=0)
        # Leading right singular vectors of [m, d], by way of [m, m], which is smaller.
        values, vectors = torch.linalg.eigh((marks @ marks.T).double())
        leading = values[-carriers:].clamp_min(1e-12).rsqrt() * vectors[:, -carriers:]
        directions = leading.T.float() @ marks
    else:
        # Sizes of images' residuals differ widely: without weights the busiest would decide.
        means = [F.normalize(residuals(x)).mean(dim=0) for x in (examples.clean, examples.marked)]
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

    return _fit(features, expand, examples, decay=1e-4)


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
