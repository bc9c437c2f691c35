"""What the header of a release, marker or instance may say: one schema, the dataclass of its sizes.

Files come from anywhere. So types and ranges are checked before anything is built, networks are
built without memory for their weights, and these are read only if the sizes and the table of
contents of the file agree.
"""

import dataclasses
import math
from pathlib import Path
from types import UnionType
from typing import Any, Protocol, TypeVar, get_args, get_origin, get_type_hints

from torch import nn

from scalefp.errors import UserError
from scalefp.options import absent_values
from scalefp.release.container import load_header, load_weights, shapes_of

MOST_ENTRIES = 16  # of a list of sizes
LARGEST = 2**53  # the greatest number up to which floats hold every whole one


class Sizes(Protocol):
    """A dataclass of the sizes that networks are built from."""

    def check(self) -> None:
        """Raise :class:`UserError` unless they can be built."""


S = TypeVar("S", bound=Sizes)


def _converted(value: Any, kind: Any) -> Any:
    """A value of JSON as the type that a dataclass declares; ValueError if it is of another."""
    if isinstance(kind, UnionType):
        options = get_args(kind)
        if value is None and type(None) in options:
            return None
        (kind,) = (option for option in options if option is not type(None))
    if get_origin(kind) is tuple:  # tuple[int, ...]
        if isinstance(value, list) and len(value) <= MOST_ENTRIES:
            return tuple(_converted(entry, get_args(kind)[0]) for entry in value)
    elif kind is float:
        if type(value) in (int, float) and abs(value) <= LARGEST and math.isfinite(value):
            return float(value)
    elif type(value) is kind and not (kind is int and abs(value) > LARGEST):
        return value
    raise ValueError(value)


def read_sizes(values: Any, sizes: type[S], path: str | Path) -> S:
    """The sizes that a header names: all of them, no others, of the right types and in range.

    Files of earlier versions need not name those that came later.

    Raises:
        UserError: they are not.
    """
    what = f"{path}: its header is damaged or of another version of scalefp"
    fields = dataclasses.fields(sizes)  # type: ignore[arg-type]
    kinds = {field.name: get_type_hints(sizes)[field.name] for field in fields}
    if not isinstance(values, dict):
        raise UserError(f"{what} (it names no sizes)")
    values = absent_values(sizes) | values
    for names, fault in ((kinds.keys() - values.keys(), "lacks"), (values.keys() - kinds, "has")):
        if names:
            raise UserError(f"{what} (it {fault} {min(names)[:40]!r})")
    converted = {}
    for name, kind in kinds.items():
        try:
            converted[name] = _converted(values[name], kind)
        except ValueError:
            shown = f"{values[name]!r:.40}"
            raise UserError(f"{what} ({name} is {shown})") from None
    for field in fields:
        if "none_was" in field.metadata and converted[field.name] == field.metadata["none_was"]:
            converted[field.name] = None
    config = sizes(**converted)
    try:
        config.check()
    except UserError as error:
        raise UserError(f"{what} ({str(error).rstrip('.')})") from error
    return config


def load_release_header(path: str | Path, kind: str, sizes: type[S]) -> tuple[S, dict[str, Any]]:
    """Sizes and note on the training, of a header ``{"model": sizes, "training": note}``.

    Raises:
        UserError: as :func:`scalefp.release.container.load_header` and :func:`read_sizes`.
    """
    header = load_header(path, kind)
    if not isinstance(header, dict) or not isinstance(header.get("training"), dict):
        raise UserError(f"{path} is not a whole {kind}: its header is damaged")
    return read_sizes(header.get("model"), sizes, path), header["training"]


def fill_networks(path: str | Path, networks: dict[str, nn.Module]) -> None:
    """Give networks, which may have been built on the device "meta", the weights of a file.

    Raises:
        UserError: as :func:`scalefp.release.container.load_weights`.
    """
    together = nn.ModuleDict(networks)
    weights = load_weights(path, shapes_of(together.state_dict()))
    together.load_state_dict(weights, assign=True)
