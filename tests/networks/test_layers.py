"""Layers: the fast modulated convolution against the equations, variances, low-pass resampling."""

import math

import pytest
import torch
import torch.nn.functional as F

from scalefp.networks.layers import (
    ACTIVATION_SLOPE,
    Conv2d,
    Linear,
    ModulatedConv2d,
    downsample,
    fold_gains_,
    fold_modulation,
    modulated_conv2d,
    modulated_conv2d_reference,
    normalize_2nd_moment,
    upsample,
)

# lrelu halves the power of a unit Gaussian up to its slope, sqrt(2) doubles it.
ACTIVE_POWER = 1 + ACTIVATION_SLOPE**2
SHAPES = [(3, 7, 3), (7, 3, 3), (3, 7, 1), (7, 3, 1)]  # I, O, k


def modulation_inputs(shape, dtype, size=6, batch=3, maps=False):
    """x, weight, scales and, if asked for, maps."""
    in_channels, out_channels, kernel = shape
    torch.manual_seed(0)
    x = torch.randn(batch, in_channels, size, size, dtype=dtype)
    weight = torch.randn(out_channels, in_channels, kernel, kernel, dtype=dtype)
    scales = 1 + torch.randn(batch, in_channels, dtype=dtype)
    inputs = [x, weight, scales]
    if maps:
        inputs.append(torch.randn(1, in_channels, size, size, dtype=dtype))
    return [tensor.requires_grad_() for tensor in inputs]


def values_and_gradients(function, inputs, demodulate):
    """The output, and the gradients of a fixed random projection of it."""
    y = function(*inputs, demodulate=demodulate)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad((y * direction).sum(), inputs)]


