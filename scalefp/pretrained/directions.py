"""What a key may change of a convolution so that it goes with the picture, in closed form.

Each bit has a tensor of the weights' shape, the product of a vector over one side of the layer,
drawn at random, and one over what it sees. Those come from the features of some pictures: from the
directions along which features vary, each scaled to vary as much (*whitening*). None has a part
that all pictures share, which could be carried from one to another. Where latents are drawn,
pictures also share what is always at the same place, as a background at the corners: the half of
the directions that shares least of it is used. Crops that are encoded have nothing at a place, and
the weaker directions are used: of the strong ones there are few, and what they change is explained
by other latents as well as by a key.

Shape legend: m numbers that the layer sees at a place, d directions, n key bits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalefp.errors import UserError

# Directions that are used, as shares of their number. Of those of encoded pictures, from the
# strongest on, the weakest are read best (trials with TAEF2, see experiments/inversion/); of those
# of drawn ones the least bound to a place are lifted least (experiments/binding/).
BAND = (300 / 576, 1.0)
UNBOUND = 0.5
SMALLEST = 1e-7  # of the variances along directions, beside the largest
FAINT = 1e-2  # a change of weights, beside these, of which pictures are nearly linear
AT_ONCE = 8192  # places of a picture that count for its features
MOST_MIXED = 8  # as many times more than bits must be the ways in which a key can change weights

Convolution = nn.Conv2d | nn.ConvTranspose2d


def keyed_convolution(network: nn.Module, layers: list[str]) -> Convolution:
    """The one convolution that a key changes.

    Raises:
        UserError: there are several, or it is of another kind.
    """
    layer = network.get_submodule(layers[0]) if len(layers) == 1 else None
    if not isinstance(layer, Convolution) or layer.groups != 1:
        raise UserError(
            "modulation.reader=inversion takes one convolution of two dimensions and one group: "
            f"name it alone as modulation.layers and modulation.deltas, not {', '.join(layers)}"
        )
    return layer


def sees(layer: Convolution) -> int:
    """How many numbers it sees at a place, m: a transposed one the channels of its input alone."""
    weight = layer.weight
    return len(weight) if isinstance(layer, nn.ConvTranspose2d) else weight[0].numel()


def seen(layer: Convolution, x: Tensor) -> Tensor:
    """What a convolution sees of inputs [b, I, h, w]: [b, m, places], ``AT_ONCE`` places at the
    most."""
    if isinstance(layer, nn.ConvTranspose2d):
        columns = x.flatten(2)
    else:
        if isinstance(layer.padding, str):
            raise UserError("modulation.reader=inversion takes no convolution with padding by name")
        how: Any = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        columns = F.unfold(x, *how)
    step = max(1, columns.shape[2] // AT_ONCE)
    return columns[:, :, ::step]


def whitened(moment: Tensor, mean: Tensor) -> Tensor:
    """Directions [m - 1, m], the strongest first, along which features have mean 0 and mean square
    1, and do not go together.

    Args:
        moment: second moment of features [m, m].
        mean: their mean [m], other than 0.
    """
    apart = torch.linalg.svd(mean[None])[2][1:]  # a basis of all that is orthogonal to the mean
    values, directions = torch.linalg.eigh(apart @ moment @ apart.T)
    along = (directions / values.clamp_min(values[-1] * SMALLEST).sqrt()).T.flip(0)
    found: Tensor = along @ apart
    return found


def weaker(directions: Tensor) -> Tensor:
    """Those of the directions [d, m], the strongest first, that are used for encoded pictures."""
    first, last = (round(share * len(directions)) for share in BAND)
    return directions[first:last]


def unbound(directions: Tensor, places: Tensor) -> Tensor:
    """Mixtures of whitened directions [d, m]: those that are least bound to places of a picture.

    Args:
        places: mean of what the convolution sees at each place, over pictures [m, places].
    """
    bound = directions @ places
    mixtures = torch.linalg.eigh(bound @ bound.T)[1]  # the least bound first
    found: Tensor = mixtures.T[: round(UNBOUND * len(directions))] @ directions
    return found


def check_enough(used: Tensor, rest: int, n_bits: int) -> None:
    """Raise UserError if directions [d, m] and ``rest`` numbers on the other side of a layer are
    too few for so many bits."""
    if len(used) * rest < MOST_MIXED * n_bits:
        raise UserError(
            f"the convolution sees {used.shape[1]} numbers, of which {len(used)} directions are "
            f"used, too few for {n_bits} bits: take fewer or another layer"
        )


def factors(
    used: Tensor, layer: Convolution, n_bits: int, source: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Of each bit's change of weights the two vectors, in the order of the weight's sides.

    Every bit gets a mixture of all directions, so that none is read worse. Where there are fewer
    directions than bits, they differ by what is drawn at random.

    Args:
        used: directions [d, m] of what the convolution sees.

    Raises:
        UserError: there are too few directions.
    """
    rest = layer.weight.numel() // sees(layer)
    check_enough(used, rest, n_bits)
    mixing = torch.randn(max(n_bits, len(used)), len(used), generator=source)
    # Orthonormal rows as far as there are enough, else those of unit length in the mean.
    rows = torch.linalg.qr(mixing)[0] if len(used) >= n_bits else mixing / len(used) ** 0.5
    mixed, drawn = rows[:n_bits] @ used, torch.randn(n_bits, rest, generator=source)
    return (mixed, drawn) if isinstance(layer, nn.ConvTranspose2d) else (drawn, mixed)


@dataclass
class Features:
    """What a convolution sees of some pictures: sums, see :meth:`means`."""

    moment: Tensor  # second moment [m, m], over all places
    mean: Tensor  # [m], over all places
    places: Tensor  # [m, places], at each of them
    pictures: int = 0

    @classmethod
    def none(cls, size: int, device: torch.device) -> "Features":
        """Of no picture, m numbers."""
        zeros = torch.zeros(size, size + 1, dtype=torch.float64, device=device)
        return cls(zeros[:, :size].clone(), zeros[:, 0].clone(), zeros[:, -1:].clone())

    def add(self, columns: Tensor) -> None:
        """Account for pictures [b, m, places]."""
        columns = columns.double()
        flat = columns.transpose(0, 1).flatten(1)
        self.moment += flat @ flat.T / columns.shape[2]
        self.mean += flat.sum(dim=1) / columns.shape[2]
        self.places = self.places + columns.sum(dim=0)
        self.pictures += len(columns)

    @contextmanager
    def watching(self, layer: Convolution) -> Iterator[None]:
        """Account for all pictures that a convolution sees meanwhile."""

        def add(module: Convolution, inputs: tuple[Tensor, ...]) -> None:
            self.add(seen(module, inputs[0]))

        handle = layer.register_forward_pre_hook(add)
        try:
            yield
        finally:
            handle.remove()

    def directions(self, *, encoded: bool) -> Tensor:
        """Those of what the convolution sees that keys may change [d, m]."""
        sums = self.moment, self.mean, self.places
        moment, mean, places = (one.cpu() / self.pictures for one in sums)
        whole = whitened(moment, mean)
        return (weaker(whole) if encoded else unbound(whole, places)).float()


def settle_strength(
    kept: Callable[[], float], times: Callable[[float], Any], wanted: float
) -> None:
    """Make a faint change of pictures as strong as is asked for.

    Args:
        kept: PSNR in dB that the change leaves of pictures as it is.
        times: makes it so many times as strong.
    """
    for _ in range(2):  # the second time from nearby, as pictures are no linear function of it
        times(10 ** ((kept() - wanted) / 20))
