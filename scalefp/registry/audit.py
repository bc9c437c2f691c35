"""The audit log of a registry: what was issued, revoked and re-instated, as a chain of hashes.

Entries are only ever added. Entry n holds

    chain(n) = BLAKE2b-256(chain key; chain(n - 1), n, action, time, key's number, key, holder)

and chain(0) covers what the registry was made for. Key and holder are not written down twice: they
come from the key's own row, so that a changed row breaks the entry that issued it. The hash is
keyed (RFC 7693), with a random number that stays in the registry: the head of the chain, which
reports name, tells nothing about keys, however short they are.

What this shows: a change by somebody who does not recompute the chain. Who can write to the
database can also recompute it, or cut off its end, and only a head noted elsewhere tells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, func, select, update
from tqdm import tqdm

from scalefp.attribution.evidence import IssuedKeys
from scalefp.attribution.near import find_near, near_distance
from scalefp.errors import UntrustedRegistryError
from scalefp.key import Key
from scalefp.registry.rows import (
    ISSUE,
    REINSTATE,
    REVOKE,
    Entry,
    KeyRow,
    Meta,
    checked_entry,
    checked_newest,
)
from scalefp.registry.schema import BATCH, KEYS, LOG, batches, insert_rows


class Event(NamedTuple):
    """What happened to a key, at a time in UTC, ISO 8601."""

    at: str
    action: str  # one of ACTIONS
    holder: str
    key: Key
    line: int = 0  # of the file it was read from


class Verified(NamedTuple):
    """What an intact registry holds."""

    issued: int
    entries: int
    head: str  # the newest entry's hash, 64 hexadecimal digits


def _hash(chain_key: bytes, *parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), key=chain_key, digest_size=32).digest()


def _first(meta: Meta) -> bytes:
    """chain(0)."""
    made_for = f"{meta.schema_version}\0{meta.n_bits}\0{meta.model_digest}\0{meta.master_check}"
    return _hash(meta.chain_key, made_for.encode())


def _next(
    chain_key: bytes,
    previous: bytes,
    seq: int,
    action: str,
    at: str,
    of: tuple[int | None, bytes, str],
) -> bytes:
    """chain(seq); ``of`` is the key's number, the key and its holder."""
    # Unambiguous: no part that is ever written holds NUL, and `previous` has a fixed length.
    key_id, key, holder = of
    text = f"{seq}\0{action}\0{at}\0{key_id}\0{key.hex()}\0{holder}"
    return _hash(chain_key, previous, text.encode())


def newest(connection: Connection, meta: Meta) -> tuple[int, bytes]:
    """Number and hash of the newest entry, (0, b"") in a registry that was just made."""
    query = select(LOG.c.seq, LOG.c.chain).order_by(LOG.c.seq.desc()).limit(1)
    return checked_newest(connection.execute(query).one_or_none(), meta)


def issued(connection: Connection, meta: Meta) -> int:
    """Number of keys ever issued, by the log: keys are numbered in the order of their entries."""
    query = select(LOG.c.key_id).where(LOG.c.action == ISSUE).order_by(LOG.c.seq.desc()).limit(1)
    number: Any = connection.scalar(query)
    if number is not None and (type(number) is not int or number < 1):
        raise meta.untrusted("the newest key in its log has no number")
    return number or 0


def _append(
    connection: Connection,
    meta: Meta,
    entries: Iterable[tuple[str, str, tuple[int | None, bytes, str]]],
) -> None:
    """Add entries of (action, time, what of) to the log."""
    seq, chain = newest(connection, meta)
    chain = chain or _first(meta)

    def rows() -> Iterator[tuple[int, str, str, int | None, bytes]]:
        nonlocal seq, chain
        for action, at, of in entries:
            seq += 1
            chain = _next(meta.chain_key, chain, seq, action, at, of)
            yield seq, at, action, of[0], chain

    insert_rows(connection, LOG, rows())


def append_marker(connection: Connection, meta: Meta, action: str, at: str) -> None:
    """Log where the entries that follow come from; ``action`` is one of :data:`ORIGINS`."""
    _append(connection, meta, [(action, at, (None, b"", ""))])