# Modulated convolution.


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_fast_modulated_convolution_equals_the_reference(shape, dtype, tolerance, demodulate, maps):
    inputs = modulation_inputs(shape, dtype, maps=maps)
    fast = values_and_gradients(modulated_conv2d, inputs, demodulate)
    reference = values_and_gradients(modulated_conv2d_reference, inputs, demodulate)
    names = ("y", "dx", "dweight", "dscales", "dmaps")[: len(fast)]
    for name, a, b in zip(names, fast, reference, strict=True):
        assert a.dtype == dtype
        assert (a - b).abs().max() <= tolerance * b.abs().max(), name


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_reference_is_equations_1_and_3(shape, demodulate):
    x, weight, scales = (tensor.detach() for tensor in modulation_inputs(shape, torch.float64))
    y = modulated_conv2d_reference(x, weight, scales, demodulate=demodulate)
    for sample, scale, got in zip(x, scales, y, strict=True):
        w = torch.stack([weight[:, i] * scale[i] for i in range(weight.shape[1])], dim=1)
        if demodulate:
            w = torch.stack([row / torch.sqrt((row**2).sum() + 1e-8) for row in w])
        expected = F.conv2d(sample[None], w, padding=weight.shape[-1] // 2)[0]
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("function", [modulated_conv2d, modulated_conv2d_reference])
def test_maps_show_as_far_as_the_key_changes_the_scales(function):
    x, weight, scales, maps = (
        tensor.detach() for tensor in modulation_inputs((3, 4, 3), torch.float64, maps=True)
    )
    neutral = torch.ones_like(scales)
    torch.testing.assert_close(function(x, weight, neutral, maps), function(x, weight, neutral))
    # Without demodulation their part is linear in (scale - 1), so over opposite keys it averages
    # out.
    up, down = (function(x, weight, s, maps, demodulate=False) for s in (scales, 2 - scales))
    plain = function(x, weight, neutral, demodulate=False)
    torch.testing.assert_close((up + down) / 2, plain)
    part = function(torch.zeros_like(x), weight, scales, maps, demodulate=False)
    pattern = F.conv2d(maps * (scales - 1)[:, :, None, None], weight, padding=1)
    torch.testing.assert_close(part, pattern)


def test_fast_gradients_pass_the_finite_difference_check():
    inputs = modulation_inputs((2, 3, 3), torch.float64, size=4, batch=2, maps=True)
    assert torch.autograd.gradcheck(modulated_conv2d, inputs)


@pytest.mark.parametrize("kernel", [1, 3])
def test_demodulated_outputs_have_unit_variance_whatever_the_scales(kernel):
    torch.manual_seed(0)
    x = torch.randn(4, 24, 48, 48)
    weight = 5 * torch.randn(8, 24, kernel, kernel)
    scales = 10 ** torch.randn(4, 24)  # over several orders of magnitude
    inside = slice(1, -1)  # the zero padding at the border takes variance away
    y = modulated_conv2d(x, weight, scales)[:, :, inside, inside]
    assert ((y.std(dim=(2, 3)) - 1).abs() < 0.1).all()
    plain = modulated_conv2d(x, weight, scales, demodulate=False)[:, :, inside, inside]
    assert plain.std() > 10


def test_gain_multiplies_demodulated_outputs():
    x, weight, scales = modulation_inputs((3, 5, 3), torch.float32)
    y = modulated_conv2d(x, weight, scales)
    torch.testing.assert_close(modulated_conv2d(x, weight, scales, gain=2.5), 2.5 * y)


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_folded_weights_and_offset_convolve_as_the_modulated_convolution(shape, demodulate, maps):
    inputs = modulation_inputs(shape, torch.float64, batch=1, maps=maps)
    x, weight, scales, *rest = (tensor.detach() for tensor in inputs)
    scales[0, 0] = 0  # there no finite offset times the scale could be what maps add
    folded, offset = fold_modulation(weight, scales[0], *rest, demodulate=demodulate)
    assert folded.shape == weight.shape
    assert (None if offset is None else offset.shape) == ((1, len(x[0]), 6, 6) if maps else None)
    expected = modulated_conv2d_reference(x, weight, scales, *rest, demodulate=demodulate)
    plain = F.conv2d(x if offset is None else x + offset, folded, padding=weight.shape[-1] // 2)
    torch.testing.assert_close(plain, expected, rtol=1e-4, atol=1e-4)


def test_demodulated_weights_forget_the_size_of_the_scales_and_survive_zero():
    _, weight, scales = modulation_inputs((3, 5, 3), torch.float64)
    folded, _ = fold_modulation(weight, scales[0])
    norms = folded.square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-6)
    larger, _ = fold_modulation(weight, 7 * scales[0])
    torch.testing.assert_close(larger, folded, rtol=0, atol=1e-6)
    zero, _ = fold_modulation(weight, torch.zeros_like(scales[0]))
    torch.testing.assert_close(zero, torch.zeros_like(zero), rtol=0, atol=1e-6)


def layer_with(map_size, demodulate=True):
    """A layer whose bias and maps are not trivial."""
    torch.manual_seed(0)
    layer = ModulatedConv2d(4, 5, 3, 8, map_size=map_size, demodulate=demodulate)
    with torch.no_grad():
        layer.bias.normal_()
        if layer.maps is not None:
            layer.maps.normal_()
    return layer


@pytest.mark.parametrize("map_size", [0, 6])
@pytest.mark.parametrize("demodulate", [True, False])
def test_a_modulated_layer_with_one_embedding_is_a_plain_convolution(demodulate, map_size):
    layer = layer_with(map_size, demodulate)
    x, embedding = torch.randn(2, 4, 6, 6), torch.randn(1, 8)
    weight, bias, offset = layer.folded(embedding)
    plain = F.conv2d(x if offset is None else x + offset, weight, bias, padding=1)
    if demodulate:  # RGB outputs (not demodulated) are linear
        plain = F.leaky_relu(plain, ACTIVATION_SLOPE)
    torch.testing.assert_close(plain, layer(x, embedding.expand(2, -1)))


def test_an_active_modulated_layer_keeps_unit_power_and_adds_its_bias():
    torch.manual_seed(0)
    layer = ModulatedConv2d(40, 60, 3, 8)
    y = layer(torch.randn(4, 40, 34, 34), torch.randn(4, 8))[:, :, 1:-1, 1:-1]
    assert y.square().mean().item() == pytest.approx(ACTIVE_POWER, rel=0.08)
    with torch.no_grad():
        layer.bias.fill_(0.5)
    y = layer(torch.zeros(1, 40, 4, 4), torch.randn(1, 8))  # on zero input the bias is left
    torch.testing.assert_close(y, torch.full_like(y, 0.5 * math.sqrt(2)))


def test_scales_are_one_but_for_what_the_embedding_says():
    layer, embedding = layer_with(6), torch.randn(3, 8)
    torch.testing.assert_close(layer.scales(torch.zeros(1, 8)), torch.ones(1, 4))
    torch.testing.assert_close(
        layer.scales(embedding) + layer.scales(-embedding), torch.full((3, 4), 2.0)
    )


def test_key_gain_sets_the_strength_of_the_modulation():
    x = torch.randn(1, 4, 6, 6)
    embeddings = torch.randn(2, 1, 8)
    changes = []
    for key_gain in (0.0, 0.1, 1.0):
        torch.manual_seed(0)
        layer = ModulatedConv2d(4, 5, 3, 8, key_gain=key_gain)
        first, second = (layer(x, embedding) for embedding in embeddings)
        changes.append((first - second).square().mean().item())
    assert changes[0] == 0
    assert 0 < 10 * changes[1] < changes[2]


def test_modulated_layer_keeps_the_working_precision_of_autocast():
    layer = ModulatedConv2d(4, 5, 3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.randn(2, 4, 6, 6), torch.randn(2, 8))
    assert y.dtype == torch.bfloat16


# Equalized layers.


@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
@pytest.mark.parametrize(("active", "power"), [(False, 1.0), (True, ACTIVE_POWER)])
def test_linear_keeps_unit_power(active, power, lr_multiplier):
    torch.manual_seed(0)
    layer = Linear(300, 500, lr_multiplier=lr_multiplier, active=active)
    y = layer(torch.randn(400, 300))
    assert y.square().mean().item() == pytest.approx(power, rel=0.05)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("active", "power"), [(False, 1.0), (True, ACTIVE_POWER)])
