"""Key modulation of one layer that somebody else wrote: a convolution, transposed or not, or a
linear layer, of any number of groups and dimensions.

Shape legend: b batch, n key bits, I and O input and output channels, g groups, K taps of a kernel.
What the kinds differ in is where their weights keep these; :func:`grouped` brings all to one form.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalefp.errors import UserError
from scalefp.networks.layers import DEMODULATION_FLOOR, SMALLEST_SCALE, Linear

TRANSPOSED = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
STRAIGHT = nn.Conv1d | nn.Conv2d | nn.Conv3d
Layer = STRAIGHT | TRANSPOSED | nn.Linear
SHIFT = 0.1  # of biases at first, as a share of what key_gain makes of scales


def grouped(layer: Layer, weight: Tensor) -> Tensor:
    """The weight of a layer as [g, O/g, I/g, K], a view of it."""
    if isinstance(layer, nn.Linear):
        return weight[None, :, :, None]
    by_group: Tensor = weight.flatten(2).unflatten(0, (layer.groups, -1))
    return by_group.transpose(1, 2) if isinstance(layer, TRANSPOSED) else by_group


def channels(layer: Layer) -> tuple[int, int, int]:
    """Groups, input channels and output channels of a layer."""
    if isinstance(layer, nn.Linear):
        return 1, layer.in_features, layer.out_features
    return layer.groups, layer.in_channels, layer.out_channels


def without_bias(layer: Layer, x: Tensor, weight: Tensor) -> Tensor:
    """What a layer makes of inputs [b, ...] by another weight, and without its bias."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight)
    if isinstance(layer, TRANSPOSED):
        transposed: Any = getattr(F, f"conv_transpose{weight.ndim - 2}d")
        how = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
        out: Tensor = transposed(x, weight, None, *how)
        return out
    out = layer._conv_forward(x, weight, None)
    return out


def apply_weights(layer: Layer, x: Tensor, weights: Tensor) -> Tensor:
    """What a layer without bias makes of inputs [b, ...], each by weights of its own [b, ...], or
    all by the same [1, ...]."""
    if len(weights) == 1:
        return without_bias(layer, x, weights[0])
    if isinstance(layer, nn.ConvTranspose2d) and layer.groups == 1:
        return _apply_as_product(layer, x, weights)

    def one(x: Tensor, weight: Tensor) -> Tensor:
        return without_bias(layer, x[None], weight)[0]

    out: Tensor = torch.vmap(one)(x, weights)
    return out


def _apply_as_product(layer: nn.ConvTranspose2d, x: Tensor, weights: Tensor) -> Tensor:
    """As :func:`apply_weights`, in half its time on a CPU: a product, and its taps put in place."""
    how: list[Any] = [layer.kernel_size, layer.dilation, layer.padding, layer.stride]
    size = [
        (side - 1) * s - 2 * p + d * (k - 1) + 1 + more
        for side, k, d, p, s, more in zip(x.shape[2:], *how, layer.output_padding, strict=True)
    ]
    taps = torch.einsum("bij,bip->bjp", weights.flatten(2), x.flatten(2))
    placed: Any = F.fold  # whose types are too narrow
    out: Tensor = placed(taps, size, *how)
    return out


