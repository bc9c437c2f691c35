"""The audit log on both databases: an intact one verifies, any change to log or keys is named."""

import re

import pytest

from registries import DIGEST, MODEL, sql
from scalefp.attribution.evidence import Reading, attribute
from scalefp.errors import UntrustedRegistryError, UserError
from scalefp.key import Key
from scalefp.registry import audit
from scalefp.registry.audit import Event
from scalefp.registry.registry import Registry


@pytest.fixture
def registry(place):
    """Keys 1 a, 2 b, 3 c, 4 b again; six entries in the log."""
    registry = Registry(place)
    registry.issue_many(["a", "b", "c"], MODEL)
    registry.revoke("b")
    registry.issue("b", MODEL)
    registry.revoke("c")
    return registry


def test_the_log_tells_what_was_done_and_no_key(registry):
    registry.reinstate("c")
    assert [(e.seq, e.action, e.holder) for e in registry.log()] == [
        (1, "issue", "a"),
        (2, "issue", "b"),
        (3, "issue", "c"),
        (4, "revoke", "b"),
        (5, "issue", "b"),
        (6, "revoke", "c"),
        (7, "reinstate", "c"),
    ]
    records = registry.list()
    assert [e.at for e in registry.log()][:3] == [record.issued_at for record in records[:3]]
    assert registry.log()[3].at == records[1].revoked_at
    assert not any(str(record.key) in str(registry.log()) for record in records)


def test_an_intact_registry_verifies(registry):
    assert registry.verify() == (4, 6, registry.head())
    registry.reinstate("c")
    assert registry.verify() == (4, 7, registry.head())


def test_the_head_changes_with_every_entry_and_only_then(registry):
    heads = [registry.head()]
    for change in (
        lambda: registry.revoke("a"),
        lambda: registry.reinstate("a"),
        lambda: registry.issue("d", MODEL),
    ):
        change()
        heads.append(registry.head())
    assert len(set(heads)) == 4
    assert all(re.fullmatch("[0-9a-f]{64}", head) for head in heads)
    registry.list()
    with pytest.raises(UserError):
        registry.issue("d", MODEL)
    assert registry.head() == heads[-1]
    for head in heads:  # a state noted earlier is the beginning of this one
        assert registry.verify(head).head == heads[-1]


def test_a_head_that_was_noted_shows_a_log_that_was_cut_or_replaced(registry, place):
    noted = registry.head()
    sql(place, "DELETE FROM scalefp_log WHERE seq = 6")
    sql(place, "UPDATE scalefp_keys SET revoked_at = NULL WHERE id = 3")
    assert registry.verify().entries == 5  # nothing in the registry itself could tell
    with pytest.raises(UserError, match=f"the head {noted}, noted earlier, is not in its log"):
        registry.verify(noted)


