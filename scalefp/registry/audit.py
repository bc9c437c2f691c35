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

from sqlalchemy import Connection, Row, func, select, update
from tqdm import tqdm

from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.registry.schema import BATCH, KEYS, LOG, insert_rows

ISSUE, REVOKE, REINSTATE = "issue", "revoke", "reinstate"  # of one key
IMPORT, REBUILD = "import", "rebuild"  # where the entries behind this one come from
ACTIONS = (ISSUE, REVOKE, REINSTATE)
ORIGINS = (IMPORT, REBUILD)


class Event(NamedTuple):
    """What happened to a key, at a time in UTC, ISO 8601."""

    at: str
    action: str  # one of ACTIONS
    holder: str
    key: Key
    line: int = 0  # of the file it was read from


class Entry(NamedTuple):
    """One entry of the log, without the key."""

    seq: int
    at: str
    action: str  # one of ACTIONS or ORIGINS
    holder: str | None  # None for ORIGINS


class Verified(NamedTuple):
    """What an intact registry holds."""

    issued: int
    entries: int
    head: str  # the newest entry's hash, 64 hexadecimal digits


def _hash(chain_key: bytes, *parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), key=chain_key, digest_size=32).digest()


def _first(meta: Row[Any]) -> bytes:
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


def newest(connection: Connection) -> tuple[int, bytes]:
    """Number and hash of the newest entry, (0, b"") in a registry that was just made."""
    query = select(LOG.c.seq, LOG.c.chain).order_by(LOG.c.seq.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return (0, b"") if row is None else (row.seq, row.chain)


def _append(
    connection: Connection,
    meta: Row[Any],
    entries: Iterable[tuple[str, str, tuple[int | None, bytes, str]]],
) -> None:
    """Add entries of (action, time, what of) to the log."""
    seq, chain = newest(connection)
    chain = chain or _first(meta)

    def rows() -> Iterator[tuple[int, str, str, int | None, bytes]]:
        nonlocal seq, chain
        for action, at, of in entries:
            seq += 1
            chain = _next(meta.chain_key, chain, seq, action, at, of)
            yield seq, at, action, of[0], chain

    insert_rows(connection, LOG, rows())


def append_marker(connection: Connection, meta: Row[Any], action: str, at: str) -> None:
    """Log where the entries that follow come from; ``action`` is one of :data:`ORIGINS`."""
    _append(connection, meta, [(action, at, (None, b"", ""))])


def append_history(connection: Connection, meta: Row[Any], events: Sequence[Event]) -> None:
    """Store new keys and log all that happened to them: each is issued before anything else."""
    issued = connection.scalar(select(func.max(KEYS.c.id))) or 0
    rows: list[list[Any]] = []
    ids: dict[bytes, int] = {}
    for event in events:
        key = event.key.bytes
        if event.action == ISSUE:
            ids[key] = issued + len(rows) + 1
            rows.append([ids[key], event.holder, key, event.at, None])
        else:
            rows[ids[key] - issued - 1][-1] = event.at if event.action == REVOKE else None
    progress = tqdm(rows, "issue", unit="key", delay=2, leave=False)
    insert_rows(connection, KEYS, progress)
    progress = tqdm(events, "log", unit="entry", delay=2, leave=False)
    entries = ((e.action, e.at, (ids[e.key.bytes], e.key.bytes, e.holder)) for e in progress)
    _append(connection, meta, entries)


def append_change(
    connection: Connection, meta: Row[Any], row: Row[Any], action: str, at: str
) -> None:
    """Revoke or re-instate the key of ``row``, and log it."""
    revoked_at = at if action == REVOKE else None
    connection.execute(update(KEYS).where(KEYS.c.id == row.id).values(revoked_at=revoked_at))
    _append(connection, meta, [(action, at, (row.id, row.key, row.holder))])


# The log with the row of the key that each entry is about, in order.
_LOGGED = (
    select(LOG, KEYS.c.key, KEYS.c.holder, KEYS.c.issued_at)
    .outerjoin(KEYS, KEYS.c.id == LOG.c.key_id)
    .order_by(LOG.c.seq)
    .execution_options(yield_per=BATCH)  # never the whole log in memory
)


def read_entries(connection: Connection) -> Iterator[Entry]:
    """The whole log, oldest entry first."""
    for row in connection.execute(_LOGGED):
        yield Entry(row.seq, row.at, row.action, row.holder)


def read_history(connection: Connection, n_bits: int) -> Iterator[Event]:
    """All that happened to the keys, oldest first."""
    for row in connection.execute(_LOGGED.where(LOG.c.key_id.is_not(None))):
        yield Event(row.at, row.action, row.holder, Key(row.key, n_bits))


def verify(connection: Connection, meta: Row[Any], name: str, noted: str | None) -> Verified:
    """Recompute the chain and compare every key with it.

    Args:
        name: the registry's, for messages.
        noted: a head noted earlier, which must still be in the chain; None: not asked for.

    Raises:
        UserError: at the first entry or key that does not fit, which is named.
    """

    def broken(where: str, why: str) -> UserError:
        return UserError(f"the registry {name} was tampered with or damaged: {where} {why}")

    # The log.
    count, issued, found = 0, 0, False
    chain, total = _first(meta), newest(connection)[0]
    revoked: dict[int, str] = {}
    rows = tqdm(connection.execute(_LOGGED), "verify", total, unit="entry", delay=2, leave=False)
    for seq, at, action, key_id, stored, key, holder, issued_at in rows:
        count += 1
        if seq != count:
            raise broken(f"entry {count} of its log", "is missing")
        expected = None
        if key_id is None or isinstance(key, bytes):
            of = (key_id, key or b"", holder or "")
            expected = _next(meta.chain_key, chain, seq, action, at, of)
        issued += action == ISSUE
        if stored != expected or (action == ISSUE and (key_id, at) != (issued, issued_at)):
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
    stray = select(KEYS.c.id, KEYS.c.holder).where(~KEYS.c.id.between(1, issued)).limit(1)
    if (row := connection.execute(stray).first()) is not None:
        raise broken(f"key {row.id} of {row.holder!r}", "was never logged as issued")
    marked = select(KEYS.c.id, KEYS.c.revoked_at).where(KEYS.c.revoked_at.is_not(None))
    for key_id, at in connection.execute(marked):
        if revoked.pop(key_id, None) != at:
            raise broken(f"key {key_id}", f"is marked as revoked at {at}, which was never logged")
    if revoked:
        key_id, at = next(iter(revoked.items()))
        raise broken(f"key {key_id}", f"was revoked at {at}, but is not marked as revoked")
    return Verified(issued, count, chain.hex())
