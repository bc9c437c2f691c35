"""The audit log on both databases: an intact one verifies, any change to log or keys is named."""

import re

import pytest

from registries import DIGEST, MODEL, sql
from scalefp.errors import UserError
from scalefp.key import Key
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