class KeyedLayer(nn.Module):
    """What a key changes of one layer; the layer itself is the network's and stays as it is.

    Input channels are scaled by 1 + a linear function of the key's signs, and output channels by
    the factor that keeps the norm of their weights (demodulation, Karras et al. 2020, eq. 3, with
    the layer's own norm in place of 1). Where the layer has a bias, it is shifted by a linear
    function of the signs. With ``deltas`` the weights get a sum of tensors, one for each bit and
    with its sign; ``factored``, each is the product of a vector over the outputs and one over all
    else, which takes a hundredth of the memory. Signs of 0 change nothing at all.
    """

    def __init__(
        self,
        layer: Layer,
        n_bits: int,
        *,
        key_gain: float,
        delta_gain: float | None,
        factored: bool = False,
    ) -> None:
        super().__init__()
        groups, inputs, outputs = channels(layer)
        self.groups = groups
        self.scale_change = Linear(n_bits, inputs, bias=False)
        self.shift_change: Linear | None = None
        if layer.bias is not None:
            self.shift_change = Linear(n_bits, outputs, bias=False)
        self.deltas: nn.Parameter | None = None
        self.factors: nn.ParameterList | None = None
        shape = layer.weight.shape
        if delta_gain is not None and factored:
            sizes = (shape[0], shape[1:].numel())
            self.factors = nn.ParameterList(torch.randn(n_bits, size) for size in sizes)
        elif delta_gain is not None:
            self.deltas = nn.Parameter(torch.randn(n_bits, *shape))
        weight = grouped(layer, layer.weight.detach()).float()
        self.delta_gain = (delta_gain or 0) * float(weight.std(unbiased=False)) / math.sqrt(n_bits)
        # The norm of the weights of each output channel: the unit of its shift.
        self.unit: Tensor
        self.register_buffer("unit", weight.square().sum((2, 3)).flatten().sqrt(), persistent=False)
        with torch.no_grad():
            self.scale_change.weight.mul_(key_gain)
            if self.shift_change is not None:
                self.shift_change.weight.mul_(key_gain * SHIFT)

    def scales(self, signs: Tensor) -> Tensor:
        """Of input channels [b, I]."""
        scales: Tensor = 1 + self.scale_change(signs)
        return scales

    def shifts(self, signs: Tensor) -> Tensor | None:
        """Of biases [b, O]."""
        if self.shift_change is None:
            return None
        shifts: Tensor = self.shift_change(signs) * self.unit
        return shifts

    @property
    def changes_weights(self) -> bool:
        """Whether the weights get a sum of tensors."""
        return self.deltas is not None or self.factors is not None

    def changed(self, signs: Tensor, weight: Tensor) -> Tensor:
        """Changes of a weight [...] by the sums of its tensors: [b, ...]."""
        if self.factors is not None:
            outputs, others = self.factors
            changes = torch.einsum("bn,no,ni->boi", signs, outputs, others)
        else:
            assert self.deltas is not None
            changes = signs @ self.deltas.flatten(1)
        return (self.delta_gain * changes).view(-1, *weight.shape)

    def change_of_output(self, layer: Layer, x: Tensor, signs: Tensor) -> Tensor:
        """What the changes of the weights add to the output for inputs [b, ...], each under signs
        of its own [b, n] or all under the same [1, n]."""
        if (
            self.factors is None
            or len(signs) == 1
            or self.groups > 1
            or isinstance(layer, nn.Linear)
        ):
            return apply_weights(layer, x, self.changed(signs, layer.weight).to(x.dtype))
        # Products of two vectors: one weight for all, between whose two halves signs are applied.
        first, second = (factor.to(x.dtype) for factor in self.factors)
        halves = second.view(-1, *layer.weight.shape[1:])
        signs = (self.delta_gain * signs).to(x.dtype).view(*signs.shape, *[1] * (x.ndim - 2))
        if isinstance(layer, TRANSPOSED):
            return without_bias(layer, signs * torch.einsum("bi...,ni->bn...", x, first), halves)
        return torch.einsum("bn...,no->bo...", signs * without_bias(layer, x, halves), first)

    def demodulation(self, layer: Layer, scales: Tensor) -> Tensor:
        """Factors of output channels [b, O] that keep the norms of their weights."""
        power = grouped(layer, layer.weight).float().square().sum(3)  # [g, O/g, I/g]
        by_group = scales.square().unflatten(1, (self.groups, -1))
        norms = torch.einsum("goi,bgi->bgo", power, by_group)
        before = power.sum(2)
        factors: Tensor = ((before + DEMODULATION_FLOOR) / (norms + DEMODULATION_FLOOR)).sqrt()
        return factors.flatten(1)

    def scale_input(self, layer: Layer, x: Tensor, signs: Tensor) -> Tensor:
        """The input of the layer under the keys of a batch: one for each input, several, or one for
        all."""
        if len(signs) % len(x) and len(signs) > 1:
            raise UserError(
                f"a layer saw {len(x)} inputs in a batch of {len(signs)} keys: the network "
                "regroups its batch there; leave this layer out of layers="
            )
        if len(x) < len(signs):
            x = x.repeat_interleave(len(signs) // len(x), dim=0)
        return x * along(layer, self.scales(signs), x)

    def scale_output(self, layer: Layer, x: Tensor, out: Tensor, signs: Tensor) -> Tensor:
        """The output of the layer, from its (scaled) input and what the layer makes of it."""
        factors = self.demodulation(layer, self.scales(signs))
        shifts = self.shifts(signs)
        if self.changes_weights:
            out = out + self.change_of_output(layer, x, signs)
        if layer.bias is not None and shifts is not None:
            shifts = shifts + layer.bias * (1 - factors)  # the bias itself is not demodulated
        out = out * along(layer, factors, out)
        return out if shifts is None else out + along(layer, shifts, out)

    def folded(self, layer: Layer, signs: Tensor) -> dict[str, Tensor]:
        """The weight of a layer under one key's signs [1, n], and its bias where it has one."""
        scales = self.scales(signs) + SMALLEST_SCALE
        factors = self.demodulation(layer, scales)
        weight = layer.weight.float()
        change = self.changed(signs, weight)[0] if self.changes_weights else 0
        weight = weight + change
        view = grouped(layer, weight)  # what is done to it is done to the weight
        view *= factors[0].view(self.groups, -1, 1, 1) * scales[0].view(self.groups, 1, -1, 1)
        found = {"weight": weight}
        shifts = self.shifts(signs)
        if layer.bias is not None and shifts is not None:
            found["bias"] = layer.bias.float() + shifts[0]
        return found


def along(layer: Layer, values: Tensor, x: Tensor) -> Tensor:
    """Values [b, C] in the shape and type that they multiply x by, [b, C, ...] or [b, ..., C]."""
    values = values.to(x.dtype)
    if isinstance(layer, nn.Linear):
        return values.view(len(values), *[1] * (x.ndim - 2), -1)
    return values.view(*values.shape, *[1] * (x.ndim - 2))
