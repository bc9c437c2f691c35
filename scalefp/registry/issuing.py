"""Making keys for holders and storing them: drawn, derived, or taken over from another registry.

Everything here runs inside the transaction that will store the keys.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from sqlalchemy import Connection, func, insert, select

from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.registry import audit
from scalefp.registry.audit import Event
from scalefp.registry.database import Database
from scalefp.registry.holders import check_new, may_look_like
from scalefp.registry.master import MasterSecret
from scalefp.registry.rows import IMPORT, ISSUE, REBUILD, REVOKE, Meta, checked_key, checked_meta
from scalefp.registry.schema import (
    CHAIN_KEY_BYTES,
    KEYS,
    META,
    SCHEMA,
    SCHEMA_VERSION,
    count_keys,
)


class _Config(Protocol):
    @property
    def n_bits(self) -> int: ...


class Release(Protocol):
    """What issuing asks of a release; both kinds of scalefp.loading have it."""

    @property
    def digest(self) -> str: ...

    @property
    def config(self) -> _Config: ...


def _check_master(meta: Meta, master: MasterSecret | None, name: str) -> None:
    """A registry draws all its keys, or derives all of them from one secret."""
    if master is None and meta.master_check is not None:
        raise UserError(
            f"the keys of the registry {name} are derived from a master secret: give its file"
        )
    if master is not None and meta.master_check is None:
        raise UserError(
            f"the registry {name} draws its keys at random: leave the master secret out, or start "
            "a new registry"
        )
    if master is not None and meta.master_check != master.check:
        raise UserError(
            f"the keys of the registry {name} are derived from another master secret than the one "
            "given"
        )


def bind(
    connection: Connection,
    database: Database,
    master: MasterSecret | None,
    *,
    model_digest: str,
    n_bits: int,
) -> Meta:
    """The row that describes the registry: written if there is none, else checked.

    Raises:
        UserError: the registry is of another release, or its keys are made in another way.
    """
    meta = database.find_meta(connection)
    if meta is None:
        SCHEMA.create_all(connection)
        row = {
            "schema_version": SCHEMA_VERSION,
            "n_bits": n_bits,
            "model_digest": model_digest,
            "master_check": None if master is None else master.check,
            "chain_key": secrets.token_bytes(CHAIN_KEY_BYTES),
        }
        connection.execute(insert(META), row)
        return checked_meta(connection.execute(select(META)).one(), database.name)
    if (meta.model_digest, meta.n_bits) != (model_digest, n_bits):
        raise UserError(
            f"the registry {database.name} belongs to another release (digest "
            f"{meta.model_digest[:12]}, {meta.n_bits} bits) than the one given (digest "
            f"{model_digest[:12]}, {n_bits} bits): keep one registry per release"
        )
    _check_master(meta, master, database.name)
    return meta


def _holdings(connection: Connection, names: Iterable[str]) -> tuple[Counter[str], set[str]]:
    """How many keys each of the names had before, and which of them have an active one."""
    found = count_keys(connection, KEYS.c.holder, names)
    before = Counter({name: count for name, (count, _) in found.items()})
    return before, {name for name, (count, revoked) in found.items() if count > revoked}


def _has_active(name: str) -> str:
    return f"{name!r} has an active key already: revoke it first, or name another holder"


def _check_new(connection: Connection, meta: Meta, names: Sequence[str]) -> None:
    """Refuse new holders who could be mistaken for others; what was issued before stays."""
    alike = select(KEYS).where(may_look_like(names, connection.dialect.name))
    check_new(names, (checked_key(row, meta).holder for row in connection.execute(alike)))


def _keys_present(connection: Connection, keys: Iterable[Key]) -> set[bytes]:
    """Which of the keys were issued, packed."""
    return set(count_keys(connection, KEYS.c.key, (key.bytes for key in keys)))


def _draw(connection: Connection, count: int, n_bits: int) -> list[Key]:
    """Random keys that were never issued."""
    issued = connection.scalar(select(func.count()).select_from(KEYS)) or 0
    if count > 2**n_bits - issued:
        raise UserError(
            f"{count} more {n_bits}-bit keys were asked for, but {issued} of all {2**n_bits} "
            "are issued: use longer keys"
        )
    fresh: dict[bytes, Key] = {}
    while len(fresh) < count:
        drawn = [Key.random(n_bits) for _ in range(count - len(fresh))]
        taken = _keys_present(connection, drawn)
        fresh.update((key.bytes, key) for key in drawn if key.bytes not in taken)
    return list(fresh.values())


def _derive(
    master: MasterSecret, meta: Meta, names: Sequence[str], before: Counter[str]
) -> list[Key]:
    """The next key of each name, of which each may come several times."""
    numbers, keys = Counter(before), []
    for name in names:
        key = master.key(name, numbers[name], model_digest=meta.model_digest, n_bits=meta.n_bits)
        keys.append(key)
        numbers[name] += 1
    return keys


def _refuse_equal(connection: Connection, names: Sequence[str], keys: Sequence[Key]) -> None:
    """Derived keys cannot be drawn again, and two holders must never have the same."""
    seen = _keys_present(connection, keys)
    for name, key in zip(names, keys, strict=True):
        if key.bytes in seen:
            raise UserError(
                f"the {key.n_bits}-bit key derived for {name!r} is another holder's: name the "
                "holder in another way, or use longer keys"
            )
        seen.add(key.bytes)


def issue(
    connection: Connection,
    meta: Meta,
    names: Sequence[str],
    *,
    at: str,
    master: MasterSecret | None,
) -> list[Key]:
    """One key for each of the names, which are all different."""
    before, active = _holdings(connection, names)
    if active:
        raise UserError(_has_active(min(active)))
    _check_new(connection, meta, [name for name in names if not before[name]])
    if master is None:
        keys = _draw(connection, len(names), meta.n_bits)
    else:
        keys = _derive(master, meta, names, before)
        _refuse_equal(connection, names, keys)
    events = [Event(at, ISSUE, *pair) for pair in zip(names, keys, strict=True)]
    # Not compared with the others: nobody chose these keys, and 10^6 would be read for each issue.
    audit.append_history(connection, meta, events)
    return keys


def rebuild(
    connection: Connection, meta: Meta, names: Sequence[str], *, at: str, master: MasterSecret
) -> list[Key]:
    """One key each time a name comes, into a registry without keys; its key before is revoked."""
    keys = _derive(master, meta, names, Counter())
    _refuse_equal(connection, names, keys)
    active: dict[str, Key] = {}
    events = []
    for name, key in zip(names, keys, strict=True):
        if name in active:
            events.append(Event(at, REVOKE, name, active[name]))
        events.append(Event(at, ISSUE, name, key))
        active[name] = key
    audit.append_marker(connection, meta, REBUILD, at)
    audit.append_history(connection, meta, events)
    return keys


def add_history(
    connection: Connection,
    meta: Meta,
    events: Sequence[Event],
    *,
    at: str,
    master: MasterSecret | None,
) -> None:
    """Keys issued elsewhere and what happened to them; errors name the event's line."""
    issues = [event for event in events if event.action == ISSUE]
    names = [event.holder for event in issues]
    before, active = _holdings(connection, dict.fromkeys(names))
    taken = _keys_present(connection, (event.key for event in issues))
    derived = None if master is None else _derive(master, meta, names, before)
    for number, event in enumerate(issues):
        where = f"line {event.line}: "
        if event.key.bytes in taken:
            raise UserError(where + "this key was issued in the registry before")
        if event.holder in active:
            raise UserError(where + _has_active(event.holder))
        if derived is not None and derived[number] != event.key:
            raise UserError(f"{where}the master secret derives another key for {event.holder!r}")
    audit.append_marker(connection, meta, IMPORT, at)
    audit.append_history(connection, meta, events)
    # Whoever wrote the file may have chosen a key that names another's holder.
    audit.refuse_near_keys(connection, meta)