# A statement, and what the verdict says. {digest} is some other key.
TAMPERED = {
    "holder": ("UPDATE scalefp_keys SET holder = 'x' WHERE id = 2", r"entry 2 .*issue of key 2"),
    "key": ("UPDATE scalefp_keys SET key = %s WHERE id = 3", "entry 3 .*issue of key 3, 'c'"),
    "keys swapped": (
        "UPDATE scalefp_keys SET holder = CASE id WHEN 1 THEN 'c' ELSE 'a' END WHERE id IN (1, 3)",
        "entry 1 .*issue of key 1, 'c'",
    ),
    "time of issue": (
        "UPDATE scalefp_keys SET issued_at = '2020-01-01T00:00:00+00:00' WHERE id = 4",
        "entry 5 .*issue of key 4, 'b'",
    ),
    "key removed": ("DELETE FROM scalefp_keys WHERE id = 4", "entry 5 .*issue of key 4, None"),
    "key added": (
        "INSERT INTO scalefp_keys (id, holder, key, issued_at) VALUES (5, 'd', %s, 't')",
        "key 5 of 'd' was never logged as issued",
    ),
    "revoked": (
        "UPDATE scalefp_keys SET revoked_at = '2020-01-01T00:00:00+00:00' WHERE id = 1",
        "key 1 is marked as revoked at 2020-01-01T00:00:00.00:00, which was never logged",
    ),
    "revoked earlier": (
        "UPDATE scalefp_keys SET revoked_at = '2020-01-01T00:00:00+00:00' WHERE id = 3",
        "key 3 is marked as revoked at 2020",
    ),
    "reinstated": (
        "UPDATE scalefp_keys SET revoked_at = NULL WHERE id = 3",
        "key 3 was revoked at 20.*, but is not marked as revoked",
    ),
    "action": ("UPDATE scalefp_log SET action = 'reinstate' WHERE seq = 4", "entry 4 .*reinstate"),
    "time": ("UPDATE scalefp_log SET at = '2020-01-01T00:00:00+00:00' WHERE seq = 4", "entry 4 "),
    "subject": ("UPDATE scalefp_log SET key_id = 1 WHERE seq = 6", "entry 6 .*revoke of key 1"),
    "no subject": ("UPDATE scalefp_log SET key_id = NULL WHERE seq = 2", "entry 2 .*issue, at"),
    "hash": ("UPDATE scalefp_log SET chain = %s WHERE seq = 3", "entry 3 "),
    "first entry removed": ("DELETE FROM scalefp_log WHERE seq = 1", "entry 1 .*is missing"),
    "entry removed": ("DELETE FROM scalefp_log WHERE seq = 4", "entry 4 of its log is missing"),
    "issue removed at the end": (
        "DELETE FROM scalefp_log WHERE seq >= 5",
        "key 4 of 'b' was never logged as issued",
    ),
    "log emptied": ("DELETE FROM scalefp_log", "its log is empty"),
    "release": (f"UPDATE scalefp_meta SET model_digest = '{DIGEST[::-1]}'", "entry 1 "),
    "secret": ("UPDATE scalefp_meta SET master_check = 'x'", "entry 1 "),
}


@pytest.mark.parametrize(("statement", "verdict"), TAMPERED.values(), ids=TAMPERED.keys())
def test_tampering_is_named(registry, place, statement, verdict):
    keys = [record.key for record in registry.list()]
    values = [b"another key 1234"] * statement.count("%s")
    sql(place, statement, *values)
    with pytest.raises(UserError, match=f"was tampered with or damaged: {verdict}") as error:
        registry.verify()
    message = str(error.value)
    assert not any(str(key) in message or repr(key.bytes) in message for key in keys)


def test_an_entry_cannot_be_slipped_in_between(registry, place):
    sql(place, "UPDATE scalefp_log SET seq = seq + 100 WHERE seq > 3")
    sql(place, "UPDATE scalefp_log SET seq = seq - 99 WHERE seq > 100")
    sql(place, "INSERT INTO scalefp_log VALUES (4, 't', 'import', NULL, %s)", b"\0" * 32)
    with pytest.raises(UserError, match=r"entry 4 of its log \(import, at t\) or its key"):
        registry.verify()


@pytest.mark.parametrize("value", [b"", b"short", b"x" * 33])
def test_a_damaged_chain_key_is_said(registry, place, value):
    sql(place, "UPDATE scalefp_meta SET chain_key = %s", value)
    with pytest.raises(
        UserError, match="damaged: its chain key has a wrong length .`scalefp registry verify`"
    ):
        registry.verify()


def test_a_missing_log_is_said(registry, place):
    sql(place, "DROP TABLE scalefp_log")
    for read in (registry.verify, registry.list, registry.head):
        with pytest.raises(UserError, match="is damaged: its audit log is missing"):
            read()


def test_equal_histories_have_different_heads(place, tmp_path, monkeypatch):
    # Or whoever sees a head could try out all short keys.
    monkeypatch.setattr("scalefp.registry.registry._now", lambda: "2026-01-31T12:00:00+00:00")
    monkeypatch.setattr("scalefp.key.Key.random", lambda n_bits: Key(b"\x07" * 16, n_bits))
    registries = [Registry(place), Registry(tmp_path / "other.db")]
    for registry in registries:
        registry.issue("a", MODEL)
    assert registries[0].list() == registries[1].list()
    assert registries[0].head() != registries[1].head()


