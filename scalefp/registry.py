"""The record of issued keys.

A registry belongs to the release of its first issue. Rows are only ever added; revoking sets a
time. It holds secrets: an SQLite file is created readable by its owner alone, and no error text
repeats a key.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
from sqlalchemy import Connection, Row, Select, func, insert, select, update

from scalefp.attribution import IssuedKeys
from scalefp.database import (
    BATCH,
    KEYS,
    MAX_HOLDER,
    META,
    SCHEMA,
    SCHEMA_VERSION,
    Database,
    values_present,
)
from scalefp.errors import UserError
from scalefp.key import Key, check_length


class _Config(Protocol):
    @property
    def n_bits(self) -> int: ...


class Release(Protocol):
    """What issuing asks of a model; :class:`scalefp.model.Model` is one."""

    @property
    def digest(self) -> str: ...

    @property
    def config(self) -> _Config: ...


@dataclass(frozen=True)
class Record:
    """One issued key. Times are UTC, ISO 8601; revoked_at is None while the key is active."""

    holder: str
    key: Key
    issued_at: str
    model_digest: str
    revoked_at: str | None


# Named here, because inside the class `list` is the method.
Records = list[Record]
Keys = list[Key]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _clean_holder(holder: str) -> str:
    """The holder's name as stored: stripped, and accented letters in one form."""
    name = unicodedata.normalize("NFC", holder).strip()
    if not name:
        raise UserError("the holder is empty: name the recipient of the key")
    if len(name) > MAX_HOLDER:
        raise UserError(f"the holder has {len(name)} characters, at most {MAX_HOLDER} are allowed")
    if not name.isprintable():
        raise UserError(f"the holder {name!r} has characters that cannot be printed: remove them")
    return name


