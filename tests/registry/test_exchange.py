"""Export and import: nothing is lost, and of a file with one bad line nothing is taken."""

import csv
import hashlib
import io
import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registries import DIGEST, MODEL, Config, Model, sql
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.registry.exchange import FIELDS, export_registry, import_registry
from scalefp.registry.registry import Registry

suffixes = pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
AT = "2026-01-31T12:00:00+00:00"
KEYS = [hashlib.md5(bytes([i])).hexdigest() for i in range(9)]  # as far apart as drawn keys
HOLDERS = ["a", 'says "x, y"', "\u00c9cole", "=1+1", "50%_\\", "l" * 200]


def row(action="issue", holder="a", key=KEYS[0], at=AT, n_bits=128, digest=DIGEST):
    return [at, action, holder, key, n_bits, digest]


def text(rows, suffix):
    """A file of rows, written independently of the module under test."""
    if suffix == ".jsonl":
        return "".join(json.dumps(dict(zip(FIELDS, r, strict=True))) + "\n" for r in rows)
    content = io.StringIO()
    csv.writer(content).writerows([FIELDS, *rows])
    return content.getvalue()


def import_rows(folder, rows, suffix=".jsonl", place=None, **options):
    path = folder / f"rows{suffix}"
    path.write_text(text(rows, suffix), newline="")
    registry = Registry(place or folder / "imported.db", **options)
    import_registry(registry, path)
    return registry


def history(registry):
    return [event[:4] for event in registry.history()]


@pytest.fixture
def busy(tmp_path):
    """A registry in which everything has happened."""
    registry = Registry(tmp_path / "busy.db")
    registry.issue_many(HOLDERS, MODEL)
    registry.revoke("a")
    registry.issue("a", MODEL)
    registry.revoke("=1+1")
    registry.reinstate("=1+1")
    registry.revoke("50%_\\")
    return registry


# Round trips.


@suffixes
def test_all_that_happened_comes_back(busy, place, tmp_path, suffix):
    out = tmp_path / f"keys{suffix}"
    assert export_registry(busy, out) == 11
    registry = Registry(place)
    assert import_registry(registry, out) == 7
    assert registry.list() == busy.list()  # holders, keys, times, revocations, release
    assert history(registry) == history(busy)
    assert (registry.n_bits, registry.model_digest) == (128, DIGEST)
    log = registry.log()
    assert (log[0].action, log[0].holder, len(log)) == ("import", None, 12)
    assert registry.verify().issued == 7
    # It goes on from there: what was revoked is issued anew, what is active is not.
    registry.reinstate("50%_\\")
    registry.issue("b", MODEL)
    with pytest.raises(UserError, match="'a' has an active key already"):
        registry.issue("a", MODEL)
    again = tmp_path / f"again{suffix}"
    assert export_registry(registry, again) == 13
    assert again.read_text().startswith(out.read_text())


FORMULAS = ["=1+1", "'=1+1", "''@x", "+1", "-1", "@sum(a)", "\uff1d1", "'", "'a", "a=1", '="x",y']


def test_a_spreadsheet_finds_no_formula_and_every_name_comes_back(tmp_path):
    registry, imported = Registry(tmp_path / "keys.db"), Registry(tmp_path / "imported.db")
    registry.issue_many(FORMULAS, MODEL)
    export_registry(registry, tmp_path / "keys.csv")
    with open(tmp_path / "keys.csv", newline="", encoding="utf-8") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d")) for cell in cells)
    assert "'=1+1" in cells and "a=1" in cells and "'a" in cells
    import_registry(imported, tmp_path / "keys.csv")
    assert imported.list() == registry.list()


