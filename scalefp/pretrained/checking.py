"""Whether a picture that names a holder was made by the holder's copy, or had its key laid on.

A key can be laid on pictures that its holder never made; bound bits (scalefp/release/binding.py)
cannot, or nobody has shown how. The check looks for latents and bound bits with which the holder's
copy draws the picture (drawn.py), and compares these bits with the holder's own.

Why its p-value is exact. The bits that are looked for are not looked at while the picture is read,
and follow from the key by a hash with a secret of the release: for a picture that was made without
the holder's copy they are fair coins, whatever else is in it. So each agrees with what is read with
probability 1/2, as in scalefp/attribution/evidence.py.

A picture that does not pass was not shown to be a forgery: what is cropped, turned or changed a lot
does not pass either.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scalefp.attribution.evidence import DEFAULT_FPR, log_p_soft
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.pretrained.binding import without_bound_bits
from scalefp.pretrained.drawn import DrawnInverter
from scalefp.pretrained.inputs import Normal
from scalefp.pretrained.inversion import InversionSizes
from scalefp.pretrained.modulation import Parent, modulate
from scalefp.pretrained.source import Pictures
from scalefp.release import inputs as given
from scalefp.release.binding import Binding
from scalefp.release.model import Model

STARTS, STEPS, ROUNDS = 16, 48, 12  # of the inversion
TICKS = STEPS + ROUNDS  # how often a check calls ``tick``


@dataclass(frozen=True)
class LiftCheck:
    """What a lift check found.

    Attributes:
        agree: how many of the holder's bound bits were read.
        bits: how many there are.
        p_value: at most this is the probability that a picture made without the holder's copy
            agrees so well.
        passed: whether that is at most the probability that was accepted.
    """

    agree: int
    bits: int
    p_value: float
    passed: bool


def binding_of(model: Model) -> Binding:
    """The bound bits of a release.

    Raises:
        UserError: its instances carry none.
    """
    if model.binding is None:
        raise UserError(
            "a lift check needs a release whose copies carry bound bits: `scalefp release bind` "
            "makes one of this release, for copies that are handed out from then on"
        )
    return model.binding


def _parent(model: Model, key: Key) -> Parent:
    """The network of a key, whose bound bits are open."""
    binding, network = binding_of(model), without_bound_bits(model, key)
    layers, n_bits = [binding.sizes.layer], binding.sizes.n_bits
    parent = modulate(network, n_bits, layers, deltas=layers, key_gain=0, factored=True)
    (keyed, _), *_ = parent.layers()
    assert keyed.factors is not None
    outputs, others = binding.factors(model.folding.secret, key)
    keyed.factors[0].data, keyed.factors[1].data = outputs / keyed.delta_gain, others
    # As convolutions on CPUs want it; the types of torch lack this form.
    parent.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return parent.requires_grad_(False)


def lift_check(
    model: Model, key: Key, image: given.OneImage, *, fpr: float = DEFAULT_FPR,
    tick: Callable[[], Any] = lambda: None,
) -> LiftCheck:  # fmt: skip
    """Whether the copy of a key made an image, which may be a crop, or turned. Takes a minute of a
    core.

    Args:
        image: as :meth:`Model.decode` takes one.
        fpr: in (0, 1), accepted probability that it passes if the copy had no part in it.

    Raises:
        UserError: the release has no bound bits, a key of another length, an image that cannot be
            read, or more than one.
    """
    binding, config = binding_of(model), model.config
    pictures = given.Pictures(image, config.resolution)
    if len(pictures) != 1:
        raise UserError(f"a lift check takes one image at a time, not {len(pictures)}")
    (picture,) = pictures.batches(1)
    sizes = InversionSizes(config.resolution, binding.sizes.n_bits, STEPS, 1, STARTS, ROUNDS)
    parent = _parent(model, key)
    inputs, colours = Normal([config.latent_dim]), Pictures(-1, 1)
    # Pictures that the copy did not make are never explained, however often they are begun again.
    inverter = DrawnInverter(parent, inputs, colours, sizes, attempts=1)
    with torch.no_grad():
        logits = (
            inverter.signs(picture.to(inverter.device), tick, search=True).double().cpu().numpy()
        )
    bits = binding.bits(model.folding.secret, key)
    p_value = float(np.exp(log_p_soft(logits, bits[None])[0]))
    agree = int(((logits[0] > 0) == (bits > 0)).sum())
    return LiftCheck(agree, len(bits), p_value, p_value <= fpr)
