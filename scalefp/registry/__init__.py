"""The record of issued keys: who got which, when, and a log that shows what was changed.

``registry`` is what others use; ``issuing`` draws keys, ``master`` derives them from a secret,
``holders`` are names, ``audit`` is the chained log, ``exchange`` moves registries between files,
``cache`` keeps keys ready for attribution; ``database`` and ``schema`` are how it is stored.
"""

from scalefp.registry.exchange import export_registry, import_registry
from scalefp.registry.holders import clean_holder, read_holders
from scalefp.registry.registry import Record, Registry, check_pair

__all__ = [
    "Record",
    "Registry",
    "check_pair",
    "clean_holder",
    "export_registry",
    "import_registry",
    "read_holders",
]
