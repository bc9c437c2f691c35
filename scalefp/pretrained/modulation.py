"""Key modulation of any network: attached without touching its source, folded into its weights.

``parent(*inputs, bits)`` computes what the network computes, changed by a key for each input;
``parent.fold(key)`` is a network of the same class, with the same state dict but for the values,
that computes this for one key and knows of no key.
"""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.utils.hooks import RemovableHandle

from scalefp.errors import UserError
from scalefp.key import Key, check_fits
from scalefp.pretrained.keyed import KeyedLayer, Layer

# Part of the names of classes whose layers are left alone unless they are named: what they
# compute is no picture, and a change of one moves everything.
ATTENTION = "attention"


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer's weight is a parameter of its own, as a fold needs it."""
    weight = layer._parameters.get("weight")
    return weight is not None and not isinstance(weight, nn.parameter.UninitializedParameter)


def candidates(network: nn.Module) -> dict[str, Layer]:
    """All layers of a network that can be modulated, by name, in its own order.

    Left out are weights that several layers share, those that are computed from others, and
    torch's attention, which takes the weights of its layers without calling them.
    """
    shared: dict[int, int] = {}
    for module in network.modules():
        uses = 2 if isinstance(module, NonDynamicallyQuantizableLinear) else 1
        for parameter in module._parameters.values():
            shared[id(parameter)] = shared.get(id(parameter), 0) + uses
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, Layer) and _is_plain(module) and shared[id(module.weight)] == 1
    }


def _inside_attention(network: nn.Module, name: str) -> bool:
    parts = name.split(".")
    above = (network.get_submodule(".".join(parts[:i])) for i in range(len(parts)))
    return any(ATTENTION in type(module).__name__.lower() for module in above)


def chosen(network: nn.Module, layers: Sequence[str] | None, what: str = "layers") -> list[str]:
    """The names of the layers to modulate: those given, else all outside of attention.

    Raises:
        UserError: there is none, or a name is none of them.
    """
    known = candidates(network)
    outside = [name for name in known if not _inside_attention(network, name)]
    if not (outside if layers is None else known):
        raise UserError(
            f"{type(network).__name__} has no layer to modulate: none is a convolution, a "
            "transposed convolution or a linear layer with weights of its own"
        )
    if layers is None:
        return outside
    if not layers:
        raise UserError(f"{what} names no layer: leave it out to modulate all that can be")
    for name in layers:
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.3) or list(known)[:3]
            raise UserError(
                f"{type(network).__name__} has no layer {name!r} to modulate; the nearest names "
                f"are {', '.join(near)}"
            )
    return list(dict.fromkeys(layers))


def independent(network: nn.Module) -> nn.Module:
    """A deep copy of a network, in half the time that ``copy.deepcopy`` takes for a small one.

    Most of that goes into the dozen containers of hooks that each module has, as a rule all empty:
    the copy's are made at once, and the memo has them for copied.
    """
    memo: dict[int, Any] = {
        id(held): type(held)()
        for module in network.modules()
        for held in vars(module).values()
        if type(held) in (dict, OrderedDict, set) and not held
    }
    return copy.deepcopy(network, memo)