def append_history(connection: Connection, meta: Meta, events: Sequence[Event]) -> None:
    """Store new keys and log all that happened to them: each is issued before anything else."""
    number = issued(connection, meta)
    if (connection.scalar(select(func.max(KEYS.c.id))) or 0) != number:
        raise meta.untrusted("its newest keys are missing, or were never logged as issued")
    rows: list[list[Any]] = []
    ids: dict[bytes, int] = {}
    for event in events:
        key = event.key.bytes
        if event.action == ISSUE:
            ids[key] = number + len(rows) + 1
            rows.append([ids[key], event.holder, key, event.at, None])
        else:
            rows[ids[key] - number - 1][-1] = event.at if event.action == REVOKE else None
    progress = tqdm(rows, "issue", unit="key", delay=2, leave=False)
    insert_rows(connection, KEYS, progress)
    progress = tqdm(events, "log", unit="entry", delay=2, leave=False)
    entries = ((e.action, e.at, (ids[e.key.bytes], e.key.bytes, e.holder)) for e in progress)
    _append(connection, meta, entries)


def append_change(connection: Connection, meta: Meta, row: KeyRow, action: str, at: str) -> None:
    """Revoke or re-instate the key of ``row``, and log it."""
    revoked_at = at if action == REVOKE else None
    connection.execute(update(KEYS).where(KEYS.c.id == row.number).values(revoked_at=revoked_at))
    _append(connection, meta, [(action, at, (row.number, row.key, row.holder))])


# The log with the row of the key that each entry is about, in order.
_LOGGED = (
    select(LOG, KEYS)
    .outerjoin(KEYS, KEYS.c.id == LOG.c.key_id)
    .order_by(LOG.c.seq)
    .execution_options(yield_per=BATCH)  # never the whole log in memory
)


def read_entries(connection: Connection, meta: Meta) -> Iterator[Entry]:
    """The whole log, oldest entry first."""
    for row in connection.execute(_LOGGED):
        yield checked_entry(row, meta)[0]


def read_history(connection: Connection, meta: Meta) -> Iterator[Event]:
    """All that happened to the keys, oldest first."""
    for row in connection.execute(_LOGGED):
        entry, key = checked_entry(row, meta)
        if key is not None:
            yield Event(entry.at, entry.action, key.holder, Key(key.key, meta.n_bits))


def confirm(connection: Connection, meta: Meta, issued: IssuedKeys, indices: Sequence[int]) -> None:
    """Check the records of the keys that are about to be named against what the log says of them.

    Each entry's hash is computed again from the one before it, so that a changed record shows as
    it does to :func:`verify`.

    Args:
        issued: the keys as they are in memory.
        indices: of those to be named, from 0.

    Raises:
        UntrustedRegistryError: a record, or what is about to be named, is not what was logged.
    """
    before = LOG.alias()
    query = _LOGGED.add_columns(before.c.chain).outerjoin(before, before.c.seq == LOG.c.seq - 1)
    revoked: dict[int, str | None] = {}
    records: dict[int, KeyRow] = {}
    for numbers in batches(index + 1 for index in indices):
        for *row, previous in connection.execute(query.where(LOG.c.key_id.in_(numbers))):
            entry, key = checked_entry(row, meta)
            if key is None:
                raise meta.untrusted(f"entry {entry.seq} of its log is about a key")
            number, of = key.number, (key.number, key.key, key.holder)
            chain = _first(meta) if entry.seq == 1 else previous or b""
            expected = _next(meta.chain_key, chain, entry.seq, entry.action, entry.at, of)
            if entry.action == ISSUE:
                records[number] = key
            issued_then = entry.action != ISSUE or entry.at == key.issued_at
            if row[4] != expected or not issued_then or number not in records:
                raise meta.untrusted(
                    f"the record of key {number}, of {key.holder!r}, is not what was logged"
                )
            revoked[number] = entry.at if entry.action == REVOKE else None
    for index in indices:
        number, holder, packed = index + 1, issued.holders[index], issued.packed[index].tobytes()
        record = records.get(number)
        if record is None or (record.holder, record.key) != (holder, packed):
            raise meta.untrusted(f"the record of key {number}, of {holder!r}, was changed")
        if record.revoked_at != revoked[number]:
            raise meta.untrusted(
                f"key {number}, of {holder!r}, was revoked or re-instated past the log"
            )


