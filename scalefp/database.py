"""Where a registry is stored: tables, connection, transactions, and errors in plain words.

An SQLite file by default, another database by URL. :mod:`scalefp.registry` says what is stored.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Select,
    String,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
    select,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from scalefp.errors import UserError

SCHEMA_VERSION = 1
MAX_HOLDER = 200  # characters
BUSY_TIMEOUT = 30.0  # seconds to wait for another process's transaction
BATCH = 10_000  # values in one statement; SQLite takes 32,766 and PostgreSQL 65,535

SCHEMA = MetaData()
META = Table(
    "scalefp_meta",
    SCHEMA,
    Column("schema_version", Integer, primary_key=True, autoincrement=False),
    Column("n_bits", Integer, nullable=False),
    Column("model_digest", String(64), nullable=False),
)
KEYS = Table(
    "scalefp_keys",
    SCHEMA,
    Column("id", Integer, primary_key=True),
    Column("holder", String(MAX_HOLDER), nullable=False, index=True),
    Column("key", LargeBinary, nullable=False, unique=True),
    Column("issued_at", String(32), nullable=False),
    Column("model_digest", String(64), nullable=False),
    Column("revoked_at", String(32)),
)
# The database itself guarantees one active key a holder, whatever a second process does.
Index(
    "scalefp_keys_active_holder",
    KEYS.c.holder,
    unique=True,
    sqlite_where=KEYS.c.revoked_at.is_(None),
    postgresql_where=KEYS.c.revoked_at.is_(None),
)


def values_present(
    connection: Connection, query: Select[Any], column: Column[Any], values: Sequence[Any]
) -> set[Any]:
    """Which of ``values`` the one-column ``query`` finds in ``column``."""
    found: set[Any] = set()
    for start in range(0, len(values), BATCH):
        batch = column.in_(values[start : start + BATCH])
        found.update(connection.scalars(query.where(batch)))
    return found


def _sqlite_engine(path: Path) -> Engine:
    """An engine that never creates the file, and whose write transactions lock before they read."""
    # mode=rw rather than ro: after a crash the next reader must be able to roll the journal back.
    uri = path.as_uri() + "?mode=rw"

    def connect() -> sqlite3.Connection:
        # isolation_level None: the driver begins nothing on its own, `begin` below does.
        return sqlite3.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


class Database:
    """A registry's tables in an SQLite file, or behind a database URL (it contains "://").

    Nothing is opened or created here yet. ``name`` is for messages: it shows no password.

    Raises:
        UserError: an unusable URL or path; and from every method, for a missing, foreign, damaged,
            locked or unwritable database.
    """

    def __init__(self, path_or_url: str | os.PathLike[str]) -> None:
        text = os.fspath(path_or_url)
        self._path: Path | None = None
        self.name = text
        if "://" in text:
            try:
                url = make_url(text)
                self.name = url.render_as_string(hide_password=True)
                if url.get_backend_name() != "sqlite":
                    self._engine = create_engine(url, hide_parameters=True)
                    return
            except (SQLAlchemyError, ImportError, ValueError):
                # Without the cause, which may quote the URL with its password.
                raise UserError(
                    "the registry's database URL cannot be used: it needs the form "
                    "dialect+driver://user@host/database, with that driver installed"
                ) from None
            if url.database in (None, "", ":memory:"):
                raise UserError("a registry in memory keeps nothing: give a file path")
            text = str(url.database)
        if not text:
            raise UserError("the registry's path is empty: give a file or a database URL")
        # Absolute, so that a later change of folder does not change the registry.
        self._path = Path(text).absolute()
        self._engine = _sqlite_engine(self._path)

    def exists(self) -> bool:
        """Whether there is something to open (behind a URL: assumed)."""
        return self._path is None or os.path.isfile(self._path)

    def create(self) -> None:
        """Make the empty SQLite file if there is none, readable by its owner alone."""
        if self._path is None:
            return
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise UserError(f"cannot create the registry {self.name}: {error.strerror}") from error

    def _explain(self, error: DBAPIError) -> str:
        code = getattr(error.orig, "sqlite_errorcode", -1) & 0xFF
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return f"{self.name} is not a scalefp registry, or it is damaged"
        name = f"the registry {self.name}"
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return f"{name} cannot be opened or written: check the permissions of file and folder"
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"{name} was in use by another process for {BUSY_TIMEOUT:.0f} s: try again"
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return f"{name} cannot be written ({error.orig}): check the disk"
        return f"{name} cannot be used ({type(error.orig).__name__}): check the database"

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back by any exception."""
        try:
            with self._engine.connect() as connection:
                connection.execution_options(write=write)
                with connection.begin():
                    yield connection
        except IntegrityError:
            # Without the cause: a driver may quote the key that clashed.
            raise UserError(
                f"the registry {self.name} was changed by another process: try again"
            ) from None
        except DBAPIError as error:
            raise UserError(self._explain(error)) from error

    def find_meta(self, connection: Connection, *, write: bool) -> Row[Any] | None:
        """The row that describes the registry, None in a database where nothing is stored yet."""
        tables = inspect(connection).get_table_names()
        if META.name not in tables or KEYS.name not in tables:
            if tables and self._path is not None:
                raise UserError(f"{self.name} is an SQLite file, but not a scalefp registry")
            return None
        if self._path is not None:
            # SQLite notices missing pages, but fills up a last page that was cut with zeros.
            page_size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
            if os.path.getsize(self._path) % page_size:
                raise UserError(f"the registry {self.name} is damaged: its end is missing")
        query = select(META)
        if write:
            # Makes concurrent issues queue on PostgreSQL; SQLite has locked already and ignores it.
            query = query.with_for_update()
        rows = connection.execute(query).all()
        if len(rows) != 1 or rows[0].schema_version != SCHEMA_VERSION:
            raise UserError(f"the registry {self.name} was written by another version of scalefp")
        return rows[0]

    @contextmanager
    def opened(self, *, write: bool = False) -> Iterator[tuple[Connection, Row[Any]]]:
        """A transaction on a registry that must exist already, with its meta row."""
        if not self.exists():
            raise UserError(
                f"there is no registry at {self.name}: check the path, or issue a first key to it"
            )
        with self.transaction(write=write) as connection:
            meta = self.find_meta(connection, write=write)
            if meta is None:
                # Never "no keys, so nobody": the file may have been cut to nothing.
                raise UserError(f"the registry {self.name} is empty: no key was issued in it")
            yield connection, meta
