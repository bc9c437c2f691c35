"""Where a registry is stored: what is no registry, what cannot be reached or written, and secrets.

What a registry does is tested in test_registry.py, on both databases.
"""

import os
import socket
import sqlite3
import stat
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import scalefp.registry.database
from registries import MODEL, sql
from scalefp.attribution.evidence import Reading, attribute
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.registry.registry import Registry


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.db"


@pytest.fixture
def registry(path):
    registry = Registry(path)
    registry.issue("recipient-a", model=MODEL)
    return registry


# SQLite files.


READS = {
    "list": lambda r: r.list(),
    "find": lambda r: r.find("a"),
    "show": lambda r: r.show("a"),
    "revoke": lambda r: r.revoke("a"),
    "len": len,
    "check_usable": lambda r: r.check_usable(Key.random()),
    "attribute": lambda r: attribute(Reading(np.ones((1, 128))), r),
}
reads = pytest.mark.parametrize("read", READS.values(), ids=READS.keys())


@reads
def test_reading_a_missing_registry_is_an_error_and_creates_nothing(path, read):
    with pytest.raises(UserError, match="there is no registry at .*keys.db"):
        read(Registry(path))
    assert not path.exists()


@reads
def test_an_empty_file_is_not_taken_for_nobody(path, read):
    path.touch()
    with pytest.raises(UserError, match="is empty: no key was issued in it"):
        read(Registry(path))


@reads
@pytest.mark.parametrize("content", [b"hello, world\n" * 500, b"\x89PNG\r\n", bytes(5000)])
def test_foreign_files_are_refused_and_left_alone(path, read, content):
    path.write_bytes(content)
    with pytest.raises(UserError, match="keys.db is not a scalefp registry, or it is damaged"):
        read(Registry(path))
    with pytest.raises(UserError, match="not a scalefp registry"):
        Registry(path).issue("a", MODEL)
    assert path.read_bytes() == content


def test_foreign_sqlite_files_are_refused_and_left_alone(path):
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE keys (id INTEGER)")
    foreign.close()
    content = path.read_bytes()
    for use in (Registry.list, lambda registry: registry.issue("a", MODEL)):
        with pytest.raises(UserError, match="is an SQLite file, but not a scalefp registry"):
            use(Registry(path))
    assert path.read_bytes() == content


def test_truncated_registry_is_noticed_wherever_it_was_cut(path, tmp_path):
    Registry(path).issue_many([f"h{i}" for i in range(300)], MODEL)
    content = path.read_bytes()
    cut = tmp_path / "cut.db"
    for size in [*range(0, len(content), 4096), *range(1, len(content), 1499), len(content) - 1]:
        cut.write_bytes(content[:size])
        with pytest.raises(UserError, match="damaged|is empty"):
            Registry(cut).keys_and_holders()