def refuse_near_keys(connection: Connection, meta: Meta) -> None:
    """Refuse a registry in which two keys lie nearer to one another than drawn keys do.

    Raises:
        UntrustedRegistryError: both keys are named, without their bits.
    """
    count = connection.scalar(select(func.count()).select_from(KEYS)) or 0
    distance = near_distance(meta.n_bits, count * (count - 1) // 2)
    if distance < 0:
        return
    stored = connection.execute(select(KEYS.c.key).order_by(KEYS.c.id)).scalars()
    packed = np.frombuffer(b"".join(stored), np.uint8).reshape(count, -1)
    pair = find_near(packed, meta.n_bits, distance)
    if pair is not None:
        rows = connection.execute(
            select(KEYS.c.id, KEYS.c.holder).order_by(KEYS.c.id)
            .where(KEYS.c.id.in_([pair.first + 1, pair.second + 1]))
        ).all()  # fmt: skip
        one, other = (f"key {row.id}, of {row.holder!r}," for row in rows)
        raise UntrustedRegistryError(
            f"{one} and {other[:-1]} differ in only {pair.distance} of {meta.n_bits} bits, and so "
            "near to one another no two keys are drawn: one of them was made to resemble the "
            f"other, and would be named for its images in the registry {meta.name}"
        )


def verify(connection: Connection, meta: Meta, noted: str | None) -> Verified:
    """Recompute the chain and compare every key with it.

    Args:
        noted: a head noted earlier, which must still be in the chain; None: not asked for.

    Raises:
        UntrustedRegistryError: at the first entry or key that does not fit, which is named; or two
            keys lie nearer to one another than drawn keys do.
    """

    def broken(where: str, why: str) -> UntrustedRegistryError:
        return UntrustedRegistryError(
            f"the registry {meta.name} was tampered with or damaged: {where} {why}"
        )

    # The log.
    count, number, found = 0, 0, False
    chain, total = _first(meta), newest(connection, meta)[0]
    revoked: dict[int, str] = {}
    rows = tqdm(connection.execute(_LOGGED), "verify", total, unit="entry", delay=2, leave=False)
    for seq, at, action, key_id, stored, _, holder, key, issued_at, _ in rows:
        count += 1
        if seq != count:
            raise broken(f"entry {count} of its log", "is missing")
        expected = None
        if key_id is None or isinstance(key, bytes):
            of = (key_id, key or b"", holder or "")
            expected = _next(meta.chain_key, chain, seq, action, at, of)
        number += action == ISSUE
        if stored != expected or (action == ISSUE and (key_id, at) != (number, issued_at)):
            what = action if key_id is None else f"{action} of key {key_id}, {holder!r}"
            raise broken(f"entry {seq} of its log ({what}, at {at})", "or its key was changed")
        if action == REVOKE:
            revoked[key_id] = at
        elif action == REINSTATE:
            revoked.pop(key_id, None)
        chain = stored
        found = found or chain.hex() == noted
    if count == 0:
        raise broken("its log", "is empty")
    if noted is not None and not found:
        raise broken(f"the head {noted}, noted earlier,", "is not in its log")

    # The keys.
    stray = select(KEYS.c.id, KEYS.c.holder).where(~KEYS.c.id.between(1, number)).limit(1)
    if (row := connection.execute(stray).first()) is not None:
        raise broken(f"key {row.id} of {row.holder!r}", "was never logged as issued")
    marked = select(KEYS.c.id, KEYS.c.revoked_at).where(KEYS.c.revoked_at.is_not(None))
    for key_id, at in connection.execute(marked):
        if revoked.pop(key_id, None) != at:
            raise broken(f"key {key_id}", f"is marked as revoked at {at}, which was never logged")
    if revoked:
        key_id, at = next(iter(revoked.items()))
        raise broken(f"key {key_id}", f"was revoked at {at}, but is not marked as revoked")
    refuse_near_keys(connection, meta)
    return Verified(number, count, chain.hex())