@suffixes
@pytest.mark.parametrize("n_bits", [8, 13, 512])
def test_keys_of_any_length_come_back(tmp_path, suffix, n_bits):
    registry = Registry(tmp_path / "keys.db")
    registry.issue_many(["a", "b"], Model(config=Config(n_bits)))
    export_registry(registry, tmp_path / f"keys{suffix}")
    imported = Registry(tmp_path / "imported.db")
    import_registry(imported, tmp_path / f"keys{suffix}")
    assert imported.list() == registry.list() and imported.n_bits == n_bits


def test_a_file_joins_a_registry_that_has_other_keys(place, busy, tmp_path):
    export_registry(busy, tmp_path / "keys.csv")
    registry = Registry(place)
    registry.issue_many(["x", "y"], MODEL)
    registry.issue("l" * 200, MODEL)
    registry.revoke("l" * 200)  # so that the file may give this holder another
    cached = registry.keys_and_holders()
    import_registry(registry, tmp_path / "keys.csv")
    assert [r.key for r in registry.list()[3:]] == [r.key for r in busy.list()]
    issued = registry.keys_and_holders()
    assert len(cached.packed) == 3 and len(issued.packed) == 10
    assert list(issued.holders)[3:] == [record.holder for record in busy.list()]
    times = [issued.revoked.get(index) for index in range(3, 10)]
    assert times == [record.revoked_at for record in busy.list()]
    assert registry.verify().issued == 10


