"""Building blocks: equalized layers, modulated convolution, low-pass resampling.

Shape legend: b batch, I input channels, O output channels, k kernel size, H W height and width,
n key bits, e embedding width. Images and feature maps are [b, C, H, W].

Equations of StyleGAN2 (Karras et al., CVPR 2020, arXiv 1912.04958) are cited by number.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Leaky ReLU halves the variance of a unit Gaussian up to its slope; sqrt(2) restores it. Since
# lrelu(x) * g = lrelu(x * g) for g > 0, the layers fold the gain into what comes before.
ACTIVATION_GAIN = math.sqrt(2)
ACTIVATION_SLOPE = 0.2
DEMODULATION_FLOOR = 1e-8  # added to the squared norm of the weights
# Added to scales that are divided by. They are 1 + something, so it changes none but 0 itself.
SMALLEST_SCALE = 1e-12


def normalize_2nd_moment(x: Tensor) -> Tensor:
    """Scale each row of x [b, C] to unit mean square."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def gained(parameter: Tensor, gain: float) -> Tensor:
    """``parameter`` times ``gain``, without a pass over it where that is 1."""
    return parameter if gain == 1 else parameter * gain


class Linear(nn.Module):
    """Fully connected layer with equalized learning rate (Karras et al., ICLR 2018, sec. 4.1).

    Weights are stored at unit variance divided by ``lr_multiplier`` and scaled at run time.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        lr_multiplier: float = 1.0,
        active: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.bias_gain = lr_multiplier * (ACTIVATION_GAIN if active else 1.0)
        self.weight_gain = self.bias_gain / math.sqrt(in_features)
        self.active = active

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weights [out, in] and bias [out] of the plain layer before activation."""
        bias = None if self.bias is None else self.bias * self.bias_gain
        return self.weight * self.weight_gain, bias

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else gained(self.bias, self.bias_gain)
        x = F.linear(x, gained(self.weight, self.weight_gain), bias)
        return F.leaky_relu(x, ACTIVATION_SLOPE) if self.active else x


