"""Another method in the same table: what ``scalefp evaluate`` asks of it.

A method that makes pictures for a key and reads keys from pictures is measured as a release is.
What needs the weights of a network is left out.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from PIL import Image
from torch import Tensor, nn

from scalefp.attribution.reading import Reading
from scalefp.data.images import to_float, to_tensor
from scalefp.errors import UserError
from scalefp.key import Key

if TYPE_CHECKING:
    from scalefp.pretrained.release import PretrainedModel
    from scalefp.release.model import Model


class Original(Protocol):
    """What makes a method's pictures without any key."""

    def sample(self, n: int, *, seed: int) -> Tensor:
        """Make n images, floats [n, 3, R, R] in [-1, 1]: those of that seed before they got a
        key."""


class Method(Protocol):
    """What a method must offer.

    An attribute ``digest`` may name its version, for resuming, and ``original`` make its pictures
    without any key, see :class:`Original`. With ``searches`` it reads with ``search=False`` where
    crops and turns need not be tried.
    """

    n_bits: int  # key length
    resolution: int  # image height and width

    def sample(self, key: Key, n: int, *, seed: int) -> Sequence[Image.Image] | Tensor:
        """Make n images of one key: PIL images, or [n, 3, R, R] as uint8 or floats in [-1, 1].

        The same seed stands for the same latents (or originals), whatever the key.
        """

    def decode(self, images: Sequence[Image.Image]) -> Reading:
        """Read images of any size, as files give them: logits [b, n_bits], above 0 for a 1."""


@dataclass(frozen=True)
class Sizes:
    """What of a release's sizes every method has."""

    resolution: int
    n_bits: int
    method: str  # its class


class OtherMethod:
    """A method in the shape of a release, as the measurements ask for it.

    Raises:
        UserError: the object does not offer what :class:`Method` asks for.
    """

    def __init__(self, method: Method) -> None:
        name = type(method).__name__
        for wanted in ("n_bits", "resolution", "sample", "decode"):
            if not hasattr(method, wanted):
                raise UserError(
                    f"{name} has no {wanted}: a method offers n_bits, resolution, "
                    "sample(key, n, seed=...) and decode(images)"
                )
        self.method = method
        self.config = Sizes(int(method.resolution), int(method.n_bits), name)
        self.digest = str(getattr(method, "digest", None) or _digest(method))
        self.searches = bool(getattr(method, "searches", False))

    @cached_property
    def original(self) -> Original | None:
        """What makes its pictures without any key; None if the method does not say."""
        found: Original | None = getattr(self.method, "original", None)
        return found

    def instantiate(self, key: Key) -> KeyImages:
        """What stands for an instance: the method with one key."""
        return KeyImages(self.method, key)

    def decode(
        self, images: Sequence[Image.Image], *, batch_size: int = 32, search: bool = False
    ) -> Reading:
        """Read images; how many at a time is the method's own affair."""
        decode: Any = self.method.decode
        found = decode(images, search=search) if self.searches else decode(images)
        reading = found if isinstance(found, Reading) else Reading(np.asarray(found))
        if reading.logits.shape != (len(images), self.config.n_bits):
            raise UserError(
                f"{self.config.method}.decode gave logits of shape {reading.logits.shape} for "
                f"{len(images)} images of {self.config.n_bits} bits"
            )
        return reading


@dataclass(frozen=True)
class KeyImages:
    """A method with one key."""

    method: Method
    key: Key

    def sample(self, n: int, *, seed: int = 0, batch_size: int = 32) -> Tensor:
        """Images as floats [n, 3, R, R] in [-1, 1]."""
        made = self.method.sample(self.key, n, seed=seed)
        size = self.method.resolution
        if not isinstance(made, Tensor | np.ndarray):
            pixels = to_tensor(list(made), size)
        else:
            pixels = torch.as_tensor(made)
        if pixels.shape != (n, 3, size, size):
            raise UserError(
                f"{type(self.method).__name__}.sample gave images of shape {list(pixels.shape)}, "
                f"not [{n}, 3, {size}, {size}]"
            )
        return to_float(pixels) if pixels.dtype == torch.uint8 else pixels.float().clamp(-1, 1)


def _digest(method: Method) -> str:
    """Of a method's code and what it holds: another one must not take over finished parts."""
    try:
        code = Path(inspect.getfile(type(method))).read_bytes()
    except (OSError, TypeError):
        code = type(method).__qualname__.encode()
    return hashlib.sha256(code + _content(vars(method)).encode()).hexdigest()


def _content(value: object) -> str:
    """What tells a held value from another one: of weights all of them, not how they are shown."""
    if isinstance(value, nn.Module):
        return f"{value!r} {_content(value.state_dict())}"
    if isinstance(value, Tensor):
        flat = value.detach().cpu().flatten().view(torch.uint8).numpy()
        return f"{value.dtype} {list(value.shape)} {hashlib.sha256(flat.tobytes()).hexdigest()}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, Mapping):
        return f"{{{sorted(f'{key!r}: {_content(held)}' for key, held in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_content, value))}]"
    return repr(value)


# What is measured: a release, or another method in its shape.
Measured: TypeAlias = "Model | PretrainedModel | OtherMethod"


def as_measured(model: Measured | Method) -> Measured:
    """A method in the shape of a release, which a release has itself."""
    if hasattr(model, "instantiate"):
        return cast("Measured", model)
    return OtherMethod(model)


def load_method(options: Mapping[str, Any]) -> OtherMethod:
    """Make the object that ``_target_`` names, with the other options as its arguments.

    Modules are also looked for where one's own configuration files lie (``--config-dir``).

    Raises:
        UserError: there is no such class, or it cannot be made so.
    """
    if "_target_" not in options:
        raise UserError("method._target_ must name a class: method._target_=package.module.Class")
    if HydraConfig.initialized():
        for source in HydraConfig.get().runtime.config_sources:
            if source.schema == "file" and source.path not in sys.path:
                sys.path.append(source.path)
    try:
        made = instantiate(dict(options))
    except Exception as error:
        cause = error.__cause__ or error
        raise UserError(
            f"method._target_={options['_target_']} cannot be made: {' '.join(str(cause).split())}"
        ) from error
    return OtherMethod(made)
