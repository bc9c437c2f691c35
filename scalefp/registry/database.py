"""Where a registry is stored: connection, transactions, and errors in plain words.

An SQLite file by default, PostgreSQL by URL. :mod:`scalefp.registry.registry` says what is stored.
"""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from scalefp.errors import UserError
from scalefp.registry.rows import Meta, checked_meta
from scalefp.registry.schema import KEYS, LOG, META, SCHEMA_VERSION

_log = logging.getLogger(__name__)

BUSY_TIMEOUT = 30.0  # seconds to wait for another process's transaction
CONNECT_TIMEOUT = 10  # seconds to wait for a server
CACHE_KIB = 256 * 1024  # a bulk of 10^6 keys stays in memory until it is committed
BACKENDS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "postgresql+psycopg": "postgresql",
}
WRITE_LOCK = int.from_bytes(b"scalefp")  # PostgreSQL's advisory lock of all who write


def _begin_writing(connection: Connection) -> None:
    """Start a transaction with SQLite's one lock of all who write, waiting for it in short steps.

    SQLite itself waits in ever longer ones, and would find the lock taken every time beside a
    process that writes without a pause.
    """
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA busy_timeout = 0")
    end = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            driver.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(random.uniform(0.001, 0.01))
    driver.execute(f"PRAGMA busy_timeout = {round(1000 * BUSY_TIMEOUT)}")


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
        if connection.get_execution_options().get("write", False):
            connection.exec_driver_sql(f"PRAGMA cache_size = -{CACHE_KIB}")
            _begin_writing(connection)
        else:
            connection.exec_driver_sql("BEGIN")

    return engine


def _postgresql_engine(url: URL) -> Engine:
    """An engine whose write transactions queue, the first one's creation of the tables included."""
    try:
        engine = create_engine(
            url,
            connect_args={"connect_timeout": CONNECT_TIMEOUT},
            pool_pre_ping=True,  # a server may have been restarted since the last use
            hide_parameters=True,
        )
    except ImportError:
        raise UserError("PostgreSQL needs a driver: pip install 'scalefp[postgresql]'") from None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("write", False)
        # A writer must see what was committed while it waited; a reader sees one state throughout.
        mode = "READ COMMITTED READ WRITE" if write else "REPEATABLE READ READ ONLY"
        connection.exec_driver_sql(f"SET TRANSACTION ISOLATION LEVEL {mode}")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(1000 * BUSY_TIMEOUT)}")
        if write:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")

    return engine


def _busy(name: str) -> str:
    return f"the registry {name} was in use by another process for {BUSY_TIMEOUT:.0f} s: try again"


