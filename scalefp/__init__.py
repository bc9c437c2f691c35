"""Scalable fingerprinting of generative models: one training, a traceable copy for every key.

The public names are loaded on first use, so that keys, registries and attribution work without
importing a network.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalefp.artificial.marker import Marker
    from scalefp.attribution import Attribution, Reading, attribute
    from scalefp.errors import UserError
    from scalefp.instantiate import Instance, load_instance
    from scalefp.key import Key
    from scalefp.model import Model
    from scalefp.registry import Registry
    from scalefp.release import load

__version__ = "0.1.0"
__all__ = [
    "Attribution",
    "Instance",
    "Key",
    "Marker",
    "Model",
    "Reading",
    "Registry",
    "UserError",
    "__version__",
    "attribute",
    "load",
    "load_instance",
]

_HOMES = {
    "Attribution": "attribution",
    "Instance": "instantiate",
    "Key": "key",
    "Marker": "artificial.marker",
    "Model": "model",
    "Reading": "attribution",
    "Registry": "registry",
    "UserError": "errors",
    "attribute": "attribution",
    "load": "release",
    "load_instance": "instantiate",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
