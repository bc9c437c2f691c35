"""A generator that others trained, as options name it: its class, its weights, its pictures.

Options and files say which class it is. A file may come from anywhere, so no more is done on its
word than to import the class and to make a network of it: it must be a ``torch.nn.Module``.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from scalefp.errors import UserError
from scalefp.files import check_regular
from scalefp.networks.torchvision import mend_torchvision

OUR_OWN = ("_target_", "weights", "weights_key")  # options that do not go to the class
MOST_NAMED = 5  # names of tensors in a message
# By how much of their range images may leave it: a few values farther than SLACK, as decoders
# overshoot at edges, and none as far as FARTHEST.
SLACK, FEW, FARTHEST = 0.05, 0.05, 0.5


def _imported(module: str, name: str) -> Any:
    """What has a name in a module that is imported."""
    try:
        return getattr(import_module(module), name)
    except RuntimeError:  # as of a torchvision that does not fit torch
        with suppress(ImportError):
            mend_torchvision()
        return getattr(import_module(module), name)


def find_class(target: object, what: str) -> type:
    """The class of a dotted name.

    Raises:
        UserError: it cannot be imported, or is no class.
    """
    module, dot, name = str(target).rpartition(".")
    if not dot:
        raise UserError(f"{what}._target_ must be module.Class, not {target!r}")
    try:
        found = _imported(module, name)
    except AttributeError as error:
        raise UserError(f"{what}._target_={target}: {module} has no {name}") from error
    except Exception as error:  # whatever somebody else's module raises
        raise UserError(f"{what}._target_={target} cannot be imported: {error}") from error
    if not isinstance(found, type):
        raise UserError(f"{what}._target_={target} is no class: name the class itself")
    return found


def make(options: Mapping[str, Any], what: str, base: type | None = None) -> Any:
    """An object of the class and with the arguments that options name.

    Raises:
        UserError: no such class, another kind of class, or other arguments than it takes.
    """
    if "_target_" not in options:
        raise UserError(f"{what} must name a class: {what}._target_=module.Class")
    found = find_class(options["_target_"], what)
    if base is not None and not issubclass(found, base):
        raise UserError(f"{what}._target_={options['_target_']} is no {base.__name__}")
    arguments = {name: value for name, value in options.items() if name not in OUR_OWN}
    try:
        return found(**arguments)
    except UserError:
        raise
    except Exception as error:  # whatever somebody else's class raises
        raise UserError(
            f"{what}: {found.__name__}({', '.join(f'{k}={v!r}' for k, v in arguments.items())}) "
            f"failed: {type(error).__name__}: {error}"
        ) from error


def weights_path(weights: str, what: str = "generator") -> Path:
    """The file of weights; PACKAGE:FILE is one that lies in an installed package.

    Args:
        what: whose weights they are, among the options.

    Raises:
        UserError: there is no such package.
    """
    package, colon, name = weights.partition(":")
    if not colon or Path(weights).exists() or not package.replace(".", "").isidentifier():
        return Path(weights)
    try:
        return Path(str(files(package) / name))
    except ImportError as error:
        raise UserError(f"{what}.weights={weights}: {package} is not installed") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file of weights, 64 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_digest(path: Path, digest: str, what: str) -> None:
    """Raise UserError unless a file of weights is there and the very one that is meant.

    Args:
        digest: SHA-256 of the file that is meant.
        what: the weights in words.
    """
    if not path.is_file() or digest_of(path) != digest:
        state = "are other ones" if path.is_file() else "are not there"
        raise UserError(f"{what} {state}: put the file with SHA-256 {digest} at {path}")


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def read_weights(path: Path, key: str | None, what: str = "generator") -> dict[str, Tensor]:
    """The state dict in a file of ``torch.save`` or safetensors, read without running code.

    Args:
        key: under which it lies in the file.
        what: whose weights they are, among the options.

    Raises:
        UserError: no such file, or no state dict in it.
    """
    check_regular(path, "weights")
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for one cause: not such a file
        raise UserError(
            f"{path} is no file of weights that can be read safely: it must hold a state dict, "
            "written by torch.save or, with the ending .safetensors, by safetensors"
        ) from error
    if key is not None:
        if not isinstance(state, dict) or key not in state:
            known = _named([str(name) for name in state]) if isinstance(state, dict) else "no names"
            raise UserError(f"{path} has no {key!r} ({what}.weights_key); it has {known}")
        state = state[key]
    if isinstance(state, dict) and not all(isinstance(value, Tensor) for value in state.values()):
        within = [name for name, value in state.items() if isinstance(value, dict)]
        raise UserError(
            f"{path} holds more than weights"
            + (f": say where they are, {what}.weights_key={within[0]}" if within else "")
        )
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, no state dict")
    return state


def load_into(network: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Give a network the weights of a file, which have to fit it exactly.

    Raises:
        UserError: they do not; missing, unexpected and misfitting names are listed.
    """
    own = network.state_dict()
    reshaped = [n for n in own.keys() & weights.keys() if own[n].shape != weights[n].shape]
    faults = {
        "missing": sorted(own.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - own.keys()),
        "of another shape": sorted(reshaped),
    }
    if any(faults.values()):
        listed = "; ".join(f"{fault}: {_named(names)}" for fault, names in faults.items() if names)
        raise UserError(f"{path} does not fit {type(network).__name__}: {listed}")
    network.load_state_dict(dict(weights))


