"""A registry at one moment, kept in memory for attribution, renewed by what its log gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, select

from scalefp.attribution.evidence import IssuedKeys
from scalefp.registry import audit
from scalefp.registry.database import Database
from scalefp.registry.holders import Holders
from scalefp.registry.rows import Meta, checked_key
from scalefp.registry.schema import BATCH, KEYS, LOG


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Every key ever issued, as of entry ``seq`` of the log: attribution's key source.

    Whatever is asked of it is answered from the same keys, however many are issued meanwhile.
    """

    n_bits: int
    model_digest: str
    seq: int
    chain: bytes  # hash of that entry
    issued: IssuedKeys
    holders: Holders  # those of `issued`
    database: Database

    @property
    def head(self) -> str:
        """``chain`` in 64 hexadecimal digits, as reports name it."""
        return self.chain.hex()

    def __len__(self) -> int:
        """Number of keys ever issued, revoked ones included."""
        return len(self.issued.packed)

    def __bool__(self) -> bool:
        """Always true, as for a registry."""
        return True

    def keys_and_holders(self) -> IssuedKeys:
        """Every key ever issued, packed [N, ceil(n_bits / 8)], with holders and revocations."""
        return self.issued

    def confirm(self, issued: IssuedKeys, indices: Sequence[int]) -> None:
        """Check the records of some keys, as they are now, against their entries in the log.

        Raises:
            UntrustedRegistryError: a record was changed.
        """
        with self.database.opened() as (connection, meta):
            audit.confirm(connection, meta, issued, indices)


def refresh(
    connection: Connection, database: Database, meta: Meta, known: Snapshot | None
) -> Snapshot:
    """The state of the registry: ``known`` if that is still it, else its successor.

    Only what was issued, revoked or re-instated since is read; everything, if the registry does
    not go on from ``known``, because another one was put in its place.

    Raises:
        UntrustedRegistryError: a damaged row, or one that is missing.
    """
    seq, chain = audit.newest(connection, meta)
    if known is not None and (known.seq, known.chain) == (seq, chain):
        return known
    if known is not None:
        still = connection.scalar(select(LOG.c.chain).where(LOG.c.seq == known.seq))
        known = known if still == known.chain else None
    width = -(-meta.n_bits // 8)
    packed, holders, revoked = [np.empty((0, width), np.uint8)], [Holders()], dict[int, str]()
    if known is not None:
        packed, holders, revoked = [known.issued.packed], [known.holders], {**known.issued.revoked}

    # New keys.
    number, issued = len(packed[0]), audit.issued(connection, meta)
    query = select(KEYS).where(KEYS.c.id > number).order_by(KEYS.c.id)
    result = connection.execute(query.execution_options(yield_per=BATCH))
    for rows in result.partitions():
        block, new = [], []
        for row in rows:
            found = checked_key(row, meta)
            number += 1
            if found.number != number:
                raise meta.untrusted(f"key {number} is missing in it")
            block.append(found.key)
            new.append(found.holder)
            if found.revoked_at is not None:
                revoked[number - 1] = found.revoked_at
        packed.append(np.frombuffer(b"".join(block), np.uint8).reshape(-1, width))
        holders.append(Holders(new))
    if number < issued:
        raise meta.untrusted(f"key {number + 1} is missing in it")
    if number > issued:
        raise meta.untrusted(f"key {issued + 1} was never logged as issued")

    # Keys known already, revoked or re-instated since.
    if known is not None:
        touched = select(LOG.c.key_id).where(LOG.c.seq > known.seq)
        for row in connection.execute(select(KEYS).where(KEYS.c.id.in_(touched))):
            changed = checked_key(row, meta)
            revoked.pop(changed.number - 1, None)
            if changed.revoked_at is not None:
                revoked[changed.number - 1] = changed.revoked_at
    names = Holders.joined(holders)
    keys = IssuedKeys(np.concatenate(packed), names, revoked)
    return Snapshot(meta.n_bits, meta.model_digest, seq, chain, keys, names, database)
