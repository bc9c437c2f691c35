"""The registry on both databases: nothing twice, all or nothing, and what attribution is given."""

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import scalefp.registry.schema
from registries import DIGEST, MODEL, Config, Model, sql
from scalefp.attribution.evidence import Reading, attribute
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.registry.registry import Registry


@pytest.fixture
def registry(place):
    registry = Registry(place)
    registry.issue("recipient-a", model=MODEL)
    return registry


@pytest.fixture
def master(tmp_path):
    path = tmp_path / "master.key"
    path.touch(0o600)
    path.write_bytes(bytes(range(32)))
    return path


# Issuing, finding, revoking.


def test_issued_keys_come_back_with_holder_time_and_release(place):
    before = datetime.now(UTC) - timedelta(seconds=1)
    registry = Registry(place)
    keys = [registry.issue(holder, model=MODEL) for holder in ("b", "a")]
    assert len({*keys}) == 2 and all(key.n_bits == 128 for key in keys)
    again = Registry(place)  # from the database alone
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
def test_keys_of_any_length_are_stored(place, n_bits):
    registry, model = Registry(place), Model(config=Config(n_bits))
    key = registry.issue("a", model)
    assert registry.find("a") == key and key.n_bits == registry.n_bits == n_bits
    issued = registry.keys_and_holders()
    assert issued.packed.shape == (1, -(-n_bits // 8)) and issued.packed[0].tobytes() == key.bytes
    assert list(issued.holders) == ["a"] and issued.revoked == {}


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
    assert list(registry.keys_and_holders().revoked) == [0]
    named = attribute(Reading(2.0 * key.bits[None] - 1, DIGEST), registry)
    assert [(a.holder, a.key, a.matches) for a in named] == [("recipient-a", key, 128)]
    assert named[0].p_value == pytest.approx(2 * 2.0**-128)  # the revoked key counts among the N


def test_a_reinstated_key_is_as_good_as_before(registry):
    key = registry.find("recipient-a")
    with pytest.raises(UserError, match="'recipient-a' is active: there is nothing to do"):
        registry.reinstate("recipient-a")
    registry.revoke("recipient-a")
    record = registry.reinstate("recipient-a")
    assert (record.key, record.revoked_at) == (key, None)
    assert registry.find("recipient-a") == key
    registry.check_usable(key)
    with pytest.raises(UserError, match="has an active key already"):
        registry.issue("recipient-a", MODEL)


def test_only_the_latest_key_of_a_holder_is_reinstated(registry):
    registry.revoke("recipient-a")
    renewed = registry.issue("recipient-a", MODEL)
    with pytest.raises(UserError, match="is active"):
        registry.reinstate("recipient-a")
    registry.revoke("recipient-a")
    assert registry.reinstate("recipient-a").key == renewed
    assert [r.revoked_at is None for r in registry.show("recipient-a")] == [False, True]


def test_issue_many_is_all_or_nothing(registry):
    keys = registry.issue_many([f"h{i}" for i in range(300)], MODEL)
    assert [registry.find(f"h{i}") for i in (0, 299)] == [keys[0], keys[299]]
    issued = registry.keys_and_holders()
    assert issued.holders[1:] == [f"h{i}" for i in range(300)]
    assert np.array_equal(np.unpackbits(issued.packed[1:], axis=1), [key.bits for key in keys])
    head = registry.head()
    with pytest.raises(UserError, match="'h7' has an active key already"):
        registry.issue_many(["new", "h7"], MODEL)
    with pytest.raises(UserError, match="named twice"):
        registry.issue_many(["new", " new"], MODEL)
    assert registry.issue_many([], MODEL) == []
    assert (len(registry), registry.head()) == (301, head)


def test_batches_larger_than_one_statement(place, monkeypatch):
    monkeypatch.setattr(scalefp.registry.schema, "BATCH", 7)
    registry = Registry(place)
    registry.issue_many([f"h{i}" for i in range(20)], MODEL)
    assert list(registry.keys_and_holders().holders) == [f"h{i}" for i in range(20)]
    with pytest.raises(UserError, match="'h19' has an active key"):
        registry.issue_many([f"g{i}" for i in range(8)] + ["h19"], MODEL)


def test_every_short_key_is_given_exactly_once(place):
    registry, model = Registry(place), Model(config=Config(8))
    registry.issue_many([f"h{i}" for i in range(250)], model)
    for i in range(250, 256):
        registry.issue(f"h{i}", model)
    assert len({record.key for record in registry.list()}) == 256
    with pytest.raises(UserError, match="256 of all 256 are issued: use longer keys"):
        registry.issue("one too many", model)


def test_before_the_first_issue_there_is_no_release(place):
    registry = Registry(place)
    assert registry.model_digest is None and registry.n_bits is None
    assert registry  # truth means "there is one", and runs no query


def test_another_release_is_refused(registry):
    with pytest.raises(UserError, match="belongs to another release .*one registry per release"):
        registry.issue("b", Model(digest="cd" * 32))
    with pytest.raises(UserError, match="128 bits.*64 bits"):
        registry.issue("b", Model(config=Config(64)))
    assert len(registry) == 1


def test_unknown_holder_and_key_are_refused(registry):
    for call in (registry.find, registry.show, registry.revoke, registry.reinstate):
        with pytest.raises(UserError, match="no key was ever issued to 'nobody' in"):
            call("nobody")
    for key in (Key.random(), Key.random(64)):
        with pytest.raises(UserError, match=f"this {key.n_bits}-bit key was never issued") as error:
            registry.check_usable(key)
        assert str(key)[:6] not in str(error.value)


def test_equal_bytes_of_another_length_are_another_key(place):
    registry = Registry(place)
    key = registry.issue("a", Model(config=Config(12)))
    with pytest.raises(UserError, match="this 16-bit key was never issued"):
        registry.check_usable(Key(key.bytes, 16))


# Holders.


def test_holder_is_stripped_and_compared_in_one_unicode_form(place):
    registry = Registry(place)
    key = registry.issue("  Ecole Cafe\u0301 ", MODEL)
    assert registry.find("Ecole Caf\u00e9") == key
    assert registry.list()[0].holder == "Ecole Caf\u00e9"
    with pytest.raises(UserError, match="has an active key already: revoke it first"):
        registry.issue("Ecole Caf\u00e9", MODEL)


def test_a_holder_is_data_not_sql(registry):
    holder = "x'); DROP TABLE scalefp_keys; --"
    key = registry.issue(holder, MODEL)
    assert registry.find(holder) == key and len(registry) == 2


SEARCHED = ["Alice", "alan", "Mallory", "50%_off\\", "\u00c9cole", "\u00e9coles", "Stra\u00dfe"]


@pytest.mark.parametrize(
    ("text", "prefix", "found"),
    [
        ("al", False, ["Alice", "alan", "Mallory"]),
        ("al", True, ["Alice", "alan"]),
        ("AL", True, ["Alice", "alan"]),
        ("lor", False, ["Mallory"]),
        ("", False, SEARCHED),
        ("%", False, ["50%_off\\"]),
        ("_", False, ["50%_off\\"]),
        ("\\", False, ["50%_off\\"]),
        ("50", True, ["50%_off\\"]),
        ("\u00e9COLE", False, ["\u00e9coles"]),  # only a to z in either case
        ("E\u0301cole", True, ["\u00c9cole"]),  # in the stored Unicode form
        ("\u00df", False, ["Stra\u00dfe"]),
        ("nobody", False, []),
        ("a" * 100_000, False, []),
        ("a\x00", False, []),
        ("\udc80", False, []),
    ],
)
def test_search(place, text, prefix, found):
    registry = Registry(place)
    registry.issue_many(SEARCHED, MODEL)
    assert [record.holder for record in registry.search(text, prefix=prefix)] == found


def test_search_finds_revoked_keys_and_goes_by_pages(registry):
    registry.revoke("recipient-a")
    key = registry.issue("recipient-a", MODEL)
    registry.issue_many(["recipient-b", "recipient-c"], MODEL)
    found = registry.search("RECIPIENT")
    assert found == registry.list() and found[1].key == key
    assert registry.search("recip", skip=1, most=2) == found[1:3]
    assert registry.search("recip", skip=3) == found[3:]
    assert registry.search("recip", most=0) == []


# Keys for attribution.


def state(registry):
    issued = registry.keys_and_holders()
    return issued.packed.tolist(), list(issued.holders), issued.revoked


def test_keys_for_attribution_follow_every_change_of_others(registry, place):
    first = registry.keys_and_holders()
    assert registry.keys_and_holders() is first  # not read again
    other = Registry(place)
    changes = [
        lambda: other.issue("b", MODEL),
        lambda: other.revoke("recipient-a"),
        lambda: other.reinstate("recipient-a"),
        lambda: other.issue_many(["\u00c9", "d", "e"], MODEL),
        lambda: (other.revoke("d"), other.revoke("b"), other.issue("b", MODEL)),
        lambda: (other.revoke("e"), other.reinstate("e")),
    ]
    for change in changes:
        change()
        assert state(registry) == state(Registry(place))  # what a fresh reader sees
    times = {i: r.revoked_at for i, r in enumerate(other.list()) if r.revoked_at}
    assert state(registry)[1:] == (["recipient-a", "b", "\u00c9", "d", "e", "b"], times)
    assert list(times) == [1, 3]
    assert list(first.holders) == ["recipient-a"] and first.revoked == {}


def test_what_was_read_already_is_not_read_again(registry, place):
    registry.keys_and_holders()
    sql(place, "UPDATE scalefp_keys SET holder = 'unread'")
    registry.issue("b", MODEL)
    assert list(registry.keys_and_holders().holders) == ["recipient-a", "b"]


def test_a_registry_put_in_the_place_of_another_is_read_anew(place, registry, tmp_path):
    assert len(registry.keys_and_holders().packed) == 1
    for table in ("keys", "log", "meta"):
        sql(place, f"DROP TABLE scalefp_{table}")
    fresh = Registry(place)
    keys = fresh.issue_many(["x", "y"], MODEL)
    assert state(registry) == ([list(key.bytes) for key in keys], ["x", "y"], {})


def test_missing_rows_are_noticed(registry, place):
    registry.issue_many(["b", "c"], MODEL)
    sql(place, "DELETE FROM scalefp_keys WHERE holder = 'b'")
    with pytest.raises(
        UserError, match="damaged: key 2 is missing in it .`scalefp registry verify`"
    ):
        registry.keys_and_holders()


def test_damaged_keys_are_noticed(registry, place):
    sql(place, "UPDATE scalefp_keys SET key = %s", b"short")
    for read in (Registry.keys_and_holders, Registry.list, lambda r: r.find("recipient-a")):
        with pytest.raises(UserError, match="key 1, of .recipient-a., has a wrong length"):
            read(registry)


# Derived keys.


def test_derived_keys_follow_from_secret_release_holder_and_number(place, master):
    registry = Registry(place, master=master)
    keys = registry.issue_many(["a", "b"], MODEL)
    registry.revoke("a")
    keys.append(registry.issue("a", MODEL))
    assert len(set(keys)) == 3
    again = Registry(place, master=master)
    again.revoke("b")
    again.issue("b", MODEL)
    assert [record.holder for record in again.list()] == ["a", "b", "a", "b"]
    assert again.show("a")[1].key == keys[2]


def test_a_lost_registry_is_rebuilt_from_secret_and_holders(place, master, tmp_path):
    lost = Registry(tmp_path / "lost.db", master=master)
    lost.issue_many(["b", "a", "\u00c9"], MODEL)
    lost.revoke("a")
    lost.issue("a", MODEL)
    lost.revoke("\u00c9")
    holders = [record.holder for record in lost.list()]
    rebuilt = Registry(place, master=master)
    keys = rebuilt.rebuild(holders, MODEL)
    assert [record.key for record in rebuilt.list()] == [r.key for r in lost.list()] == keys
    assert rebuilt.find("a") == lost.find("a")
    # Only that the last key was revoked is not in the list.
    assert [r.revoked_at is None for r in rebuilt.list()] == [True, False, True, True]
    assert rebuilt.log()[0].action == "rebuild"
    assert rebuilt.verify().issued == 4
    # It goes on as the lost one would have.
    rebuilt.revoke("\u00c9")
    assert rebuilt.issue("\u00c9", MODEL) == lost.issue("\u00c9", MODEL)
    with pytest.raises(UserError, match="holds keys already: rebuild into a new one"):
        rebuilt.rebuild(holders, MODEL)
    assert len(rebuilt) == 5
    assert Registry(tmp_path / "none.db", master=master).rebuild([], MODEL) == []


def test_rebuilding_random_keys_is_refused(place):
    with pytest.raises(UserError, match="only derived keys can be rebuilt"):
        Registry(place).rebuild(["a"], MODEL)


def test_a_registry_derives_all_its_keys_from_one_secret_or_none(place, master, tmp_path):
    derived = Registry(place, master=master)
    derived.issue("a", MODEL)
    with pytest.raises(UserError, match="are derived from a master secret: give its file"):
        Registry(place).issue("b", MODEL)
    other = tmp_path / "other.key"
    other.touch(0o600)
    other.write_bytes(b"x" * 32)
    with pytest.raises(UserError, match="derived from another master secret than the one given"):
        Registry(place, master=other).issue("b", MODEL)
    drawn = tmp_path / "drawn.db"
    Registry(drawn).issue("a", MODEL)
    with pytest.raises(UserError, match="draws its keys at random: leave the master secret out"):
        Registry(drawn, master=master).issue("b", MODEL)
    # Reading and revoking need no secret.
    assert Registry(place).find("a") == derived.find("a")
    assert Registry(place).revoke("a").revoked_at is not None


def test_no_two_holders_get_one_derived_key(place, master):
    registry, model = Registry(place, master=master), Model(config=Config(8))
    holders = [f"h{i}" for i in range(30)]  # h24 and h27 get the same of 256 keys
    with pytest.raises(UserError, match="8-bit key derived for .h27. is another holder's"):
        registry.issue_many(holders, model)
    for holder in holders:
        try:
            registry.issue(holder, model)
        except UserError as error:
            assert "is another holder's" in str(error)
    issued = [record.key for record in registry.list()]
    assert len(issued) == len(set(issued)) == 29