def test_convolution_keeps_unit_power(active, power, kernel):
    torch.manual_seed(0)
    y = Conv2d(40, 60, kernel, active=active)(torch.randn(4, 40, 34, 34))
    assert y.shape == (4, 60, 34, 34)
    assert y[:, :, 1:-1, 1:-1].square().mean().item() == pytest.approx(power, rel=0.08)


@pytest.mark.parametrize(
    "make", [lambda a: Linear(6, 5, active=a), lambda a: Conv2d(6, 5, 3, active=a)]
)
def test_an_active_layer_is_the_plain_one_through_a_scaled_leaky_relu(make):
    torch.manual_seed(0)
    active, plain = make(True), make(False)
    with torch.no_grad():
        active.bias.normal_()
    plain.load_state_dict(active.state_dict())
    x = torch.randn(4, 6, 8, 8) if isinstance(active, Conv2d) else torch.randn(4, 6)
    torch.testing.assert_close(active(x), F.leaky_relu(plain(x), 0.2) * math.sqrt(2))


def test_lr_multiplier_slows_learning_but_starts_from_the_same_function():
    x, steps = torch.randn(5, 6), {}
    for multiplier in (1.0, 0.01):
        torch.manual_seed(0)
        layer = Linear(6, 4, lr_multiplier=multiplier)
        before = layer(x)
        if multiplier == 1.0:
            start = before
        torch.testing.assert_close(before, start)
        with torch.no_grad():  # the same step of an optimizer that normalizes gradients
            for parameter in layer.parameters():
                parameter += 0.1
        steps[multiplier] = layer(x) - before
    torch.testing.assert_close(steps[0.01], 0.01 * steps[1.0], rtol=1e-3, atol=1e-5)


