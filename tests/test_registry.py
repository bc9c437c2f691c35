"""The registry: nothing lost, nothing twice, nothing created by reading, no secret in messages."""

import os
import re
import sqlite3
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import scalefp.database
from scalefp.attribution import Reading, attribute
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.registry import Registry

DIGEST = "ab" * 32


@dataclass
class Config:
    n_bits: int = 128


@dataclass
class Model:
    digest: str = DIGEST
    config: Config = field(default_factory=Config)


MODEL = Model()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.db"


@pytest.fixture
def registry(path):
    registry = Registry(path)
    registry.issue("recipient-a", model=MODEL)
    return registry


# -- Issuing, finding, revoking --------------------------------------------------------------------


def test_issued_keys_come_back_with_holder_time_and_release(path):
    before = datetime.now(UTC) - timedelta(seconds=1)
    registry = Registry(path)
    keys = [registry.issue(holder, model=MODEL) for holder in ("b", "a")]
    assert len({*keys}) == 2 and all(key.n_bits == 128 for key in keys)
    again = Registry(str(path))  # from the file alone
    assert [(r.holder, r.key, r.model_digest, r.revoked_at) for r in again.list()] == [
        ("b", keys[0], DIGEST, None),
        ("a", keys[1], DIGEST, None),
    ]
    issued_at = datetime.fromisoformat(again.list()[0].issued_at)
    assert before <= issued_at <= datetime.now(UTC) and issued_at.utcoffset() == timedelta(0)
    assert again.find("a") == keys[1]
    assert again.show("b") == again.list()[:1]
    assert (len(again), again.n_bits, again.model_digest) == (2, 128, DIGEST)
    again.check_usable(keys[0])


