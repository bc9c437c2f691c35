"""The record of issued keys: who got which, when, and a log that shows what was changed.

``registry`` is what others use; ``issuing`` draws keys, ``master`` derives them from a secret,
``holders`` are names, ``audit`` is the chained log, ``exchange`` moves registries between files,
``snapshot`` holds its keys ready for attribution; ``database`` and ``schema`` are how it is stored,
and ``rows`` checks every row that is read.
"""

from scalefp.registry.exchange import export_registry, import_registry
from scalefp.registry.holders import clean_holder, read_holders
from scalefp.registry.registry import Registry, check_pair
from scalefp.registry.rows import Record
from scalefp.registry.snapshot import Snapshot

__all__ = [
    "Record",
    "Registry",
    "Snapshot",
    "check_pair",
    "clean_holder",
    "export_registry",
    "import_registry",
    "read_holders",
]