# Who is about to be named.


def read_of(record):
    return Reading(2.0 * record.key.bits[None] - 1, DIGEST)


EXCHANGED = (
    "UPDATE scalefp_keys SET holder = CASE id WHEN 1 THEN 'c' ELSE 'a' END WHERE id IN (1, 3)"
)
NAMED_WRONGLY = {
    "holders exchanged": EXCHANGED,
    "holder": "UPDATE scalefp_keys SET holder = 'x' WHERE id = 1",
    "time of issue": "UPDATE scalefp_keys SET issued_at = '2020-01-01T00:00:00+00:00' WHERE id = 1",
    "revoked": "UPDATE scalefp_keys SET revoked_at = '2020-01-01T00:00:00+00:00' WHERE id = 1",
    "entry": "UPDATE scalefp_log SET at = '2020-01-01T00:00:00+00:00' WHERE seq = 1",
    "release": "UPDATE scalefp_meta SET master_check = 'x'",
}


@pytest.mark.parametrize("statement", NAMED_WRONGLY.values(), ids=NAMED_WRONGLY.keys())
def test_nobody_is_named_by_a_record_that_was_changed(registry, place, statement):
    records = registry.list()
    running = registry.snapshot()
    assert [one.holder for one in attribute(read_of(records[0]), running)] == ["a"]
    sql(place, statement)
    # Neither by what is in memory nor by what is read anew; others are named as before.
    for source in (running, registry, Registry(place), Registry(place).snapshot()):
        with pytest.raises(UntrustedRegistryError, match="key 1, of '.'") as error:
            attribute(read_of(records[0]), source)
        assert str(records[0].key) not in str(error.value)
        assert [one.holder for one in attribute(read_of(records[3]), source)] == ["b"]


def test_the_record_is_as_good_as_its_whole_history(registry):
    registry.reinstate("c")
    registry.revoke("c")
    records = registry.list()
    named = [attribute(read_of(record), registry)[0] for record in records]
    assert [one.holder for one in named] == ["a", "b", "c", "b"]
    assert [one.revoked for one in named] == [record.revoked_at for record in records]
    assert [one.revoked is None for one in named] == [True, False, False, True]
    snapshot = registry.snapshot()
    registry.reinstate("c")  # what happened since is no tampering
    assert attribute(read_of(records[2]), snapshot)[0].revoked == records[2].revoked_at
    assert attribute(read_of(records[2]), registry)[0].revoked is None


def test_p_values_use_the_number_of_keys_ever_issued(registry, place):
    records, snapshot = registry.list(), registry.snapshot()
    registry.issue("d", MODEL)
    for source, issued in ((snapshot, 4), (registry, 5)):
        assert len(source) == issued
        assert attribute(read_of(records[0]), source)[0].p_value == pytest.approx(issued * 2**-128)
    sql(place, "DELETE FROM scalefp_keys WHERE id = 5")
    assert len(registry) == 5
    for use in (Registry.snapshot, lambda r: r.issue("e", MODEL)):
        with pytest.raises(UntrustedRegistryError, match="key 5 is missing|newest keys are"):
            use(Registry(place))
    sql(place, "INSERT INTO scalefp_keys SELECT id + 1, 'x', %s, issued_at, NULL "
               "FROM scalefp_keys WHERE id = 4", b"another key 1234")  # fmt: skip
    sql(place, "DELETE FROM scalefp_log WHERE seq = 7")
    with pytest.raises(UntrustedRegistryError, match="key 5 was never logged as issued"):
        Registry(place).snapshot()


