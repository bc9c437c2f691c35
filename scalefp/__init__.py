"""Scalable fingerprinting of generative models: one training, a traceable copy for every key.

The public names are loaded on first use, so that keys, registries and attribution work without
importing a network.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalefp.artificial.marker import Marker
    from scalefp.attribution.evidence import Attribution, Reading, attribute
    from scalefp.errors import UserError
    from scalefp.key import Key
    from scalefp.loading import load, load_instance
    from scalefp.pretrained.modulation import modulate
    from scalefp.registry.registry import Registry
    from scalefp.release.instance import Instance
    from scalefp.release.model import Model

__version__ = "0.2.0"
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
    "lift_check",
    "load",
    "load_instance",
    "modulate",
]

_HOMES = {
    "Attribution": "attribution",
    "Instance": "release.instance",
    "Key": "key",
    "Marker": "artificial.marker",
    "Model": "release.model",
    "Reading": "attribution",
    "Registry": "registry",
    "UserError": "errors",
    "attribute": "attribution",
    "lift_check": "pretrained.checking",
    "load": "loading",
    "load_instance": "loading",
    "modulate": "pretrained.modulation",
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