@pytest.mark.parametrize("n_bits", [8, 13, 64, 512])
def test_keys_of_any_length_are_stored(path, n_bits):
    registry, model = Registry(path), Model(config=Config(n_bits))
    key = registry.issue("a", model)
    assert registry.find("a") == key and key.n_bits == registry.n_bits == n_bits
    packed, holders, revoked = registry.keys_and_holders()
    assert packed.shape == (1, -(-n_bits // 8)) and packed[0].tobytes() == key.bytes
    assert holders == ["a"] and revoked.tolist() == [False]


def test_revoked_keys_are_unusable_but_still_attributed(registry):
    key = registry.find("recipient-a")
    record = registry.revoke("recipient-a")
    assert record.key == key and record.revoked_at is not None
    with pytest.raises(
        UserError, match=f"'recipient-a' was revoked at {re.escape(record.revoked_at)}"
    ):
        registry.find("recipient-a")
    with pytest.raises(UserError, match="issued to 'recipient-a', was revoked at"):
        registry.check_usable(key)
    with pytest.raises(UserError, match="was revoked at"):
        registry.revoke("recipient-a")
    renewed = registry.issue("recipient-a", MODEL)
    assert renewed != key and registry.find("recipient-a") == renewed
    registry.check_usable(renewed)
    assert [r.key for r in registry.show("recipient-a")] == [key, renewed]
    assert len(registry) == 2
    assert registry.keys_and_holders().revoked.tolist() == [True, False]
    named = attribute(Reading(2.0 * key.bits[None] - 1, DIGEST), registry)
    assert [(a.holder, a.key, a.matches) for a in named] == [("recipient-a", key, 128)]
    assert named[0].p_value == 2 * 2.0**-128  # the revoked key counts among the N


def test_keys_for_attribution_follow_every_change(registry, path):
    first = registry.keys_and_holders()
    assert registry.keys_and_holders() is first  # not read again
    other = Registry(path)
    other.issue("b", MODEL)
    assert registry.keys_and_holders().holders == ["recipient-a", "b"]
    other.revoke("recipient-a")
    assert registry.keys_and_holders().revoked.tolist() == [True, False]


def test_issue_many_is_all_or_nothing(registry):
    keys = registry.issue_many([f"h{i}" for i in range(300)], MODEL)
    assert [registry.find(f"h{i}") for i in (0, 299)] == [keys[0], keys[299]]
    packed, holders, _ = registry.keys_and_holders()
    assert holders[1:] == [f"h{i}" for i in range(300)]
    assert np.array_equal(np.unpackbits(packed[1:], axis=1), [key.bits for key in keys])
    with pytest.raises(UserError, match="'h7' has an active key already"):
        registry.issue_many(["new", "h7"], MODEL)
    with pytest.raises(UserError, match="named twice"):
        registry.issue_many(["new", " new"], MODEL)
    assert registry.issue_many([], MODEL) == []
    assert len(registry) == 301


def test_batches_larger_than_one_statement(path, monkeypatch):
    monkeypatch.setattr(scalefp.database, "BATCH", 7)
    monkeypatch.setattr("scalefp.registry.BATCH", 7)
    registry = Registry(path)
    registry.issue_many([f"h{i}" for i in range(20)], MODEL)
    assert registry.keys_and_holders().holders == [f"h{i}" for i in range(20)]
    with pytest.raises(UserError, match="'h19' has an active key"):
        registry.issue_many([f"g{i}" for i in range(8)] + ["h19"], MODEL)


def test_every_short_key_is_given_exactly_once(path):
    registry, model = Registry(path), Model(config=Config(8))
    registry.issue_many([f"h{i}" for i in range(250)], model)
    for i in range(250, 256):
        registry.issue(f"h{i}", model)
    assert len({record.key for record in registry.list()}) == 256
    with pytest.raises(UserError, match="256 of all 256 are issued: use longer keys"):
        registry.issue("one too many", model)


# -- Holders ---------------------------------------------------------------------------------------


def test_holder_is_stripped_and_compared_in_one_unicode_form(path):
    registry = Registry(path)
    key = registry.issue("  Ecole Cafe\u0301 ", MODEL)
    assert registry.find("Ecole Caf\u00e9") == key
    assert registry.list()[0].holder == "Ecole Caf\u00e9"
    with pytest.raises(UserError, match="has an active key already: revoke it first"):
        registry.issue("Ecole Caf\u00e9", MODEL)


@pytest.mark.parametrize(
    ("holder", "message"),
    [
        ("", "the holder is empty"),
        (" \t\n", "the holder is empty"),
        ("x" * 201, "has 201 characters, at most 200"),
        ("a\nb", "cannot be printed"),
        ("a\x00b", "cannot be printed"),
        ("a\udc80b", "cannot be printed"),
    ],
)
def test_bad_holder_is_refused_before_anything_is_created(path, holder, message):
    with pytest.raises(UserError, match=message):
        Registry(path).issue(holder, MODEL)
    assert not path.exists()


def test_a_holder_is_data_not_sql(registry):
    holder = "x'); DROP TABLE scalefp_keys; --"
    key = registry.issue(holder, MODEL)
    assert registry.find(holder) == key and len(registry) == 2


def test_unknown_holder_and_key_are_refused(registry):
    for call in (registry.find, registry.show, registry.revoke):
        with pytest.raises(UserError, match="no key was ever issued to 'nobody' in"):
            call("nobody")
    for key in (Key.random(), Key.random(64)):
        with pytest.raises(UserError, match=f"this {key.n_bits}-bit key was never issued") as error:
            registry.check_usable(key)
        assert str(key)[:6] not in str(error.value)


def test_equal_bytes_of_another_length_are_another_key(path):
    registry = Registry(path)
    key = registry.issue("a", Model(config=Config(12)))
    with pytest.raises(UserError, match="this 16-bit key was never issued"):
        registry.check_usable(Key(key.bytes, 16))


def test_another_release_is_refused(registry):
    with pytest.raises(UserError, match="belongs to another release .*one registry per release"):
        registry.issue("b", Model(digest="cd" * 32))
    with pytest.raises(UserError, match="128 bits.*64 bits"):
        registry.issue("b", Model(config=Config(64)))
    assert len(registry) == 1


# -- Two processes ---------------------------------------------------------------------------------

ISSUER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from scalefp.errors import UserError
from scalefp.registry import Registry

path, name, start = sys.argv[1:]
model = SimpleNamespace(digest="ab" * 32, config=SimpleNamespace(n_bits=128))
print("ready", flush=True)
while not Path(start).exists():
    time.sleep(0.001)
won = 0
for i in range(30):
    print(Registry(path).issue(f"{name}-{i}", model))
    try:
        Registry(path).issue(f"contested-{i}", model)
        won += 1
    except UserError as error:
        assert "has an active key already" in str(error), error
print(won)
"""


def test_processes_issuing_at_once_lose_and_duplicate_nothing(path, tmp_path):
    start = tmp_path / "start"
    issuers = [
        subprocess.Popen(
            [sys.executable, "-c", ISSUER, str(path), name, str(start)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("p", "q")
    ]
    for issuer in issuers:
        assert issuer.stdout.readline() == "ready\n"
    start.touch()  # both go for the creation of the file, too
    outputs = [issuer.communicate(timeout=60)[0].split() for issuer in issuers]
    assert [issuer.returncode for issuer in issuers] == [0, 0]
    records = Registry(path).list()
    assert len(records) == len({r.key for r in records}) == len({r.holder for r in records}) == 90
    by_holder = {record.holder: str(record.key) for record in records}
    for name, output in zip("pq", outputs, strict=True):
        assert [by_holder[f"{name}-{i}"] for i in range(30)] == output[:30]
    assert sum(int(output[30]) for output in outputs) == 30


def test_a_lock_held_too_long_is_said_and_nothing_is_written(registry, path, monkeypatch):
    monkeypatch.setattr(scalefp.database, "BUSY_TIMEOUT", 0.05)
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
    rows = [(f"h{i}", os.urandom(16), "t", "d") for i in range(2000)]
    insert = "INSERT INTO scalefp_keys (holder, key, issued_at, model_digest) VALUES (?, ?, ?, ?)"
    writer.executemany(insert, rows)
    crashed = path.with_name("crashed.db")
    crashed.write_bytes(path.read_bytes())
    journal = Path(f"{path}-journal").read_bytes()
    writer.execute("ROLLBACK")
    Path(f"{crashed}-journal").write_bytes(journal)
    assert crashed.stat().st_size > path.stat().st_size
    assert Registry(crashed).list() == registry.list()


# -- Files -----------------------------------------------------------------------------------------

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


def test_before_the_first_issue_there_is_no_release(path):
    registry = Registry(path)
    assert registry.model_digest is None and registry.n_bits is None
    assert registry  # truth means "there is one", and runs no query
    path.touch()
    assert registry.model_digest is None and registry.n_bits is None


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


@pytest.mark.parametrize("value", [b"short", "text" * 4, 7])
def test_damaged_keys_are_noticed(registry, path, value):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE scalefp_keys SET key = ?", (value,))
    connection.close()
    for read in (Registry.keys_and_holders, Registry.list, lambda r: r.find("recipient-a")):
        with pytest.raises(UserError, match="a key in it has a wrong length"):
            read(registry)


def test_registry_of_another_schema_is_refused(registry, path):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE scalefp_meta SET schema_version = 2")
    connection.close()
    with pytest.raises(UserError, match="written by another version of scalefp"):
        registry.list()
    with pytest.raises(UserError, match="written by another version of scalefp"):
        registry.issue("b", MODEL)


def test_the_file_is_for_its_owner_alone(registry, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


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


# -- URLs ------------------------------------------------------------------------------------------


def test_an_sqlite_url_is_a_path(path):
    key = Registry(f"sqlite:///{path}").issue("a", MODEL)
    assert Registry(path).find("a") == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuchdatabase://user:hunter2@host/x", "database URL cannot be used"),
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