def load_network(options: Mapping[str, Any], what: str = "generator") -> nn.Module:
    """The network that options name, with its weights, for use.

    Args:
        what: the name of the options.

    Raises:
        UserError: class, arguments or weights that do not work.
    """
    network: nn.Module = make(options, what, nn.Module)
    weights = options.get("weights")
    if weights is None:
        raise UserError(
            f"{what}.weights must name the file of its weights: a network without training is of "
            "no use"
        )
    path = weights_path(str(weights), what)
    load_into(network, read_weights(path, options.get("weights_key"), what), path)
    return network.eval().requires_grad_(False)


@dataclass(frozen=True)
class Pictures:
    """How what a generator returns becomes pictures: what black and white are in it."""

    low: float
    high: float

    def of(self, out: Any) -> Tensor:
        """Images [b, 3, R, R], nominally in [-1, 1].

        Args:
            out: a tensor, an object with ``sample`` or a tuple or dict of such.

        Raises:
            UserError: there are no images in it.
        """
        found = out
        if isinstance(found, dict):
            found = found.get("sample", next(iter(found.values()), None))
        if isinstance(found, tuple):
            found = found[0]
        found = getattr(found, "sample", found)
        if not isinstance(found, Tensor) or found.ndim != 4 or found.shape[1] != 3:
            what = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"the generator must return images [b, 3, R, R], not {what}")
        return (found.float() - self.low) * (2 / (self.high - self.low)) - 1

    def check(self, images: Tensor, resolution: int) -> None:
        """Raise UserError unless images [b, 3, R, R] of a batch are what was declared."""
        if images.shape[2:] != (resolution, resolution):
            height, width = images.shape[2:]
            raise UserError(
                f"the generator makes images of {height}x{width}: set model.resolution to that "
                f"(square, one of those it can be), not {resolution}"
            )
        if not torch.isfinite(images).all():
            raise UserError("the generator's images hold numbers that are not finite")
        shares = (images + 1) / 2
        low, high = (float(end) for end in shares.aminmax())
        outside = float(((shares < -SLACK) | (shares > 1 + SLACK)).float().mean())
        span = self.high - self.low
        shown = f"[{self.low + low * span:.3g}, {self.low + high * span:.3g}]"
        declared = f"modulation.range=[{self.low:g},{self.high:g}]"
        if outside > FEW or low < -FARTHEST or high > 1 + FARTHEST:
            raise UserError(f"{declared}, but a batch of the generator's images spans {shown}")
        if self.low < 0 and low >= 0.5:
            raise UserError(
                f"{declared}, but a batch of the generator's images spans {shown}, which looks "
                "like [0,1]: set modulation.range=[0,1]"
            )
