"""The record of issued keys.

A registry belongs to the release of its first issue. Rows are only ever added; revoking sets a
time, which re-instating clears, and audit.py logs both. It holds secrets: an SQLite file is
created readable by its owner alone, and no error text repeats a key.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from scalefp.attribution.evidence import IssuedKeys
from scalefp.errors import UserError
from scalefp.key import Key, check_length
from scalefp.registry import audit, issuing
from scalefp.registry.audit import Event, Verified
from scalefp.registry.database import Database
from scalefp.registry.holders import clean_holder, holder_has
from scalefp.registry.issuing import Release
from scalefp.registry.master import MasterSecret
from scalefp.registry.rows import (
    REINSTATE,
    REVOKE,
    Entry,
    KeyRow,
    Meta,
    Record,
    checked_key,
    checked_record,
)
from scalefp.registry.schema import KEYS
from scalefp.registry.snapshot import Snapshot, refresh

# Named here, because inside the class `list` is the method.
Records = list[Record]
Entries = list[Entry]
Keys = list[Key]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Registry:
    """The keys issued for one release.

    Args:
        path_or_url: a file path (SQLite), or a PostgreSQL URL if it contains "://".
        master: file of the secret that keys are derived from; None draws them at random. A
            registry does the one or the other for good, so that the secret and the list of holders
            suffice to rebuild it.

    Nothing is opened or created yet: the first :meth:`issue` creates the registry, and reading one
    that does not exist is an error. Every method is one transaction, safe beside other processes.

    Raises:
        UserError: an unusable URL or master secret; and from every method, for a missing, foreign,
            damaged, locked, unreachable or unwritable registry.
    """

    def __init__(
        self,
        path_or_url: str | os.PathLike[str],
        *,
        master: str | os.PathLike[str] | None = None,
    ) -> None:
        self._database = Database(path_or_url)
        self._master = None if master is None else MasterSecret.read(master)
        self._snapshot: Snapshot | None = None

    # Adding keys.

    def issue(self, holder: str, model: Release) -> Key:
        """Make, record and return a fresh key for ``holder``.

        Args:
            holder: 1 to 200 printable characters; white space around them is dropped.
            model: the release whose instance the holder will get: `.digest`, `.config.n_bits`.

        Raises:
            UserError: the holder has an active key, the registry is of another release, or its
                keys are made in another way (see ``master``).
            LookalikeError: the name of a new holder could be mistaken for another's.
        """
        return self.issue_many([holder], model)[0]

    def issue_many(self, holders: Sequence[str], model: Release) -> Keys:
        """As :meth:`issue` for many holders in one transaction: all of them, or none."""
        names = [clean_holder(holder) for holder in holders]
        if not names:
            return []
        if len(set(names)) < len(names):
            raise UserError("a holder is named twice: each gets one key")
        with self._adding(model.digest, model.config.n_bits) as (connection, meta):
            return issuing.issue(connection, meta, names, at=_now(), master=self._master)

    def rebuild(self, holders: Sequence[str], model: Release) -> Keys:
        """Derive all keys of a lost registry again, into this one, which must be new.

        Args:
            holders: in order of issue; who was issued several keys is named as often, and all but
                the last of those count as revoked.

        Raises:
            UserError: the registry holds keys, or no master secret was given.
        """
        if self._master is None:
            raise UserError("only derived keys can be rebuilt: give the file of the master secret")
        names = [clean_holder(holder) for holder in holders]
        if not names:
            return []
        with self._adding(model.digest, model.config.n_bits) as (connection, meta):
            if audit.newest(connection, meta)[0]:
                raise UserError(
                    f"the registry {self._database.name} holds keys already: rebuild into a new one"
                )
            return issuing.rebuild(connection, meta, names, at=_now(), master=self._master)

    def add_history(self, events: Sequence[Event], *, model_digest: str, n_bits: int) -> None:
        """Take over keys issued elsewhere and what happened to them: all of it, or nothing.

        Args:
            events: in order; each key is issued before anything else happens to it, and no holder
                has two active keys at a time.

        Raises:
            UserError: a key was issued here before, a holder has an active key here, a key is not
                the one derived, or as :meth:`issue`. The event's line is named.
        """
        if not events:
            return
        with self._adding(model_digest, n_bits) as (connection, meta):
            issuing.add_history(connection, meta, events, at=_now(), master=self._master)

    @contextmanager
    def _adding(self, model_digest: str, n_bits: int) -> Iterator[tuple[Connection, Meta]]:
        """A transaction that adds keys, in a registry that is made if there is none."""
        check_length(n_bits)
        self._database.create()
        with self._database.transaction(write=True) as connection:
            meta = issuing.bind(
                connection, self._database, self._master, model_digest=model_digest, n_bits=n_bits
            )
            yield connection, meta

    # Changing keys.

    def revoke(self, holder: str) -> Record:
        """Mark the holder's active key as revoked and return its record.

        Attribution still finds revoked keys. Issuing to the holder again gives a new key.

        Raises:
            UserError: the holder never had a key, or it is revoked already.
        """
        with self._database.opened(write=True) as (connection, meta):
            active = self._active_row(connection, meta, holder)
            return self._change(connection, meta, active, REVOKE)

    def reinstate(self, holder: str) -> Record:
        """Make the holder's latest key active again and return its record.

        Raises:
            UserError: the holder never had a key, or has an active one.
        """
        with self._database.opened(write=True) as (connection, meta):
            row = self._latest_row(connection, meta, holder)
            if row.revoked_at is None:
                raise UserError(f"the key of {row.holder!r} is active: there is nothing to do")
            return self._change(connection, meta, row, REINSTATE)

    def _change(self, connection: Connection, meta: Meta, row: KeyRow, action: str) -> Record:
        audit.append_change(connection, meta, row, action, _now())
        changed = connection.execute(select(KEYS).where(KEYS.c.id == row.number)).one()
        return checked_record(changed, meta)

    # Reading.

    def _never_issued(self, name: str) -> UserError:
        return UserError(f"no key was ever issued to {name!r} in {self._database.name}")

    def _latest_row(self, connection: Connection, meta: Meta, holder: str) -> KeyRow:
        """The only one that can be active: issuing requires that those before are revoked."""
        name = clean_holder(holder)
        query = select(KEYS).where(KEYS.c.holder == name).order_by(KEYS.c.id.desc()).limit(1)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise self._never_issued(name)
        return checked_key(row, meta)

    def _active_row(self, connection: Connection, meta: Meta, holder: str) -> KeyRow:
        row = self._latest_row(connection, meta, holder)
        if row.revoked_at is not None:
            raise UserError(
                f"the key of {row.holder!r} was revoked at {row.revoked_at}: issue a new one, or "
                "re-instate it"
            )
        return row

    def find(self, holder: str) -> Key:
        """The holder's active key.

        Raises:
            UserError: no key was ever issued to the holder, or all are revoked.
        """
        with self._database.opened() as (connection, meta):
            return Key(self._active_row(connection, meta, holder).key, meta.n_bits)

    def check_usable(self, key: Key) -> None:
        """Raise UserError if the key was never issued here, or is revoked."""
        with self._database.opened() as (connection, meta):
            query = select(KEYS).where(KEYS.c.key == key.bytes)
            found = connection.execute(query).one_or_none()
            if found is None or key.n_bits != meta.n_bits:
                raise UserError(
                    f"this {key.n_bits}-bit key was never issued in the registry "
                    f"{self._database.name}, which holds {meta.n_bits}-bit keys"
                )
            row = checked_key(found, meta)
            if row.revoked_at is not None:
                raise UserError(
                    f"this key, issued to {row.holder!r}, was revoked at {row.revoked_at}"
                )

    def _records(self, query: Select[Any]) -> Records:
        with self._database.opened() as (connection, meta):
            return [
                checked_record(row, meta) for row in connection.execute(query.order_by(KEYS.c.id))
            ]

    def show(self, holder: str) -> Records:
        """Every key ever issued to the holder, oldest first; UserError if there is none."""
        name = clean_holder(holder)
        records = self._records(select(KEYS).where(KEYS.c.holder == name))
        if not records:
            raise self._never_issued(name)
        return records

    def list(self) -> Records:
        """Every key ever issued, oldest first."""
        return self._records(select(KEYS))

    def search(
        self, text: str, *, prefix: bool = False, skip: int = 0, most: int | None = None
    ) -> Records:
        """Every key issued to a holder with ``text`` in the name, or at its start, oldest first.

        Of the letters a to z the case does not count; other characters must be the same. ``most``
        keys are returned at most, without the first ``skip`` of all.
        """
        query = select(KEYS).where(holder_has(text, prefix=prefix))
        return self._records(query.offset(skip).limit(most))

    def __len__(self) -> int:
        """Number of keys ever issued by the log, revoked ones included."""
        with self._database.opened() as (connection, meta):
            return audit.issued(connection, meta)

    def __bool__(self) -> bool:
        """Always true: `if registry` asks whether one is given, and must not run a query."""
        return True

    def _described(self) -> Meta | None:
        if not self._database.exists():
            return None
        with self._database.transaction() as connection:
            return self._database.find_meta(connection)

    @property
    def n_bits(self) -> int | None:
        """Key length, None before the first issue."""
        meta = self._described()
        return None if meta is None else meta.n_bits

    @property
    def model_digest(self) -> str | None:
        """Digest of the release this registry belongs to, None before the first issue."""
        meta = self._described()
        return None if meta is None else meta.model_digest

    def snapshot(self) -> Snapshot:
        """The registry at this moment, to attribute many images by the same keys.

        It is kept; later calls read only what was issued, revoked or re-instated since.
        """
        with self._database.opened() as (connection, meta):
            self._snapshot = refresh(connection, self._database, meta, self._snapshot)
            return self._snapshot

    def keys_and_holders(self) -> IssuedKeys:
        """Every key ever issued, packed [N, ceil(n_bits / 8)], with holders and revocations."""
        return self.snapshot().issued

    def confirm(self, issued: IssuedKeys, indices: Sequence[int]) -> None:
        """As :meth:`scalefp.registry.snapshot.Snapshot.confirm`."""
        with self._database.opened() as (connection, meta):
            audit.confirm(connection, meta, issued, indices)

    # The audit log.

    def head(self) -> str:
        """Hash of the newest entry of the audit log, 64 hexadecimal digits.

        It stands for all that was ever done here: note it, and :meth:`verify` can tell later
        whether that is still so.
        """
        with self._database.opened() as (connection, meta):
            return audit.newest(connection, meta)[1].hex()

    def log(self) -> Entries:
        """The audit log, oldest entry first, without keys."""
        with self._database.opened() as (connection, meta):
            return list(audit.read_entries(connection, meta))

    def history(self) -> Iterator[Event]:
        """All that happened to the keys, oldest first, one at a time: what is exported."""
        with self._database.opened() as (connection, meta):
            yield from audit.read_history(connection, meta)

    def verify(self, noted: str | None = None) -> Verified:
        """Check every key against the audit log, and the log's chain of hashes.

        Args:
            noted: a :meth:`head` noted earlier: that state must be a beginning of today's log.

        Raises:
            UserError: at the first entry or key that does not fit, which is named.
        """
        with self._database.opened() as (connection, meta):
            return audit.verify(connection, meta, noted)


def check_pair(registry: Registry | Snapshot, model: Release) -> None:
    """Raise UserError if the registry was issued for another release; an empty one passes."""
    digest = registry.model_digest
    if digest not in (None, model.digest):
        raise UserError(
            f"the registry belongs to another release (digest {str(digest)[:12]}) than the one "
            f"given (digest {model.digest[:12]}): give the release that issued its keys"
        )
