"""Every issued key in memory for attribution, brought up to date by what the log has gained."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, select

from scalefp.attribution.evidence import IssuedKeys
from scalefp.errors import UserError
from scalefp.registry.audit import newest
from scalefp.registry.holders import Holders
from scalefp.registry.schema import BATCH, KEYS, LOG


class Snapshot(NamedTuple):
    """The keys as of entry ``seq`` of the log, whose hash is ``chain``."""

    seq: int
    chain: bytes
    holders: Holders
    issued: IssuedKeys


def stored_key(packed: Any, n_bits: int) -> bytes:
    """The stored bytes; a damaged file may well hold something else where SQLite sees no fault."""
    if not isinstance(packed, bytes) or len(packed) != -(-n_bits // 8):
        raise UserError("the registry is damaged: a key in it has a wrong length")
    return packed


def _empty(n_bits: int) -> Snapshot:
    packed = np.empty((0, -(-n_bits // 8)), np.uint8)
    holders = Holders()
    return Snapshot(0, b"", holders, IssuedKeys(packed, holders, np.empty(0, np.bool_)))


def refresh(connection: Connection, n_bits: int, known: Snapshot | None) -> Snapshot:
    """The state of the registry: ``known`` if that is still it, else its successor.

    Only what was issued, revoked or re-instated since is read; everything, if the registry does
    not go on from ``known``, because another one was put in its place.

    Raises:
        UserError: a damaged row, or one that is missing.
    """
    seq, chain = newest(connection)
    if known is not None and (known.seq, known.chain) == (seq, chain):
        return known
    if known is not None:
        still = connection.scalar(select(LOG.c.chain).where(LOG.c.seq == known.seq))
        known = known if still == known.chain else None
    base = known or _empty(n_bits)
    packed, holders, revoked = [base.issued.packed], [base.holders], [base.issued.revoked]

    # New keys.
    number, width = len(base.holders), packed[0].shape[1]
    columns = select(KEYS.c.id, KEYS.c.key, KEYS.c.holder, KEYS.c.revoked_at)
    query = columns.where(KEYS.c.id > number).order_by(KEYS.c.id)
    result = connection.execute(query.execution_options(yield_per=BATCH))
    for rows in result.partitions():
        ids, keys, names, times = zip(*rows, strict=True)
        if ids != tuple(range(number + 1, number + len(ids) + 1)):
            raise UserError("the registry is damaged: keys are missing in it")
        number += len(ids)
        block = b"".join(stored_key(key, n_bits) for key in keys)
        packed.append(np.frombuffer(block, np.uint8).reshape(-1, width))
        holders.append(Holders(names))
        revoked.append(np.array([time is not None for time in times]))
    all_holders, all_revoked = Holders.joined(holders), np.concatenate(revoked)

    # Keys known already, revoked or re-instated since.
    if known is not None:
        touched = select(LOG.c.key_id).where(LOG.c.seq > known.seq)
        changed = select(KEYS.c.id, KEYS.c.revoked_at).where(KEYS.c.id.in_(touched))
        for key_id, at in connection.execute(changed):
            all_revoked[key_id - 1] = at is not None
    issued = IssuedKeys(np.concatenate(packed), all_holders, all_revoked)
    return Snapshot(seq, chain, all_holders, issued)