def _stored_key(packed: Any, n_bits: int) -> bytes:
    """The stored bytes; a damaged file may well hold something else where SQLite sees no fault."""
    if not isinstance(packed, bytes) or len(packed) != -(-n_bits // 8):
        raise UserError("the registry is damaged: a key in it has a wrong length")
    return packed


def _record(row: Row[Any], n_bits: int) -> Record:
    key = Key(_stored_key(row.key, n_bits), n_bits)
    return Record(row.holder, key, row.issued_at, row.model_digest, row.revoked_at)


def _draw(connection: Connection, count: int, n_bits: int) -> Keys:
    """Random keys that were never issued, inside the transaction that will store them."""
    issued = connection.scalar(select(func.count()).select_from(KEYS)) or 0
    if count > 2**n_bits - issued:
        raise UserError(
            f"{count} more {n_bits}-bit keys were asked for, but {issued} of all {2**n_bits} "
            "are issued: use longer keys"
        )
    fresh: dict[bytes, Key] = {}
    while len(fresh) < count:
        drawn = [Key.random(n_bits) for _ in range(count - len(fresh))]
        packed = [key.bytes for key in drawn]
        taken = values_present(connection, select(KEYS.c.key), KEYS.c.key, packed)
        fresh.update((key.bytes, key) for key in drawn if key.bytes not in taken)
    return list(fresh.values())


def _read_keys(connection: Connection, n_bits: int) -> IssuedKeys:
    query = select(KEYS.c.key, KEYS.c.holder, KEYS.c.revoked_at).order_by(KEYS.c.id)
    keys, holders, revoked = [], [], []
    for key, holder, revoked_at in connection.execute(query):
        keys.append(_stored_key(key, n_bits))
        holders.append(holder)
        revoked.append(revoked_at is not None)
    packed = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -(-n_bits // 8))
    return IssuedKeys(packed, holders, np.array(revoked, dtype=np.bool_))


class Registry:
    """The keys issued for one release.

    Args:
        path_or_url: a file path (SQLite), or a database URL if it contains "://".

    Nothing is opened or created yet: the first :meth:`issue` creates the registry, and reading one
    that does not exist is an error. Every method is one transaction, safe beside other processes.

    Raises:
        UserError: an unusable URL; and from every method, for a missing, foreign, damaged, locked
            or unwritable registry.
    """

    def __init__(self, path_or_url: str | os.PathLike[str]) -> None:
        self._database = Database(path_or_url)
        self._cached: tuple[tuple[int | None, int | None], IssuedKeys] | None = None

    def issue(self, holder: str, model: Release) -> Key:
        """Draw, record and return a fresh random key for ``holder``.

        Args:
            holder: 1 to 200 printable characters; white space around them is dropped.
            model: the release whose instance the holder will get: `.digest`, `.config.n_bits`.

        Raises:
            UserError: the holder has an active key, or the registry is of another release.
        """
        return self.issue_many([holder], model)[0]

    def issue_many(self, holders: Sequence[str], model: Release) -> Keys:
        """As :meth:`issue` for many holders in one transaction: all of them, or none."""
        names = [_clean_holder(holder) for holder in holders]
        if not names:
            return []
        if len(set(names)) < len(names):
            raise UserError("a holder is named twice: each gets one key")
        check_length(model.config.n_bits)
        self._database.create()
        with self._database.transaction(write=True) as connection:
            self._bind(connection, model)
            active = select(KEYS.c.holder).where(KEYS.c.revoked_at.is_(None))
            if clashes := values_present(connection, active, KEYS.c.holder, names):
                raise UserError(
                    f"{min(clashes)!r} has an active key already: revoke it first, or name "
                    "another holder"
                )
            keys = _draw(connection, len(names), model.config.n_bits)
            common = {"issued_at": _now(), "model_digest": model.digest}
            for start in range(0, len(names), BATCH):
                batch = slice(start, start + BATCH)
                connection.execute(
                    insert(KEYS),
                    [
                        {"holder": name, "key": key.bytes, **common}
                        for name, key in zip(names[batch], keys[batch], strict=True)
                    ],
                )
        return keys

    def _bind(self, connection: Connection, model: Release) -> None:
        """Create the tables on the first issue; later refuse every other release."""
        n_bits, digest = model.config.n_bits, model.digest
        meta = self._database.find_meta(connection, write=True)
        if meta is None:
            SCHEMA.create_all(connection)
            row = {"schema_version": SCHEMA_VERSION, "n_bits": n_bits, "model_digest": digest}
            connection.execute(insert(META), row)
        elif (meta.model_digest, meta.n_bits) != (digest, n_bits):
            raise UserError(
                f"the registry {self._database.name} belongs to another release (digest "
                f"{meta.model_digest[:12]}, {meta.n_bits} bits) than the one given (digest "
                f"{digest[:12]}, {n_bits} bits): keep one registry per release"
            )

    def revoke(self, holder: str) -> Record:
        """Mark the holder's active key as revoked and return its record.

        Attribution still finds revoked keys. Issuing to the holder again gives a new key.

        Raises:
            UserError: the holder never had a key, or it is revoked already.
        """
        with self._database.opened(write=True) as (connection, meta):
            active = self._active_row(connection, holder)
            mark = update(KEYS).where(KEYS.c.id == active.id).values(revoked_at=_now())
            connection.execute(mark)
            row = connection.execute(select(KEYS).where(KEYS.c.id == active.id)).one()
            return _record(row, meta.n_bits)

    def _never_issued(self, name: str) -> UserError:
        return UserError(f"no key was ever issued to {name!r} in {self._database.name}")

    def _active_row(self, connection: Connection, holder: str) -> Row[Any]:
        name = _clean_holder(holder)
        query = select(KEYS).where(KEYS.c.holder == name).order_by(KEYS.c.id)
        rows = connection.execute(query).all()
        if not rows:
            raise self._never_issued(name)
        # Only the latest can be active: issuing requires that the ones before are revoked.
        if rows[-1].revoked_at is not None:
            raise UserError(
                f"the key of {name!r} was revoked at {rows[-1].revoked_at}: issue a new one"
            )
        return rows[-1]

    def find(self, holder: str) -> Key:
        """The holder's active key.

        Raises:
            UserError: no key was ever issued to the holder, or all are revoked.
        """
        with self._database.opened() as (connection, meta):
            return _record(self._active_row(connection, holder), meta.n_bits).key

    def check_usable(self, key: Key) -> None:
        """Raise UserError if the key was never issued here, or is revoked."""
        with self._database.opened() as (connection, meta):
            query = select(KEYS).where(KEYS.c.key == key.bytes)
            row = connection.execute(query).one_or_none()
            if row is None or key.n_bits != meta.n_bits:
                raise UserError(
                    f"this {key.n_bits}-bit key was never issued in the registry "
                    f"{self._database.name}, which holds {meta.n_bits}-bit keys"
                )
            if row.revoked_at is not None:
                raise UserError(
                    f"this key, issued to {row.holder!r}, was revoked at {row.revoked_at}"
                )

    def _records(self, query: Select[Any]) -> Records:
        with self._database.opened() as (connection, meta):
            rows = connection.execute(query.order_by(KEYS.c.id))
            return [_record(row, meta.n_bits) for row in rows]

    def show(self, holder: str) -> Records:
        """Every key ever issued to the holder, oldest first; UserError if there is none."""
        name = _clean_holder(holder)
        records = self._records(select(KEYS).where(KEYS.c.holder == name))
        if not records:
            raise self._never_issued(name)
        return records

    def list(self) -> Records:
        """Every key ever issued, oldest first."""
        return self._records(select(KEYS))

    def __len__(self) -> int:
        """Number of keys ever issued, revoked ones included."""
        with self._database.opened() as (connection, _):
            return connection.scalar(select(func.count()).select_from(KEYS)) or 0

    def __bool__(self) -> bool:
        """Always true: `if registry` asks whether one is given, and must not run a query."""
        return True

    def _described(self, column: str) -> Any:
        if not self._database.exists():
            return None
        with self._database.transaction() as connection:
            meta = self._database.find_meta(connection, write=False)
            return None if meta is None else getattr(meta, column)

    @property
    def n_bits(self) -> int | None:
        """Key length, None before the first issue."""
        n_bits: int | None = self._described("n_bits")
        return n_bits

    @property
    def model_digest(self) -> str | None:
        """Digest of the release this registry belongs to, None before the first issue."""
        digest: str | None = self._described("model_digest")
        return digest

    def keys_and_holders(self) -> IssuedKeys:
        """Every key ever issued, packed [N, ceil(n_bits / 8)], with holders and revoked flags.

        The result is kept, and read again only when a key was issued or revoked since.
        """
        with self._database.opened() as (connection, meta):
            # Rows are never removed and revoking is final, so these counts date the content. Both
            # are read from an index, which a count of the revoked ones could not be.
            count = select(func.count()).select_from(KEYS)
            stamp = (
                connection.scalar(count),
                connection.scalar(count.where(KEYS.c.revoked_at.is_(None))),
            )
            if self._cached is None or self._cached[0] != stamp:
                self._cached = stamp, _read_keys(connection, meta.n_bits)
            return self._cached[1]