def _sqlite_reason(error: sqlite3.Error, name: str) -> str:
    """What went wrong, by SQLite's error code; ``name`` is the registry's."""
    code = getattr(error, "sqlite_errorcode", -1) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return f"{name} is not a scalefp registry, or it is damaged"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return (
            f"the registry {name} cannot be opened or written: check the permissions of file and "
            "folder"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return _busy(name)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return f"the registry {name} cannot be written ({error}): check the disk"
    if code == sqlite3.SQLITE_ERROR and str(error).startswith("no such"):
        return f"the registry {name} is damaged: there is {error} in it"
    if str(error).startswith("Could not decode"):
        return f"the registry {name} is damaged: it holds text that is not UTF-8"
    return f"the registry {name} cannot be used ({type(error).__name__}): check the file"


def _postgresql_reason(error: BaseException | None, *, operational: bool, name: str) -> str:
    """What went wrong, by SQLSTATE, which a failed connection has none of."""
    state = getattr(error, "sqlstate", None)
    if state is None and operational:
        return (
            f"the registry {name} cannot be reached: check that its server runs, and host, port, "
            "user, password and database of the URL"
        )
    if state == "55P03":
        return _busy(name)
    if state in ("42501", "25006"):
        return f"the registry {name} cannot be written: check the rights of its user"
    if state == "53100":
        return f"the registry {name} cannot be written: check the disk of its server"
    if state in ("42703", "42P01"):
        return f"the registry {name} is damaged: a table or a column of it is missing"
    kind = type(error).__name__
    return f"the registry {name} cannot be used ({kind}): check database and server"


def _parsed(text: str) -> tuple[URL, str]:
    """A database URL, and the backend it asks for."""
    try:
        url = make_url(text)
        return url, BACKENDS[url.drivername]
    except (SQLAlchemyError, ValueError, KeyError):
        # Neither the text nor the cause, which may quote the URL with its password.
        raise UserError(
            "the registry's database URL cannot be used: give a file, or "
            "postgresql://USER@HOST/DATABASE"
        ) from None


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
        self._found = False  # a registry was here: from then on its absence is an error
        self._warned = False
        self.name = text
        if "://" in text:
            url, backend = _parsed(text)
            if backend == "postgresql":
                # Options may hold a password as well.
                self.name = url.set(query={}).render_as_string(hide_password=True)
                self._set_engine(_postgresql_engine(url.set(drivername="postgresql+psycopg")))
                return
            if url.database in (None, "", ":memory:"):
                raise UserError("a registry in memory keeps nothing: give a file path")
            text = str(url.database)
        if not text:
            raise UserError("the registry's path is empty: give a file or a database URL")
        # Absolute, so that a later change of folder does not change the registry.
        self._path = Path(text).absolute()
        self._set_engine(_sqlite_engine(self._path))

    def _set_engine(self, engine: Engine) -> None:
        self._engine = engine
        self._driver: Any = engine.dialect.dbapi

    def exists(self) -> bool:
        """Whether there is something to open (behind a URL: assumed).

        Raises:
            UserError: there was a registry, and now it is away: none is to be started in its place.
        """
        if self._path is None or os.path.isfile(self._path):
            return True
        if self._found:
            raise self._disappeared()
        return False

    def _disappeared(self) -> UserError:
        return UserError(
            f"the registry {self.name} has disappeared: bring back its file, disk or database (no "
            "other is started in its place)"
        )

    def create(self) -> None:
        """Make the empty SQLite file if there is none, readable by its owner alone."""
        if self._path is None or self.exists():
            return
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise UserError(f"cannot create the registry {self.name}: {error.strerror}") from error

    def _reason(self, error: BaseException | None) -> str:
        """What an error of the driver means for the user."""
        if isinstance(error, self._driver.IntegrityError):
            return f"the registry {self.name} was changed by another process: try again"
        if isinstance(error, sqlite3.Error):
            return _sqlite_reason(error, self.name)
        operational = isinstance(error, self._driver.OperationalError)
        return _postgresql_reason(error, operational=operational, name=self.name)

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back by any exception."""
        try:
            with self._engine.connect() as connection:
                connection.execution_options(write=write)
                with connection.begin():
                    yield connection
        # Without the causes: drivers quote URLs and rows, so passwords and keys.
        except DBAPIError as error:
            raise UserError(self._reason(error.orig)) from None
        except self._driver.Error as error:
            raise UserError(self._reason(error)) from None

    def find_meta(self, connection: Connection) -> Meta | None:
        """The row that describes the registry, None in a database where nothing is stored yet."""
        tables = inspect(connection).get_table_names()
        if META.name not in tables or KEYS.name not in tables:
            if tables and self._path is not None:
                raise UserError(f"{self.name} is an SQLite file, but not a scalefp registry")
            if self._found:
                raise self._disappeared()
            return None
        if self._path is not None:
            self._check_file(connection, self._path)
        versions = connection.scalars(select(META.c.schema_version)).all()
        if versions != [SCHEMA_VERSION]:
            raise UserError(
                f"the registry {self.name} was written by another version of scalefp (schema "
                f"{', '.join(map(str, versions)) or 'unknown'}, this one reads {SCHEMA_VERSION}): "
                "use the version that wrote it"
            )
        if LOG.name not in tables:
            raise UserError(f"the registry {self.name} is damaged: its audit log is missing")
        for table in (KEYS, LOG):  # a column that is missing must not wait until it is asked for
            connection.execute(select(table).limit(0))
        meta = checked_meta(connection.execute(select(META)).one(), self.name)
        self._found = True
        return meta

    def _check_file(self, connection: Connection, path: Path) -> None:
        """Raise UserError for a file that was cut, and warn of one that others may open."""
        about = os.stat(path)
        # SQLite notices missing pages, but fills up a last page that was cut with zeros.
        page_size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
        if about.st_size % page_size:
            raise UserError(f"the registry {self.name} is damaged: its end is missing")
        if about.st_mode & 0o077 and not self._warned:
            self._warned = True
            _log.warning(
                "the registry %s holds every key and is open to other users (mode %04o): run "
                "chmod 600 %s", self.name, stat.S_IMODE(about.st_mode), self.name,
            )  # fmt: skip

    @contextmanager
    def opened(self, *, write: bool = False) -> Iterator[tuple[Connection, Meta]]:
        """A transaction on a registry that must exist already, with its meta row."""
        if not self.exists():
            raise UserError(
                f"there is no registry at {self.name}: check the path, or issue a first key to it"
            )
        with self.transaction(write=write) as connection:
            meta = self.find_meta(connection)
            if meta is None:
                # Never "no keys, so nobody": the file may have been cut to nothing.
                raise UserError(f"the registry {self.name} is empty: no key was issued in it")
            yield connection, meta