def test_the_file_is_for_its_owner_alone(registry, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_whatever_sqlite_writes_beside_it_is_for_the_owner_alone(registry, path):
    before = os.umask(0)
    try:
        registry.issue("b", MODEL)
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("UPDATE scalefp_keys SET holder = 'x' WHERE id = 1")
            modes = {stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
            assert len(list(path.parent.iterdir())) == 2 and modes == {0o600}
            writer.execute("ROLLBACK")
            writer.execute("PRAGMA journal_mode = wal")
            writer.execute("UPDATE scalefp_keys SET holder = 'x' WHERE id = 2")
            modes = {stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
            assert len(list(path.parent.iterdir())) == 3 and modes == {0o600}
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o640, 0o602])
def test_a_registry_that_others_may_open_is_said_once(registry, path, caplog, mode):
    registry.list()
    assert not caplog.messages
    path.chmod(mode)
    for _ in range(2):
        registry.list()
        registry.issue_many([], MODEL)
    assert caplog.messages == [
        f"the registry {path} holds every key and is open to other users (mode {mode:04o}): run "
        f"chmod 600 {path}"
    ]


@pytest.mark.parametrize("how", ["gone", "folder gone", "emptied"])
def test_a_registry_that_disappears_is_never_an_empty_one(tmp_path, how):
    path = tmp_path / "disk" / "keys.db"
    path.parent.mkdir()
    Registry(path).issue("a", MODEL)
    running = Registry(path)
    assert len(running) == 1
    if how == "folder gone":
        path.parent.rename(tmp_path / "away")
    else:
        path.rename(tmp_path / "away.db")
    if how == "emptied":
        path.touch()
    for use in (
        lambda: running.model_digest, lambda: running.n_bits, running.head, running.snapshot,
        lambda: running.issue("b", MODEL), lambda: running.search(""),
    ):  # fmt: skip
        with pytest.raises(UserError, match="keys.db has disappeared: bring back"):
            use()
    assert how == "emptied" or not path.exists()
    if how == "folder gone":
        (tmp_path / "away").rename(path.parent)
    else:
        (tmp_path / "away.db").rename(path)
    assert running.issue("b", MODEL) and len(running) == 2


@pytest.mark.parametrize("name", ["we?ird#na%20me.db", "caf\u00e9 keys.db", "file:x.db"])
def test_any_file_name_is_taken_literally(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    registry = Registry(name)
    registry.issue("a", MODEL)
    assert os.listdir(tmp_path) == [name]
    monkeypatch.chdir("/")
    assert len(registry) == 1  # the path was fixed when the registry was named


def test_a_path_that_cannot_be_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    cases = {
        tmp_path / "missing" / "keys.db": "No such file or directory",
        tmp_path / "file" / "keys.db": "Not a directory",
    }
    for path, reason in cases.items():
        with pytest.raises(UserError, match=f"cannot create the registry .*keys.db: {reason}"):
            Registry(path).issue("a", MODEL)
    with pytest.raises(UserError, match="there is no registry at"):
        Registry(tmp_path).list()
    with pytest.raises(UserError, match="cannot be opened or written"):
        Registry(tmp_path).issue("a", MODEL)
    with pytest.raises(UserError, match="path is empty"):
        Registry("")


@pytest.fixture
def as_plain_user():
    """A folder, and file permissions that hold: root would pass them all."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            os.chmod(folder, 0o755)
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
            yield Path(folder)
            os.seteuid(0)
        else:
            yield Path(folder)
            os.chmod(folder, 0o755)


def test_unwritable_places_are_refused(as_plain_user):
    path = as_plain_user / "keys.db"
    registry = Registry(path)
    registry.issue("a", MODEL)
    # A read-only file can be read.
    path.chmod(0o400)
    assert len(registry) == 1
    with pytest.raises(UserError, match="cannot be opened or written: check the permissions"):
        registry.issue("b", MODEL)
    # A folder without room for SQLite's journal.
    path.chmod(0o600)
    as_plain_user.chmod(0o500)
    assert len(registry) == 1
    with pytest.raises(UserError, match="cannot be opened or written: check the permissions"):
        registry.issue("b", MODEL)
    with pytest.raises(UserError, match="cannot create the registry .*Permission denied"):
        Registry(as_plain_user / "new.db").issue("a", MODEL)
    path.chmod(0o000)
    with pytest.raises(UserError, match="cannot be opened or written: check the permissions"):
        registry.list()
    as_plain_user.chmod(0o700)


def test_a_lock_held_too_long_is_said_and_nothing_is_written(registry, path, monkeypatch):
    monkeypatch.setattr(scalefp.registry.database, "BUSY_TIMEOUT", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert len(registry) == 1  # reading goes on beside a writer
    with pytest.raises(UserError, match="was in use by another process"):
        registry.issue("b", MODEL)
    other.execute("ROLLBACK")
    registry.issue("b", MODEL)
    assert len(registry) == 2


def test_a_writer_killed_in_mid_commit_is_rolled_back_by_the_next_reader(registry, path):
    # A crashed writer leaves its journal behind; copying both files in mid-transaction makes one.
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")  # spill changed pages to the file before the commit
    writer.execute("BEGIN EXCLUSIVE")
    rows = [(i, f"h{i}", os.urandom(16), "t") for i in range(2, 2002)]
    insert = "INSERT INTO scalefp_keys (id, holder, key, issued_at) VALUES (?, ?, ?, ?)"
    writer.executemany(insert, rows)
    crashed = path.with_name("crashed.db")
    crashed.write_bytes(path.read_bytes())
    journal = Path(f"{path}-journal").read_bytes()
    writer.execute("ROLLBACK")
    Path(f"{crashed}-journal").write_bytes(journal)
    assert crashed.stat().st_size > path.stat().st_size
    assert Registry(crashed).list() == registry.list()


# Both databases.


def test_a_registry_of_another_schema_is_refused(place):
    registry = Registry(place)
    registry.issue("a", MODEL)
    sql(place, "UPDATE scalefp_meta SET schema_version = 3")
    for use in (Registry.list, lambda registry: registry.issue("b", MODEL)):
        with pytest.raises(
            UserError, match="another version of scalefp .schema 3, this .* reads 2"
        ):
            use(registry)


def test_the_schema_before_the_audit_log_is_refused(place):
    # As the first versions wrote it.
    sql(place, "CREATE TABLE scalefp_meta (schema_version INTEGER, n_bits INTEGER)")
    sql(place, "CREATE TABLE scalefp_keys (id INTEGER, holder TEXT)")
    sql(place, "INSERT INTO scalefp_meta VALUES (1, 128)")
    for use in (Registry.list, lambda registry: registry.issue("b", MODEL)):
        with pytest.raises(UserError, match="schema 1, this one reads 2.: use the version"):
            use(Registry(place))


def test_a_failure_in_mid_transaction_leaves_nothing(place, monkeypatch):
    registry = Registry(place)
    registry.issue("a", MODEL)
    head = registry.head()
    with monkeypatch.context() as patched:
        patched.setattr("scalefp.registry.audit._next", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            registry.issue_many(["b", "c"], MODEL)
    assert ([record.holder for record in registry.list()], registry.head()) == (["a"], head)
    registry.issue("b", MODEL)
    assert registry.verify().issued == 2


# URLs.


def test_an_sqlite_url_is_a_path(path):
    key = Registry(f"sqlite:///{path}").issue("a", MODEL)
    assert Registry(path).find("a") == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuchdatabase://user:hunter2@host/x", "database URL cannot be used"),
        ("mysql://user:hunter2@host/x", "database URL cannot be used"),
        ("://hunter2", "database URL cannot be used"),
        ("postgresql+nosuchdriver://user:hunter2@host/x", "database URL cannot be used"),
        ("postgresql://user:hunter2@host:port/x", "database URL cannot be used"),
        ("sqlite://", "a registry in memory keeps nothing"),
        ("sqlite:///:memory:", "a registry in memory keeps nothing"),
    ],
)
def test_unusable_urls_are_refused_without_their_password(url, message):
    with pytest.raises(UserError, match=message) as error:
        Registry(url)
    assert "hunter2" not in str(error.value)
    assert error.value.__cause__ is None


def test_postgresql_without_its_driver_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"pip install 'scalefp\[postgresql\]'"):
        Registry("postgresql://user:hunter2@host/x")


# PostgreSQL.


@pytest.fixture
def driver():
    return pytest.importorskip("psycopg")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
@pytest.mark.parametrize("password", ["user:hunter2@", "user@", ""])
def test_an_unreachable_server_is_said_without_the_password(driver, scheme, password):
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))  # and never listens
        port = unused.getsockname()[1]
        url = f"{scheme}://{password}127.0.0.1:{port}/x?sslpassword=hunter2"
        registry = Registry(url)
        for use in (Registry.list, Registry.head, lambda registry: registry.issue("a", MODEL)):
            with pytest.raises(UserError, match=f"127.0.0.1:{port}/x cannot be reached") as error:
                use(registry)
            assert "hunter2" not in str(error.value)
            assert error.value.__cause__ is None and error.value.__suppress_context__


def test_a_wrong_password_is_said_without_it(postgresql):
    url = scalefp.registry.database.make_url(postgresql).set(password="hunter2")
    text = url.render_as_string(hide_password=False)
    with pytest.raises(UserError, match="cannot be reached: check .* password") as error:
        Registry(text).issue("a", MODEL)
    assert "hunter2" not in str(error.value) and "***" in str(error.value)


def test_an_empty_schema_is_not_taken_for_nobody(postgresql):
    with pytest.raises(UserError, match="is empty: no key was issued in it"):
        Registry(postgresql).keys_and_holders()
    sql(postgresql, "CREATE TABLE somebody_elses (id INTEGER)")
    Registry(postgresql).issue("a", MODEL)
    assert len(Registry(postgresql)) == 1


def test_a_server_that_was_restarted_is_connected_anew(postgresql):
    registry = Registry(postgresql)
    registry.issue("a", MODEL)
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    sql(postgresql, f"{cut} AND query LIKE '%%scalefp_%%'")
    assert len(registry) == 1


def test_a_writer_waits_for_another_and_gives_up_in_time(postgresql, driver, monkeypatch):
    registry = Registry(postgresql)
    registry.issue("a", MODEL)
    with driver.connect(postgresql) as other:
        lock = scalefp.registry.database.WRITE_LOCK
        other.execute("SELECT pg_advisory_xact_lock(%s)", (lock,))
        assert len(registry) == 1  # reading goes on beside a writer
        with monkeypatch.context() as patience:
            patience.setattr(scalefp.registry.database, "BUSY_TIMEOUT", 0.05)
            with pytest.raises(UserError, match="was in use by another process"):
                registry.issue("b", MODEL)
    registry.issue("b", MODEL)
    assert len(registry) == 2


# What a server reports, as SQLSTATE, in mid-issue; and what is said.
REPORTS = {
    "53100": "cannot be written: check the disk of its server",
    "42501": "cannot be written: check the rights of its user",
    "23505": "was changed by another process: try again",
    "P0001": r"cannot be used \(RaiseException\): check database and server",
}


@pytest.mark.parametrize(("state", "message"), REPORTS.items())
def test_what_the_server_refuses_is_said_without_keys_and_undone(postgresql, state, message):
    registry = Registry(postgresql)
    registry.issue("a", MODEL)
    head = registry.head()
    raising = f"RAISE EXCEPTION 'row %%', NEW.key USING ERRCODE = '{state}'"
    body = f"BEGIN IF NEW.holder = 'h70' THEN {raising}; END IF; RETURN NEW; END"
    sql(postgresql, f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $${body}$$")
    sql(
        postgresql,
        "CREATE TRIGGER refuse BEFORE INSERT ON scalefp_keys "
        "FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    with pytest.raises(UserError, match=message) as error:
        registry.issue_many([f"h{i}" for i in range(100)], MODEL)
    assert "\\x" not in str(error.value)
    assert error.value.__cause__ is None and error.value.__suppress_context__
    assert (len(registry), registry.head()) == (1, head)
    assert registry.verify().issued == 1