def test_the_file_is_for_its_owner_alone_and_never_overwritten(busy, tmp_path):
    out = tmp_path / "keys.csv"
    export_registry(busy, out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    content = out.read_bytes()
    with pytest.raises(UserError, match="keys.csv exists already: choose another file"):
        export_registry(busy, out)
    assert out.read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == ["busy.db", "keys.csv"]


def test_a_failed_export_leaves_no_file(busy, tmp_path):
    sql(str(tmp_path / "busy.db"), "UPDATE scalefp_keys SET key = %s WHERE id = 5", b"short")
    with pytest.raises(UserError):
        export_registry(busy, tmp_path / "keys.csv")
    with pytest.raises(UserError, match="there is no registry at"):
        export_registry(Registry(tmp_path / "none.db"), tmp_path / "keys.csv")
    with pytest.raises(UserError, match="cannot write .*keys.csv"):
        export_registry(busy, tmp_path / "missing" / "keys.csv")
    assert os.listdir(tmp_path) == ["busy.db"]


def test_the_name_decides_the_format(busy, tmp_path):
    for name in ("keys", "keys.txt", "keys.json"):
        with pytest.raises(UserError, match=f"{name} must be named .jsonl"):
            export_registry(busy, tmp_path / name)
        (tmp_path / name).write_text("x")
        with pytest.raises(UserError, match=f"{name} must be named .jsonl"):
            import_registry(busy, tmp_path / name)


# Files of others.


@suffixes
def test_times_are_kept_in_utc_and_names_in_one_form(tmp_path, suffix):
    rows = [
        row(holder=" E\u0301cole ", at="2026-01-31T12:00:00Z"),
        row(holder="b", key="ab" * 16, at="2026-01-31T12:00:00.9+05:30"),
        row("revoke", "b", "AB" * 16, at="2026-02-01 01:00:00-01:00"),
    ]
    records = import_rows(tmp_path, rows, suffix).list()
    assert [(r.holder, r.issued_at, r.revoked_at) for r in records] == [
        ("\u00c9cole", "2026-01-31T12:00:00+00:00", None),
        ("b", "2026-01-31T06:30:00+00:00", "2026-02-01T02:00:00+00:00"),
    ]


def test_a_byte_order_mark_and_any_line_end_are_read(tmp_path):
    for name, end in (("a", "\r\n"), ("b", "\n")):
        path = tmp_path / f"{name}.csv"
        content = text([row(holder=name, key=KEYS[len(end)])], ".csv").replace("\r\n", end)
        path.write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert import_registry(Registry(tmp_path / "keys.db"), path) == 1


ISSUED = row()
BAD_ROWS = {
    "time": ([row(at="yesterday")], 1, "must be ISO 8601 with a time zone"),
    "no zone": ([row(at="2026-01-31T12:00:00")], 1, "must be ISO 8601 with a time zone"),
    "year 0": ([row(at="0001-01-01T00:00:00+14:00")], 1, "must be ISO 8601"),
    "action": ([row("give")], 1, "the action must be one of issue, revoke, reinstate"),
    "marker": ([row("import")], 1, "the action must be one of"),
    "holder": ([row(holder=" ")], 1, "the holder is empty"),
    "long holder": ([row(holder="x" * 201)], 1, "201 characters"),
    "key digit": ([row(key="g" * 32)], 1, "position 1, which is not"),
    "key length": ([row(key="0" * 31)], 1, "32 hexadecimal digits, this one has 31"),
    "key pads": ([row(key="0001", n_bits=13)], 1, "3 zero pad bits"),
    "bits": ([row(n_bits=1024)], 1, "8 to 512 bits"),
    "bits as text": ([row(n_bits="many")], 1, "n_bits must be a whole number"),
    "digest": ([row(digest="AB" * 32)], 1, "model_digest must be 64 hexadecimal digits"),
    "short digest": ([row(digest="ab")], 1, "model_digest must be 64"),
    "two releases": ([ISSUED, row(holder="b", key=KEYS[1], digest="cd" * 32)], 2, "first line's"),
    "two lengths": ([ISSUED, row(holder="b", key="0" * 16, n_bits=64)], 2, "another release"),
    "same key": ([ISSUED, row(holder="b")], 2, "this key is issued in a line before"),
    "same line": ([ISSUED, ISSUED], 2, "this key is issued in a line before"),
    "two keys": ([ISSUED, row(key=KEYS[1])], 2, "'a' has an active key already, by a line before"),
    "unknown": ([row("revoke")], 1, "no line before issues this key to 'a'"),
    "not theirs": ([ISSUED, row("revoke", "b")], 2, "no line before issues this key to 'b'"),
    "revoked twice": ([ISSUED, row("revoke"), row("revoke")], 3, "is revoked already"),
    "active": ([ISSUED, row("reinstate")], 2, "only the latest key of a holder"),
    "not latest": (
        [ISSUED, row("revoke"), row(key=KEYS[1]), row("revoke", key=KEYS[1]), row("reinstate")],
        5,
        "only the latest key of a holder",
    ),
}


@suffixes
@pytest.mark.parametrize(("rows", "line", "message"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_line_is_named_and_nothing_is_imported(tmp_path, rows, line, message, suffix):
    line += suffix == ".csv"  # behind the names of the fields
    with pytest.raises(UserError, match=f"rows{suffix}, line {line}: .*{message}") as error:
        import_rows(tmp_path, rows, suffix)
    assert "nothing was imported" in str(error.value)
    assert os.listdir(tmp_path) == [f"rows{suffix}"]  # not even a registry
    assert not any(key in str(error.value) for key in KEYS)


HEADER = ",".join(FIELDS)
GOOD = {suffix: text([ISSUED], suffix).splitlines()[-1] for suffix in (".jsonl", ".csv")}
BAD_FILES = {
    "empty": (b"", "holds no key"),
    "only names.csv": (HEADER, "holds no key"),
    "no names.csv": (GOOD[".csv"], f"line 1: the first line must be {HEADER}"),
    "other order.csv": (",".join(reversed(FIELDS)), "line 1: the first line must be"),
    "few fields.csv": (f"{HEADER}\n{AT},issue\n", "line 2: 2 fields, but 6 are needed"),
    "more fields.csv": (f"{HEADER}\n{GOOD['.csv']},x\n", "line 2: 7 fields, but 6"),
    "blank line.csv": (f"{HEADER}\n\n{GOOD['.csv']}\n", "line 2: 0 fields"),
    "open quote.csv": (f'{HEADER}\n"{GOOD[".csv"]}\n', "line 2: this is not a line of CSV"),
    "nul.csv": (f"{HEADER}\n{AT},issue,a\x00,{KEYS[0]},128,{DIGEST}", "line 2: "),
    "blank line": ("\n", "line 1: this is not a JSON object"),
    "no json": (f"{GOOD['.jsonl']}\nnonsense", "line 2: this is not a JSON object"),
    "list": ("[]", "line 1: this is not a JSON object"),
    "list of pairs": ('[["at", 1]]', "line 1: this is not a JSON object"),
    "number": ("1", "line 1: this is not a JSON object"),
    "nested": ("[" * 5000, "line 1: this is not a JSON object"),
    "large number": ('{"at":' + "9" * 5000 + "}", "line 1: "),
    "no field": ("{}", "line 1: the fields must be at, action"),
    "another field": (GOOD[".jsonl"][:-1] + ', "x": 1}', "line 1: the fields must be"),
    "field twice": (GOOD[".jsonl"][:-1] + ', "holder": "b"}', "line 1: .*each once"),
    "number as text": (GOOD[".jsonl"].replace("128", '"128"'), "line 1: n_bits must be a whole"),
    "true": (GOOD[".jsonl"].replace("128", "true"), "line 1: n_bits must be a whole"),
    "null": (GOOD[".jsonl"].replace('"a"', "null"), "line 1: every field but n_bits must be text"),
    "object": (GOOD[".jsonl"].replace('"a"', "{}"), "line 1: every field but n_bits must be text"),
    "surrogate": (GOOD[".jsonl"].replace('"a"', '"\\ud800"'), "line 1: .*cannot be printed"),
    "latin-1": (GOOD[".jsonl"].replace('"a"', '"\xe9"').encode("latin-1"), "line 1: this is not"),
    "long line": (f"{GOOD['.jsonl']}\n{'x' * 10**6}", "line 2: more than 8192 bytes"),
    "binary": (bytes(range(256)), "line "),
}


@pytest.mark.parametrize(("name", "content", "message"), [(k, *v) for k, v in BAD_FILES.items()])
def test_a_malformed_file_is_refused_whole(tmp_path, name, content, message):
    path = tmp_path / (name if name.endswith(".csv") else f"{name}.jsonl")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        import_registry(Registry(tmp_path / "keys.db"), path)
    assert os.listdir(tmp_path) == [path.name]


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(UserError, match="cannot read .*keys.csv: No such file"):
        import_registry(Registry(tmp_path / "keys.db"), tmp_path / "keys.csv")


# What the registry has already.


def test_what_the_registry_has_is_refused_by_line_and_nothing_is_imported(place, tmp_path):
    registry = import_rows(tmp_path, [ISSUED, row(holder="b", key=KEYS[1])], place=place)
    before = registry.list(), registry.head()
    new = row(holder="new", key=KEYS[5])
    for rows, message in (
        ([new, row(holder="c")], "line 2: this key was issued in the registry before"),
        ([new, row(key=KEYS[6])], "line 2: 'a' has an active key already"),
        ([row(digest="cd" * 32)], "belongs to another release"),
        ([row(key="0" * 16, n_bits=64)], "belongs to another release"),
    ):
        with pytest.raises(UserError, match=message):
            import_rows(tmp_path, rows, place=place)
        assert (registry.list(), registry.head()) == before


def flipped(key, count):
    """A key that differs in so many bits."""
    return f"{int(key, 16) ^ (1 << count) - 1:032x}"


@pytest.mark.parametrize("distance", [1, 3, 20])
def test_a_key_made_to_resemble_another_is_not_imported(place, tmp_path, distance):
    planted = row(holder="mallory", key=flipped(KEYS[0], distance))
    message = f"key 1, of 'a', and key 3, of 'mallory' differ in only {distance} of 128 bits"
    with pytest.raises(UserError, match=message) as error:
        import_rows(tmp_path, [ISSUED, row(holder="b", key=KEYS[1]), planted], place=place)
    assert not any(key in str(error.value) for key in (KEYS[0], planted[3]))
    # Neither beside a key that the registry has, nor in its own file; and nothing is kept of it.
    registry = import_rows(tmp_path, [ISSUED], place=place)
    with pytest.raises(UserError, match="key 1, of 'a', and key 2, of 'mallory' differ"):
        import_rows(tmp_path, [planted], place=place)
    assert registry.verify().issued == 1
    # 64 bits apart is what chance gives.
    import_rows(tmp_path, [row(holder="c", key=flipped(KEYS[0], 64))], place=place)
    assert registry.verify().issued == 2


def test_short_keys_may_be_near(tmp_path):
    rows = [row(holder=f"h{i}", key=f"{i:02x}", n_bits=8) for i in range(256)]
    assert import_rows(tmp_path, rows).verify().issued == 256


def test_derived_keys_are_checked_against_the_secret(tmp_path):
    master = tmp_path / "master.key"
    master.touch(0o600)
    master.write_bytes(b"s" * 32)
    derived = Registry(tmp_path / "derived.db", master=master)
    derived.issue_many(["a", "b"], MODEL)
    derived.revoke("a")
    derived.issue("a", MODEL)
    export_registry(derived, tmp_path / "keys.jsonl")
    restored = Registry(tmp_path / "restored.db", master=master)
    import_registry(restored, tmp_path / "keys.jsonl")
    assert restored.list() == derived.list()
    derived.revoke("b")
    restored.revoke("b")
    assert restored.issue("b", MODEL) == derived.issue("b", MODEL)
    with pytest.raises(UserError, match="line 1: the master secret derives another key for 'c'"):
        import_rows(tmp_path, [row(holder="c")], place=tmp_path / "restored.db", master=master)
    with pytest.raises(UserError, match="are derived from a master secret: give its file"):
        import_rows(tmp_path, [row(holder="c")], place=tmp_path / "restored.db")
    assert restored.verify().issued == 4


# Any file at all.

actions = st.sampled_from(["issue", "revoke", "reinstate"])
rows = st.builds(row, actions, st.sampled_from("abc"), st.sampled_from(KEYS[:4]))


@given(st.lists(rows, max_size=12))
def test_a_history_is_taken_if_it_could_have_happened(tmp_path_factory, happened):
    folder = tmp_path_factory.mktemp("history")
    issued, holder_of, latest, active = [], {}, {}, {}
    possible = bool(happened)
    for _, action, holder, key, *_ in happened:
        theirs = holder_of.get(key) == holder
        possible &= {
            "issue": key not in holder_of and holder not in active,
            "revoke": theirs and active.get(holder) == key,
            "reinstate": theirs and holder not in active and latest[holder] == key,
        }[action]
        if not possible:
            break
        if action == "issue":
            issued.append(key)
            holder_of[key] = holder
        if action == "revoke":
            del active[holder]
        else:
            active[holder] = latest[holder] = key
    try:
        registry = import_rows(folder, happened)
    except UserError:
        assert not possible
    else:
        assert possible
        records = registry.list()
        assert [str(record.key) for record in records] == issued
        assert {r.holder: str(r.key) for r in records if r.revoked_at is None} == active
        assert history(registry) == [
            (at, action, holder, Key.from_hex(key)) for at, action, holder, key, *_ in happened
        ]


@given(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)))
def test_any_bytes_are_refused_in_one_sentence(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("bytes")
    for name, start in (("x.jsonl", b""), ("x.csv", HEADER.encode() + b"\n")):
        (folder / name).write_bytes(start + content)
        with pytest.raises(UserError, match="line|holds no key"):
            import_registry(Registry(folder / "keys.db"), folder / name)
    assert not (folder / "keys.db").exists()
