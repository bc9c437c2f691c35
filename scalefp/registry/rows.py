"""What each row of a registry has to hold: checked here, wherever a row is read.

A database keeps types only loosely (SQLite stores a blob where text belongs), and whoever can write
to it can write anything. No row is used before it has passed.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from scalefp.errors import UntrustedRegistryError
from scalefp.key import MAX_BITS, MIN_BITS, Key
from scalefp.registry.schema import CHAIN_BYTES, CHAIN_KEY_BYTES, DIGEST_DIGITS, MAX_HOLDER

ISSUE, REVOKE, REINSTATE = "issue", "revoke", "reinstate"  # of one key
IMPORT, REBUILD = "import", "rebuild"  # where the entries behind this one come from
ACTIONS = (ISSUE, REVOKE, REINSTATE)
ORIGINS = (IMPORT, REBUILD)
TIME_LENGTH = len("2026-01-31T12:00:00+00:00")


class Meta(NamedTuple):
    """What a registry was made for."""

    name: str  # of the registry, for messages
    schema_version: int
    n_bits: int
    model_digest: str
    master_check: str | None
    chain_key: bytes

    def untrusted(self, what: str) -> UntrustedRegistryError:
        """An error that says what is wrong in the registry."""
        return _untrusted(self.name, what)


class Entry(NamedTuple):
    """One entry of the log, without the key."""

    seq: int
    at: str
    action: str  # one of ACTIONS or ORIGINS
    holder: str | None  # None for ORIGINS


class KeyRow(NamedTuple):
    """One row of the keys; times are UTC, ISO 8601."""

    number: int  # from 1, in order of issue
    holder: str
    key: bytes
    issued_at: str
    revoked_at: str | None


@dataclass(frozen=True)
class Record:
    """One issued key. Times are UTC, ISO 8601; revoked_at is None while the key is active."""

    holder: str
    key: Key
    issued_at: str
    model_digest: str
    revoked_at: str | None


def _untrusted(name: str, what: str) -> UntrustedRegistryError:
    return UntrustedRegistryError(
        f"the registry {name} was tampered with or damaged: {what} (`scalefp registry verify` "
        "checks all of it)"
    )


@lru_cache(4096)  # keys that were issued together have one time
def _is_time(value: Any) -> bool:
    """Whether this is a time as the registry writes it."""
    if type(value) is not str or len(value) != TIME_LENGTH or not value.endswith("+00:00"):
        return False
    try:
        return datetime.fromisoformat(value).isoformat(timespec="seconds") == value
    except ValueError:
        return False


def _is_hex(value: Any, digits: int) -> bool:
    return type(value) is str and len(value) == digits and set(value) <= set(string.hexdigits)


def checked_meta(row: Sequence[Any], name: str) -> Meta:
    """The row that describes a registry; columns in the order of the schema."""
    meta = Meta(name, *row)
    what = None
    if type(meta.n_bits) is not int or not MIN_BITS <= meta.n_bits <= MAX_BITS:
        what = f"its key length is not {MIN_BITS} to {MAX_BITS} bits"
    elif not _is_hex(meta.model_digest, DIGEST_DIGITS):
        what = f"the digest of its release is not {DIGEST_DIGITS} hexadecimal digits"
    elif meta.master_check is not None and type(meta.master_check) is not str:
        what = "the check of its master secret is no text"
    elif type(meta.chain_key) is not bytes or len(meta.chain_key) != CHAIN_KEY_BYTES:
        what = "its chain key has a wrong length"
    if what is not None:
        raise meta.untrusted(what)
    return meta


def checked_key(row: Sequence[Any], meta: Meta) -> KeyRow:
    """A row of the keys; columns in the order of the schema."""
    number, holder, key, issued_at, revoked_at = row
    what = None
    if type(number) is not int or number < 1:
        what = "the number of a key is not a whole number above 0"
    elif type(holder) is not str or not 0 < len(holder) <= MAX_HOLDER or not holder.isprintable():
        what = f"the holder of key {number} is not a name"
    elif type(key) is not bytes or len(key) != -(-meta.n_bits // 8):
        what = f"key {number}, of {holder!r}, has a wrong length"
    elif key[-1] & ((1 << -meta.n_bits % 8) - 1):
        what = f"key {number}, of {holder!r}, has more than {meta.n_bits} bits"
    elif not _is_time(issued_at):
        what = f"the time at which key {number}, of {holder!r}, was issued is not a time in UTC"
    elif revoked_at is not None and not _is_time(revoked_at):
        what = f"the time at which key {number}, of {holder!r}, was revoked is not a time in UTC"
    if what is not None:
        raise meta.untrusted(what)
    return KeyRow(number, holder, key, issued_at, revoked_at)


def checked_record(row: Sequence[Any], meta: Meta) -> Record:
    """A row of the keys as users see it."""
    found = checked_key(row, meta)
    key = Key(found.key, meta.n_bits)
    return Record(found.holder, key, found.issued_at, meta.model_digest, found.revoked_at)


def checked_newest(row: Sequence[Any] | None, meta: Meta) -> tuple[int, bytes]:
    """Number and hash of the newest entry of the log; None stands for an empty log."""
    if row is None:
        return 0, b""
    seq, chain = row
    if type(seq) is not int or seq < 1 or type(chain) is not bytes or len(chain) != CHAIN_BYTES:
        raise meta.untrusted("the newest entry of its log has no number or no hash")
    return seq, chain


def checked_entry(row: Sequence[Any], meta: Meta) -> tuple[Entry, KeyRow | None]:
    """A row of the log, columns in the order of the schema, and behind them the key's own row."""
    seq, at, action, key_id, _, *of = row
    if type(seq) is not int or not _is_time(at) or action not in ACTIONS + ORIGINS:
        raise meta.untrusted(f"entry {seq!r:.20} of its log has no number, time or action")
    if action in ORIGINS:
        return Entry(seq, at, action, None), None
    if type(key_id) is not int or of[0] is None:
        raise meta.untrusted(f"the key of entry {seq} of its log ({action}, at {at}) is missing")
    key = checked_key(of, meta)
    return Entry(seq, at, action, key.holder), key
