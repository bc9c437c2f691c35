"""What the tests of the registry share: a release that is none, and a way past the registry."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

DIGEST = "ab" * 32


@dataclass
class Config:
    n_bits: int = 128


@dataclass
class Model:
    digest: str = DIGEST
    config: Config = field(default_factory=Config)


MODEL = Model()


def sql(place: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement on the database itself; values stand for %s."""
    if "://" not in place:
        with closing(sqlite3.connect(place)) as connection, connection:
            return connection.execute(statement.replace("%s", "?"), values).fetchall()
    import psycopg

    with psycopg.connect(place) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []
