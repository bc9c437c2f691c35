"""The fast path of :func:`scalefp.release.instance.instantiate`: one generator, many keys.

For the bundled release it takes 0.6 ms a key where the other takes 7 ms, on one core, a third of
it for the order of channels that is the instance's own (channels.py).

A fold takes as long as writing the weights, plus some microseconds for each operation. So there
are few operations:

- Whatever does not depend on the key is prepared once. With a linear embedding even the scales of
  all layers are one matrix product with the bits.
- The demodulation factor d > 0 of an output channel moves through leaky ReLU and upsampling into
  the weights that read the channel, lrelu(d x + b) = d lrelu(x + b / d). So each tensor is
  multiplied once, by one factor for each channel.
- The factors of all layers are computed together, on the CPU, in buffers of which each layer has
  a view.
"""

from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scalefp.key import Key, check_fits
from scalefp.networks.generator import Generator
from scalefp.networks.layers import DEMODULATION_FLOOR, SMALLEST_SCALE, Linear
from scalefp.release.binding import Binding
from scalefp.release.channels import draw_turns, order_secret, turn_channels_
from scalefp.release.instance import Instance, modulated_layers, sizes_of


class Folding:
    """``folding(key)`` draws what ``instantiate(generator, key)`` draws, to rounding.

    The channels inside its blocks are in the key's own order. It keeps copies of the generator's
    weights: a change of them afterwards goes unseen. Several threads may share one.

    Args:
        binding: adds bound bits to every instance, which then draws a little else.
    """

    @torch.no_grad()
    def __init__(self, generator: Generator, binding: Binding | None = None) -> None:
        self.binding = binding
        self.generator, self.sizes, self.lock = generator, sizes_of(generator), Lock()
        self.secret = order_secret(generator)
        device = generator.input.weight.device
        layers = modulated_layers(generator)
        inputs = [layer.weight.shape[1] for layer in layers.values()]
        outputs = [layer.weight.shape[0] for layer in layers.values()]

        # Scales of all layers, base + slope @ embedding; of the bits where the embedding is linear.
        self.slope = torch.cat([layer.key_change.folded()[0] for layer in layers.values()]).cpu()
        self.base = torch.ones(sum(inputs))
        self.linear = generator.config.mapping_layers == 0
        if self.linear:
            (embedding,) = generator.embedding.layers
            assert isinstance(embedding, Linear)
            self.slope = self.slope @ embedding.folded()[0].cpu()  # of the signs, 2 * bits - 1
            self.base = self.base - self.slope.sum(dim=1)
            self.slope = 2 * self.slope
        self.embedding = torch.empty(self.slope.shape[1])

        # Buffers with an entry for each input channel or each output channel of all layers, on the
        # CPU. The outputs begin with one that stands for the dense layer's, which have no factor.
        self.scales, self.squares = torch.empty(2, sum(inputs))
        self.norms = torch.ones(1 + sum(outputs))
        # What tensors are multiplied by: weights, offsets and biases.
        self.all_factors = torch.empty(2 * sum(inputs) + len(self.norms))
        self.on_device = self.all_factors.to(device)  # itself on a CPU
        sizes = [sum(inputs), sum(inputs), len(self.norms)]
        self.factors, self.shifts, self.roots = self.all_factors.split(sizes)
        factors, shifts, roots = self.on_device.split(sizes)
        squares, norms = self.squares.split(inputs), self.norms[1:].split(outputs)
        channel_factors = [factor.view(-1, 1, 1) for factor in factors.split(inputs)]
        channel_shifts = [shift.view(-1, 1, 1) for shift in shifts.split(inputs)]
        channel_roots = roots[1:].split(outputs)

        # What is multiplied by what, under its name in the instance.
        one = torch.ones(1, device=device)
        weight, bias = generator.input.folded()
        assert bias is not None
        products = {"input_weight": (weight, one), "input_bias": (bias, one)}
        self.demodulated = []  # (floor, weight powers [O, I], scales^2, where their norms go)
        sources, source, begin = [], np.zeros(self.sizes.channels[0], np.intp), 1
        for i, (name, layer) in enumerate(layers.items()):
            weight = (layer.weight * layer.weight_gain).contiguous(
                memory_format=torch.channels_last
            )
            products[f"{name}_weight"] = (weight, channel_factors[i])
            products[f"{name}_bias"] = (layer.bias.flatten() * layer.output_gain, channel_roots[i])
            if layer.maps is not None:
                maps = layer.maps.detach().contiguous(memory_format=torch.channels_last)
                products[f"{name}_offset"] = (maps, channel_shifts[i])
            sources.append(source)
            if layer.demodulate:
                inverse = layer.output_gain**-2
                floor = torch.full((outputs[i],), DEMODULATION_FLOOR * inverse)
                power = weight.square().sum(dim=(2, 3)).cpu() * inverse
                self.demodulated.append((floor, power, squares[i], norms[i]))
                source = np.arange(begin, begin + outputs[i])
            begin += outputs[i]
        self.source = np.concatenate(sources)  # which output an input channel is
        self.names = list(products)
        self.constants = [constant for constant, _ in products.values()]
        self.views = [view for _, view in products.values()]
        buffers = self.scales, self.squares, self.norms, self.factors, self.shifts, self.roots
        self.arrays = [buffer.numpy() for buffer in buffers]
        self.embedding_array = self.embedding.numpy()

    def _embedded(self, key: Key) -> NDArray[np.float32]:
        """What a nonlinear embedding makes of the key."""
        bits = torch.from_numpy(key.bits)[None].to(self.on_device)
        embedding: NDArray[np.float32] = self.generator.embedding(bits)[0].cpu().numpy()
        return embedding

    @torch.no_grad()
    def __call__(self, key: Key) -> Instance:
        """The instance of ``key``; it shares no memory with anything.

        Raises:
            UserError: the key's length is not the generator's.
        """
        tensors = self.tensors(key)
        if self.binding is not None:
            weight = tensors[self.binding.name]
            weight += self.binding.change(self.secret, key, weight)
        turn_channels_(tensors, draw_turns(self.secret, key, self.sizes.channels[1:]))
        return Instance(self.sizes, tensors)

    @torch.no_grad()
    def tensors(self, key: Key) -> dict[str, Tensor]:
        """Those of the instance of ``key``, without bound bits and with channels in the
        generator's order.

        Raises:
            UserError: the key's length is not the generator's.
        """
        check_fits(key, self.generator.config.n_bits)
        with self.lock:
            self.embedding_array[:] = key.bits if self.linear else self._embedded(key)
            # NumPy where the arrays are small: its calls take half the time of torch's.
            scales, squares, norms, factors, shifts, roots = self.arrays
            torch.addmv(self.base, self.slope, self.embedding, out=self.scales)
            scales += SMALLEST_SCALE
            np.square(scales, out=squares)
            for floor, power, layer_squares, layer_norms in self.demodulated:
                torch.addmv(floor, power, layer_squares, out=layer_norms)
            np.sqrt(norms, out=roots)
            np.divide(scales, roots[self.source], out=factors)
            np.divide(scales - 1, factors, out=shifts)
            if self.on_device is not self.all_factors:
                self.on_device.copy_(self.all_factors)
            products = torch._foreach_mul(self.constants, self.views)
        return dict(zip(self.names, products, strict=True))
