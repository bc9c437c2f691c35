"""Bound bits: what an instance adds to its pictures that means nothing in another picture.

A decoder reads the key from what all pictures of an instance have in common; so it can be learned
from some of them and laid on others. Beside that an instance may carry a second fingerprint, which
changes one convolution along directions that go with the picture: scalefp/pretrained/binding.py.
Its bits, and the directions of each, follow from the key and a secret of the release. So what one
instance has says nothing of another, however many of them are compared. Nobody but the release's
owner can read the bits, and only a picture that the instance made has them in it: this is what a
lift check (scalefp/pretrained/checking.py) looks for.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.options import check_between

# So that what else follows from the secret says nothing of them.
BITS, DIRECTIONS = b"bound bits of ", b"directions of bound bits of "
FEWEST, MOST = 20, 256  # fewer could not be confirmed at fpr 1e-6, more do not come from one hash


@dataclass(frozen=True)
class BindingSizes:
    """What a release's header says of its binding."""

    layer: str  # of the instance, which the bits change
    n_bits: int

    def check(self) -> None:
        """Raise :class:`UserError` unless there are so many bits."""
        check_between("the number of bound bits", self.n_bits, FEWEST, MOST)


class Binding(nn.Module):
    """For each bound bit of a key a change of one layer's weights, the product of two vectors.

    Attributes:
        directions: [d, 9 I], of what the convolution sees at a place. Each bit has a mixture of all
            of them, with signs drawn for the key, and signs over the output channels.
    """

    def __init__(self, sizes: BindingSizes, weight: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes, self.channels = sizes, weight[0]
        sees = weight[1] * weight[2] * weight[3]
        directions = torch.empty((sees - 1) // 2, sees)
        self.directions = nn.Parameter(directions, requires_grad=False)

    @property
    def name(self) -> str:
        """Of the tensor of an instance that the bits change."""
        return f"{self.sizes.layer}_weight"

    def bits(self, secret: bytes, key: Key) -> NDArray[np.uint8]:
        """The bound bits [n] of the instance of a key, always the same.

        Args:
            secret: of the release, see :func:`scalefp.release.channels.order_secret`.
        """
        drawn = hmac.digest(secret, BITS + key.bytes, "sha256")
        return np.unpackbits(np.frombuffer(drawn, np.uint8))[: self.sizes.n_bits]

    def factors(self, secret: bytes, key: Key) -> tuple[Tensor, Tensor]:
        """What the bits of a key change, whichever they are: the two vectors of each, over the
        output channels [n, O] and over what the convolution sees [n, 9 I]."""
        n_bits, count = self.sizes.n_bits, len(self.directions)
        seed = hmac.digest(secret, DIRECTIONS + key.bytes, "sha256")
        coins = n_bits * (self.channels + count)
        drawn = np.frombuffer(hashlib.shake_256(seed).digest(-(-coins // 8)), np.uint8)
        signs = torch.from_numpy(np.unpackbits(drawn)[:coins]).to(self.directions) * 2 - 1
        outputs, mixing = signs.view(n_bits, -1).split([self.channels, count], dim=1)
        return outputs, mixing @ self.directions

    def change(self, secret: bytes, key: Key, like: Tensor) -> Tensor:
        """What the bits of a key add to the layer's weights, which are ``like`` [O, I, 3, 3]."""
        signs = torch.from_numpy(self.bits(secret, key)).to(self.directions) * 2 - 1
        outputs, others = self.factors(secret, key)
        return ((signs[:, None] * outputs).T @ others).view(like.shape).to(like)


def keyed_weight(layer: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of the weights of a convolution of an instance, by name.

    Raises:
        UserError: the instances have no such layer.
    """
    shape = shapes.get(f"{layer}_weight", ())
    if len(shape) == 4 and shape[2] > 1:
        return shape
    known = [name.removesuffix("_weight") for name, one in shapes.items() if len(one) == 4]
    layers = [name for name in known if not name.endswith(("_to_rgb", "_offset"))]
    raise UserError(
        f"an instance has no convolution {layer[:40]!r} to bind bits to: it has {', '.join(layers)}"
    )