class Parent(nn.Module):
    """A network with key modulation. Secret, since it can emit every fingerprint.

    Args of ``forward``: those of the network by position, and last the bits [b, n] in {0, 1} of a
    key for each input; ``n_active`` of them are switched on (all when None), the others change
    nothing, as if they did not exist. What the network returns is returned. Other arguments of the
    network go by name. There may be k keys for each input, bits [k b, n], those of one input
    together: what comes before the first modulated layer is then computed once for all of them,
    which works where nothing passes that layer by.

    Attributes:
        network: a copy of what was given, in evaluation mode; outside of ``forward`` it computes
            what it did, but where its weights are trained.
        keyed: what a key changes of each modulated layer.
        names: of these layers in the network.
    """

    def __init__(
        self,
        network: nn.Module,
        n_bits: int,
        layers: Sequence[str] | None,
        deltas: Sequence[str],
        key_gain: float,
        delta_gain: float,
        method: str,
        factored: bool,
    ) -> None:
        super().__init__()
        self.n_bits, self.method = n_bits, method
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        names = chosen(self.network, layers)
        changed = chosen(self.network, deltas, "deltas") if deltas else []
        self.names = names + [name for name in changed if name not in names]
        known = candidates(self.network)
        self.keyed = nn.ModuleList(
            KeyedLayer(
                known[name],
                n_bits,
                key_gain=key_gain,
                delta_gain=delta_gain if name in changed else None,
                factored=factored,
            )
            for name in self.names
        )

    def train(self, mode: bool = True) -> "Parent":
        """As of every module, but the network stays in evaluation mode: its norms do not learn."""
        super().train(mode)
        self.network.eval()
        return self

    def layers(self, network: nn.Module | None = None) -> list[tuple[KeyedLayer, Any]]:
        """Each modulated layer of the own network, or of one of the same class, and its keys."""
        network = self.network if network is None else network
        found = [network.get_submodule(name) for name in self.names]
        keyed = [module for module in self.keyed if isinstance(module, KeyedLayer)]
        return list(zip(keyed, found, strict=True))

    def signs(self, bits: Tensor, n_active: int | None = None) -> Tensor:
        """-1 and +1 for the bits [b, n], 0 for those that are not switched on."""
        if bits.ndim != 2 or bits.shape[1] != self.n_bits:
            raise UserError(
                f"bits must have shape [b, {self.n_bits}], not {list(bits.shape)}: give them last, "
                "a key for each input"
            )
        signs = bits.to(torch.float32) * 2 - 1
        if n_active is not None and n_active < self.n_bits:
            signs = torch.cat([signs[:, :n_active], torch.zeros_like(signs[:, n_active:])], dim=1)
        return signs

    def forward(self, *inputs: Any, n_active: int | None = None, **named: Any) -> Any:
        *given, bits = inputs
        return self.under(self.signs(bits, n_active), *given, **named)

    def original(self, *inputs: Any, **named: Any) -> Any:
        """What the network returns without any key."""
        return getattr(self.network, self.method)(*inputs, **named)

    def under(self, signs: Tensor, *inputs: Any, **named: Any) -> Any:
        """What the network returns under signs [b, n] of any size: 0 is no key at all.

        One key [1, n] may be that of all inputs.
        """
        handles: list[RemovableHandle] = []
        try:
            for keyed, layer in self.layers():
                handles += _attach(keyed, layer, signs)
            return self.original(*inputs, **named)
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def fold(self, key: Key) -> nn.Module:
        """The network of one key: the class, the names, shapes and types of the state dict are
        those of the network that was modulated.

        Raises:
            UserError: the key's length is not the parent's.
        """
        check_fits(key, self.n_bits)
        network = independent(self.network)
        signs = self.signs(torch.from_numpy(key.bits)[None])
        for keyed, layer in self.layers(network):
            for name, value in keyed.folded(layer, signs.to(layer.weight.device)).items():
                getattr(layer, name).copy_(value)
        return network

    def folded(self, signs: Tensor) -> dict[str, Tensor]:
        """All parameters of the network of one key's signs [1, n], by name, in which gradients
        reach what a key changes."""
        tensors: dict[str, Tensor] = dict(self.network.named_parameters())
        for prefix, (keyed, layer) in zip(self.names, self.layers(), strict=True):
            for name, value in keyed.folded(layer, signs).items():
                tensors[f"{prefix}.{name}" if prefix else name] = value
        return tensors


def _attach(keyed: KeyedLayer, layer: Layer, signs: Tensor) -> list[RemovableHandle]:
    """Hooks that modulate a layer until they are removed."""

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (keyed.scale_input(layer, inputs[0], signs), *inputs[1:])

    def after(module: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> Tensor:
        return keyed.scale_output(layer, inputs[0], out, signs)

    # Next to the layer itself, whatever other hooks it has.
    return [
        layer.register_forward_pre_hook(before),
        layer.register_forward_hook(after, prepend=True),
    ]


def modulate(
    network: nn.Module,
    n_bits: int = 128,
    layers: Sequence[str] | None = None,
    *,
    deltas: Sequence[str] = (),
    key_gain: float = 0.1,
    delta_gain: float = 1.0,
    method: str = "forward",
    factored: bool = False,
) -> Parent:
    """Attach key modulation to any network, without touching it or its source.

    Args:
        network: copied, put into evaluation mode.
        n_bits: length of the keys.
        layers: names of the layers to modulate, as in ``network.named_modules()``; None = all
            convolutions, transposed convolutions and linear layers outside of attention. Norms,
            attention and whatever else is in it stay as they are.
        deltas: names of the layers whose weights also get a sum of learned tensors, one for each
            bit and with its sign. They need ``n_bits`` times the memory of the layers.
        factored: these tensors are products of two vectors, and take little memory.
        key_gain: standard deviation of the scales before any training.
        delta_gain: that of the change of weights by ``deltas``, in units of the weights' own.
        method: of the network, what ``parent(*inputs, bits)`` calls, for example ``decode``.

    Returns:
        ``parent(*inputs, bits)``, see :class:`Parent`.

    Raises:
        UserError: no layer can be modulated, or one of that name does not exist.
    """
    if not 1 <= n_bits <= 512:
        raise UserError(f"n_bits must lie between 1 and 512, not {n_bits}")
    return Parent(network, n_bits, layers, deltas, key_gain, delta_gain, method, factored)