class Conv2d(nn.Module):
    """Convolution with equalized learning rate, "same" padding, optional activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, active: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.bias_gain = ACTIVATION_GAIN if active else 1.0
        self.weight_gain = self.bias_gain / math.sqrt(in_channels * kernel * kernel)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = gained(self.weight, self.weight_gain), gained(self.bias, self.bias_gain)
        x = F.conv2d(x, weight, bias, padding=self.weight.shape[-1] // 2)
        return F.leaky_relu(x, ACTIVATION_SLOPE) if self.active else x


@torch.no_grad()
def fold_gains_(network: nn.Module) -> None:
    """Multiply the gains of all equalized layers into their weights, in place.

    For networks that only infer: nothing changes but the time that the multiplication takes in
    every call, and the weights' layout, which becomes that of the feature maps.
    """
    for layer in network.modules():
        if isinstance(layer, Linear | Conv2d):
            layer.weight.mul_(layer.weight_gain)
            if layer.bias is not None:
                layer.bias.mul_(layer.bias_gain)
            layer.weight_gain = layer.bias_gain = 1.0
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def demodulation(weight: Tensor, scales: Tensor) -> Tensor:
    """Demodulation factors [b, O] for weight [O, I, k, k] and scales [b, I] (eq. 3)."""
    power = weight.square().sum(dim=(2, 3))  # [O, I]
    return (scales.square() @ power.T + DEMODULATION_FLOOR).rsqrt()


def modulated_conv2d_reference(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    maps: Tensor | None = None,
    *,
    demodulate: bool = True,
) -> Tensor:
    """Modulated convolution as the paper writes it: one set of weights for each sample.

    w' = s_i * w (eq. 1), w'' = w' / sqrt(sum w'^2 + eps) (eq. 3). This is the specification;
    :func:`modulated_conv2d` is what trains, and what folds a key in gives the same: layer by layer
    :func:`fold_modulation`, and all at once, as instances are made, release/folding.py.

    Args:
        x: input [b, I, H, W].
        weight: shared weights [O, I, k, k].
        scales: one scale per sample and input channel [b, I].
        maps: added to the scaled input times (scale - 1), [1, I, H, W].
        demodulate: restore unit variance of the outputs (off for RGB outputs).

    Returns:
        [b, O, H, W].
    """
    padding = weight.shape[-1] // 2
    outputs = []
    for sample, scale in zip(x, scales, strict=True):
        own = weight * scale[None, :, None, None]
        norm = (own.square().sum(dim=(1, 2, 3)) + DEMODULATION_FLOOR).sqrt()[:, None, None]
        output = F.conv2d(sample, own, padding=padding)
        if maps is not None:
            pattern = maps[0] * (scale - 1)[:, None, None]
            output = output + F.conv2d(pattern, weight, padding=padding)
        outputs.append(output / norm if demodulate else output)
    return torch.stack(outputs)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    maps: Tensor | None = None,
    *,
    demodulate: bool = True,
    gain: float = 1.0,
) -> Tensor:
    """Fast path of :func:`modulated_conv2d_reference`: scale activations, convolve, rescale.

    Convolution is linear, so scaling input channels by s and output channels by the demodulation
    factor equals convolving each sample with its own weights, without grouped convolutions.
    ``gain`` multiplies demodulated outputs.
    """
    factors = scales.to(x.dtype)[:, :, None, None]
    if maps is None:
        x = x * factors
    else:
        maps = maps.to(x.dtype)
        x = (x + maps) * factors - maps
    x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    if demodulate:
        x = x * (demodulation(weight, scales) * gain).to(x.dtype)[:, :, None, None]
    return x


def fold_modulation(
    weight: Tensor,
    scale: Tensor,
    maps: Tensor | None = None,
    *,
    demodulate: bool = True,
    gain: float = 1.0,
    weight_gain: float = 1.0,
) -> tuple[Tensor, Tensor | None]:
    """What modulation by one constant scale vector [I] amounts to.

    ``weight_gain`` multiplies the weights beforehand.

    Returns:
        Weights [O, I, k, k] of a plain convolution, and what to add to its input [1, I, H, W]
        (None without maps), that together equal :func:`modulated_conv2d` under that scale:
        (x + maps) s - maps = s (x + maps (1 - 1/s)).
    """
    scale = scale + SMALLEST_SCALE
    weight = weight * weight_gain
    folded = weight * scale[None, :, None, None]
    if demodulate:
        folded = folded * gain * demodulation(weight, scale[None])[0][:, None, None, None]
    if maps is None:
        return folded, None
    return folded, maps * (1 - 1 / scale)[:, None, None]


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by 1 + a linear function of the key embedding.

    (A learned bias in place of the 1 would say nothing that the weights cannot.)

    With ``map_size`` each input channel also has a learned map of that height and width, which is
    added times (scale - 1). A key can thus write a pattern that is fixed in the plane, by far the
    quickest thing for generator and decoder to agree on. Over all keys the maps average out, so
    they cannot draw the picture itself; plain learned maps do, the same for every latent.

    Without ``takes_key`` the scales are 1 and stay so, and the layer is a plain convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        embedding_width: int,
        *,
        map_size: int = 0,
        demodulate: bool = True,
        key_gain: float = 1.0,
        takes_key: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(1, out_channels, 1, 1))
        self.maps: nn.Parameter | None = None
        if map_size:
            self.maps = nn.Parameter(torch.zeros(1, in_channels, map_size, map_size))
        self.key_change = Linear(embedding_width, in_channels, bias=False)
        with torch.no_grad():
            self.key_change.weight.mul_(key_gain if takes_key else 0)
        self.key_change.requires_grad_(takes_key)
        self.weight_gain = 1 / math.sqrt(in_channels * kernel * kernel)
        # The activation's gain; RGB outputs are neither demodulated nor activated.
        self.output_gain = ACTIVATION_GAIN if demodulate else 1.0
        self.demodulate = demodulate

    def scales(self, embedding: Tensor) -> Tensor:
        """Scales of the input channels [b, I] for embeddings [b, e]."""
        scales: Tensor = 1 + self.key_change(embedding)
        return scales

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x [b, I, H, W], embedding [b, e] -> [b, O, H, W]."""
        x = modulated_conv2d(
            x,
            self.weight * self.weight_gain,
            self.scales(embedding),
            self.maps,
            demodulate=self.demodulate,
            gain=self.output_gain,
        )
        x = x + (self.bias * self.output_gain).to(x.dtype)
        return F.leaky_relu(x, ACTIVATION_SLOPE) if self.demodulate else x

    def folded(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Weights [O, I, k, k], bias [O] and what to add to the input [1, I, H, W] (None without
        maps) of the plain convolution for one embedding [1, e]."""
        weight, offset = fold_modulation(
            self.weight,
            self.scales(embedding)[0],
            self.maps,
            demodulate=self.demodulate,
            gain=self.output_gain,
            weight_gain=self.weight_gain,
        )
        return weight, self.bias.flatten() * self.output_gain, offset


def is_recomputed(resolution: int, recompute_from: int | None) -> bool:
    """Whether a block of that resolution is one of those whose activations are not kept."""
    return recompute_from is not None and recompute_from <= resolution


def recomputed(module: nn.Module, again: bool, *inputs: Any) -> Any:
    """``module(*inputs)``; if ``again``, its activations are not kept for the backward pass, which
    computes them a second time (Chen et al. 2016, arXiv 1604.06174)."""
    if not again or not torch.is_grad_enabled():
        return module(*inputs)
    return checkpoint(module, *inputs, use_reentrant=False, preserve_rng_state=False)


def upsample(x: Tensor) -> Tensor:
    """Double height and width with a triangle low-pass filter (bilinear, taps 1 3 3 1)."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def downsample(x: Tensor) -> Tensor:
    """Halve height and width with a box low-pass filter."""
    return F.avg_pool2d(x, 2)