def test_folding_the_gains_in_changes_no_value():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        Conv2d(3, 4, 3), Conv2d(4, 5, 1, active=False), torch.nn.Flatten(),
        Linear(5 * 36, 6, lr_multiplier=0.1, active=True), Linear(6, 2, bias=False),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    x = torch.randn(3, 3, 6, 6)
    expected = network(x)
    fold_gains_(network)
    torch.testing.assert_close(network(x), expected)
    again = network(x)
    fold_gains_(network)  # there is nothing left to fold
    torch.testing.assert_close(network(x), again, rtol=0, atol=0)


def test_a_bias_starts_at_zero_and_can_be_left_out():
    x = torch.randn(3, 6)
    torch.manual_seed(0)
    layer, bare = Linear(6, 4), Linear(6, 4, bias=False)
    assert "bias" not in dict(bare.named_parameters())
    bare.load_state_dict({"weight": layer.weight.detach()})
    torch.testing.assert_close(layer(x), bare(x))
    torch.testing.assert_close(bare(-x), -bare(x))  # linear
    with torch.no_grad():
        layer.bias.fill_(0.5)
    torch.testing.assert_close(layer(x), bare(x) + 0.5)


def test_normalize_2nd_moment_gives_rows_of_unit_mean_square_in_the_same_direction():
    torch.manual_seed(0)
    x = torch.randn(5, 32) * torch.tensor([1e-2, 0.1, 1, 10, 1e3])[:, None]
    y = normalize_2nd_moment(x)
    torch.testing.assert_close(y.square().mean(dim=1), torch.ones(5), rtol=1e-3, atol=0)
    torch.testing.assert_close(F.cosine_similarity(x, y), torch.ones(5))
    assert torch.equal(normalize_2nd_moment(torch.zeros(2, 3)), torch.zeros(2, 3))


# Resampling.


def ramp(size):
    """A plane that is linear in x and y, [1, 1, size, size]."""
    line = torch.arange(size, dtype=torch.float64)
    return (3 * line[:, None] - 2 * line[None, :] + 5)[None, None]


@pytest.mark.parametrize("resample", [upsample, downsample])
def test_constants_stay_constant(resample):
    x = torch.full((2, 3, 8, 8), 0.7)
    y = resample(x)
    torch.testing.assert_close(y, torch.full_like(y, 0.7))


def test_resampling_doubles_and_halves_each_side():
    x = torch.randn(2, 3, 8, 8)
    assert upsample(x).shape == (2, 3, 16, 16)
    assert downsample(x).shape == (2, 3, 4, 4)


def test_ramps_stay_ramps_inside():
    x = ramp(8)
    up = upsample(x)[0, 0, 1:-1, 1:-1]  # the border repeats its last value
    torch.testing.assert_close(up.diff(dim=0), torch.full((13, 14), 1.5, dtype=torch.float64))
    torch.testing.assert_close(up.diff(dim=1), torch.full((14, 13), -1.0, dtype=torch.float64))
    there_and_back = downsample(upsample(x))
    torch.testing.assert_close(there_and_back[..., 1:-1, 1:-1], x[..., 1:-1, 1:-1])


def test_upsampling_filter_has_taps_1_3_3_1_and_downsampling_is_the_mean_of_2x2():
    impulse = torch.zeros(1, 1, 5, 5)
    impulse[..., 2, 2] = 1
    taps = torch.tensor([1.0, 3, 3, 1]) / 4
    expected = torch.zeros(10, 10)
    expected[3:7, 3:7] = taps[:, None] * taps
    torch.testing.assert_close(upsample(impulse)[0, 0], expected)
    x = torch.randn(1, 1, 6, 4)
    blocks = x[0, 0].reshape(3, 2, 2, 2).mean(dim=(1, 3))
    torch.testing.assert_close(downsample(x)[0, 0], blocks)
