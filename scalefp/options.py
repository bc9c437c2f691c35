"""How options are declared, with their range or choices, and checked before anything is built."""

from collections.abc import Sequence
from dataclasses import field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from scalefp.errors import UserError

RESOLUTIONS = (16, 32, 64, 128, 256)
SIDES = (4, 8, *RESOLUTIONS)  # of what goes through the layers of a generator
WIDEST = 8192  # channels of a layer, or numbers of a latent or an embedding
DEEPEST = 32  # layers of the key MLP
PRECISIONS = ("auto", "fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda")
MAX_SEED = 2**63 - 1  # what torch's and numpy's generators take
MAX_IMAGES = 10**12  # of any length in images
MAX_WEIGHT = 1e6  # of any loss term


def within(default: Any, low: float, high: float, **more: Any) -> Any:
    """A numeric option and the range that :func:`check_options` holds it to, ends included.

    Args:
        more: ``none_was``, what files of earlier versions say where it is None now.
    """
    return field(default=default, metadata={"range": (low, high), **more})


def one_of(default: Any, *allowed: Any, **more: Any) -> Any:
    """An option and all values that it can have.

    Args:
        more: ``absent_was``, what files of earlier versions mean, which do not name the option.
    """
    return field(default=default, metadata={"allowed": allowed, **more})


def absent_values(options: type) -> dict[str, Any]:
    """What it means that a file does not name an option, by the names of those that came later.

    Args:
        options: a dataclass.
    """
    named = {option.name: option.metadata for option in fields(options)}
    return {name: meta["absent_was"] for name, meta in named.items() if "absent_was" in meta}


def images(default: int, *, least: int = 0) -> Any:
    """A length that counts images."""
    return within(default, least, MAX_IMAGES)


def weight(default: float) -> Any:
    """Weight of a loss term."""
    return within(default, 0, MAX_WEIGHT)


def check_between(name: str, value: float, low: float, high: float, *, hint: str = "") -> None:
    """Raise :class:`UserError` naming an option that lies outside a range, or is not a number."""
    if not low <= value <= high:
        raise UserError(f"{name} must lie between {low} and {high}{hint}, not {value}.")


def check_one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise :class:`UserError` naming an option that is none of those that exist."""
    if value not in allowed:
        raise UserError(f"{name} must be one of {', '.join(map(str, allowed))}, not {value!r}.")


def _is_a(value: object, kind: Any) -> bool:
    """Whether a value has the type that an option is declared with; a float may be whole."""
    if isinstance(kind, UnionType):
        return any(_is_a(value, each) for each in get_args(kind))
    kind = get_origin(kind) or kind
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def check_options(config: Any, prefix: str = "") -> None:
    """Raise :class:`UserError` naming the first option of another type or outside its range.

    Args:
        config: a dataclass of options, or of groups of them.
        prefix: of their dotted names.
    """
    kinds = get_type_hints(type(config))
    for option in fields(config):
        name, value, kind = prefix + option.name, getattr(config, option.name), kinds[option.name]
        if is_dataclass(value):
            check_options(value, f"{name}.")
            continue
        if not _is_a(value, kind):
            called = getattr(kind, "__name__", str(kind))
            raise UserError(f"{name} must be of type {called}, not {value!r}.")
        if value is None:
            continue
        if "range" in option.metadata:
            hint = " or be null" if isinstance(kind, UnionType) else ""
            check_between(name, value, *option.metadata["range"], hint=hint)
        if "allowed" in option.metadata:
            check_one_of(name, value, option.metadata["allowed"])


def check_run_name(name: str) -> None:
    """Raise :class:`UserError` unless ``name`` is that of a folder below runs/."""
    path = Path(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or not name.isprintable():
        raise UserError(f"name is a folder below runs/, such as name=first, not {name!r}.")
