"""The tables of a registry, and how many rows go in and are looked up at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

SCHEMA_VERSION = 2
MAX_HOLDER = 200  # characters
CHAIN_KEY_BYTES = 32
CHAIN_BYTES = 32
DIGEST_DIGITS = 64  # of a release, in hexadecimal
BATCH = 10_000  # values in one statement; SQLite takes 32,766 and PostgreSQL 65,535

SCHEMA = MetaData()
META = Table(
    "scalefp_meta",
    SCHEMA,
    Column("schema_version", Integer, primary_key=True, autoincrement=False),
    Column("n_bits", Integer, nullable=False),
    Column("model_digest", String(DIGEST_DIGITS), nullable=False),
    Column("master_check", String(32)),  # of the master secret; null: keys are drawn
    Column("chain_key", LargeBinary, nullable=False),
)
# Numbered 1, 2, 3, ... in order of issue; rows are never removed.
KEYS = Table(
    "scalefp_keys",
    SCHEMA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    # Compared byte by byte, as SQLite does, whatever language the server was set up for.
    Column(
        "holder",
        String(MAX_HOLDER).with_variant(String(MAX_HOLDER, collation="C"), "postgresql"),
        nullable=False,
        index=True,
    ),
    Column("key", LargeBinary, nullable=False, unique=True),
    Column("issued_at", String(32), nullable=False),
    Column("revoked_at", String(32)),
)
# Numbered likewise; rows are only ever added. What they mean is said in scalefp.registry.audit.
LOG = Table(
    "scalefp_log",
    SCHEMA,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),
    Column("action", String(16), nullable=False),
    Column("key_id", Integer, index=True),  # for the entries of whoever is about to be named
    Column("chain", LargeBinary, nullable=False),
)
# The database itself guarantees one active key a holder, whatever a second process does.
Index(
    "scalefp_keys_active_holder",
    KEYS.c.holder,
    unique=True,
    sqlite_where=KEYS.c.revoked_at.is_(None),
    postgresql_where=KEYS.c.revoked_at.is_(None),
)


def batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    """``values`` in lists of at most :data:`BATCH`."""
    values = iter(values)
    while batch := list(islice(values, BATCH)):
        yield batch


def count_keys(
    connection: Connection, column: Column[Any], values: Iterable[Any]
) -> dict[Any, tuple[int, int]]:
    """Of the keys with each of ``values`` in ``column``: how many, and how many are revoked."""
    found: dict[Any, tuple[int, int]] = {}
    for batch in batches(values):
        # Not by SQLAlchemy's in_(): writing out so many values would take longer than finding them.
        if connection.dialect.name == "sqlite":
            condition, parameters = f"IN ({', '.join('?' * len(batch))})", tuple(batch)
        else:
            condition, parameters = "= ANY(%b)", (batch,)
        rows = connection.exec_driver_sql(
            f"SELECT {column.name}, count(*), count(revoked_at) FROM {KEYS.name} "
            f"WHERE {column.name} {condition} GROUP BY {column.name}",
            parameters,
        )
        found.update((value, (count, revoked)) for value, count, revoked in rows)
    return found


def insert_rows(connection: Connection, table: Table, rows: Iterable[Sequence[Any]]) -> None:
    """Add rows, each with a value for every column of ``table``, in the columns' order."""
    names = ", ".join(column.name for column in table.columns)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" for _ in table.columns)
        statement = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"
        for batch in batches(rows):
            connection.exec_driver_sql(statement, [tuple(row) for row in batch])
        return
    # Through the driver itself: ten times as fast as INSERT, for the client.
    cursor: Any = connection.connection.cursor()
    with cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