@pytest.mark.parametrize("distance", [1, 12])
def test_a_planted_key_is_named_by_verify_and_names_nobody(registry, place, distance):
    key = registry.find("a")
    planted = key.bits
    planted[:distance] ^= 1
    events = [Event(registry.list()[0].issued_at, "issue", "mallory", Key.from_bits(planted))]
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patched:  # as if it were written with its entry in the log
        patched.setattr(audit, "refuse_near_keys", lambda *_: None)
        registry.add_history(events, model_digest=DIGEST, n_bits=128)
    message = f"key 1, of 'a', and key 5, of 'mallory' differ in only {distance} of 128 bits"
    with pytest.raises(UntrustedRegistryError, match=message):
        registry.verify()
    with pytest.raises(UntrustedRegistryError, match=f"in only {distance} of 128 .*") as error:
        attribute(read_of(registry.list()[0]), registry)
    assert "mallory" not in str(error.value) and "'a'" not in str(error.value)


# Rows of any content.

AT_LEAST = "UPDATE scalefp_keys SET {} = %s WHERE id = 2"
DAMAGED_ROWS = {
    "holder blob": (AT_LEAST.format("holder"), b"\xff\x00", "the holder of key 2 is not a name"),
    "holder empty": (AT_LEAST.format("holder"), "", "the holder of key 2 is not a name"),
    "holder line": (AT_LEAST.format("holder"), "a\nb", "the holder of key 2 is not a name"),
    "holder long": (AT_LEAST.format("holder"), "x" * 201, "the holder of key 2 is not a name"),
    "key text": (AT_LEAST.format("key"), "0123456789abcdef", "key 2, of 'b', has a wrong length"),
    "key number": (AT_LEAST.format("key"), 10**12, "key 2, of 'b', has a wrong length"),
    "key short": (AT_LEAST.format("key"), b"short", "key 2, of 'b', has a wrong length"),
    "issued blob": (AT_LEAST.format("issued_at"), b"\xff", "key 2, of 'b', was issued is not a"),
    "issued": (AT_LEAST.format("issued_at"), "yesterday", "key 2, of 'b', was issued is not a"),
    "revoked": (AT_LEAST.format("revoked_at"), "2026-13-31T12:00:00+00:00", "was revoked is not"),
    "bits": ("UPDATE scalefp_meta SET n_bits = %s", "many", "its key length is not 8 to 512 bits"),
    "digest": ("UPDATE scalefp_meta SET model_digest = %s", b"\xab" * 32, "the digest of its rel"),
    "check": ("UPDATE scalefp_meta SET master_check = %s", b"\xab", "check of its master secret"),
}
READS = {
    "list": Registry.list,
    "show": lambda registry: registry.show("b"),
    "search": lambda registry: registry.search(""),
    "history": lambda registry: list(registry.history()),
    "attribute": lambda registry: attribute(Reading([[1.0] * 128]), registry),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
@pytest.mark.parametrize(("statement", "value", "what"), DAMAGED_ROWS.values(), ids=DAMAGED_ROWS)
def test_a_row_that_holds_something_else_is_named(tmp_path, read, statement, value, what):
    place = str(tmp_path / "keys.db")  # PostgreSQL keeps to its types
    registry = Registry(place)
    registry.issue_many(["a", "b", "c"], MODEL)
    sql(place, statement, value)
    if "holder" in statement and read is READS["show"]:
        what = "no key was ever issued to 'b'"
    with pytest.raises(UserError, match=what):
        read(registry)
    with pytest.raises(UserError, match="tampered with or damaged"):
        registry.verify()


@pytest.mark.parametrize("column", ["holder", "issued_at", "revoked_at"])
@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_a_dropped_column_is_said(place, read, column):
    Registry(place).issue("b", MODEL)
    for index in ("scalefp_keys_active_holder", "ix_scalefp_keys_holder"):
        sql(place, f"DROP INDEX {index}")
    sql(place, f"ALTER TABLE scalefp_keys DROP COLUMN {column}")
    with pytest.raises(UserError, match="is damaged: (there is no such|a table or a) column"):
        read(Registry(place))
