"""Holders: names as they are stored, files of names, and many names in little memory."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registries import MODEL
from scalefp.errors import UserError
from scalefp.registry.exchange import import_registry
from scalefp.registry.holders import Holders, LookalikeError, clean_holder, read_holders
from scalefp.registry.registry import Registry


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
def test_bad_holder_is_refused_before_anything_is_created(tmp_path, holder, message):
    path = tmp_path / "keys.db"
    with pytest.raises(UserError, match=message):
        Registry(path).issue(holder, MODEL)
    assert not path.exists()


def test_clean_names_are_stripped_and_in_one_unicode_form():
    assert clean_holder(" E\u0301cole \n") == "\u00c9cole"
    assert clean_holder("x" * 200) == "x" * 200


# Look-alikes.

ALIKE = [
    ("Alice", "alice"),
    ("paypal", "p\u0430yp\u0430l"),  # Cyrillic a
    ("\u0421\u041e\u0421\u041e", "coco"),  # Cyrillic throughout
    ("nova", "n\u03bfva"),  # Greek omicron
    ("Lab 1", "\uff2c\uff41\uff42 1"),  # full width
    ("office", "o\ufb03ce"),  # a ligature
    ("Stra\u00dfe", "STRASSE"),
]


@pytest.mark.parametrize(("name", "other"), ALIKE + [pair[::-1] for pair in ALIKE])
def test_a_name_that_looks_like_another_holders_is_refused(place, name, other):
    registry = Registry(place)
    key = registry.issue(name, MODEL)
    head = registry.head()
    for names in ([other], ["new", other]):
        with pytest.raises(LookalikeError, match="looks like") as error:
            registry.issue_many(names, MODEL)
        assert str(error.value).isascii() and ascii(other) in str(error.value)
    with pytest.raises(LookalikeError):
        registry.issue_many(["x", "X"], MODEL)
    assert registry.head() == head
    # The holder goes on under the same name.
    registry.revoke(name)
    assert registry.issue(name, MODEL) != key


def test_names_of_one_script_and_different_looks_are_free(place, caplog):
    names = [
        "alice",
        "alice2",
        "\u0410\u043d\u043d\u0430",
        "\u674e\u96f7",
        "lab0",
        "labo",
        "\u00c9cole",
        "Ecole",
    ]
    Registry(place).issue_many(names, MODEL)
    assert [record.holder for record in Registry(place).list()] == names
    assert not caplog.messages


def test_mixed_scripts_are_said_by_code_points(tmp_path, caplog):
    Registry(tmp_path / "keys.db").issue("p\u0430ypal", MODEL)
    assert caplog.messages == [
        "the holder 'p\\u0430ypal' mixes Cyrillic and Latin letters, some of which look alike: is "
        "it meant so?"
    ]


@pytest.mark.parametrize("char", ["\u3164", "\u115f", "\u2800", "\ufe0f", "\u034f", "\U000e0101"])
def test_invisible_characters_are_refused_at_issue(tmp_path, char):
    with pytest.raises(LookalikeError, match="has invisible characters") as error:
        Registry(tmp_path / "keys.db").issue(f"a{char}b", MODEL)
    assert str(error.value).isascii()


@pytest.mark.parametrize(
    "char", ["\u200b", "\u202e", "\u2066", "\ufeff", "\u00ad", "\U000e0041", "\u0378"]
)
def test_control_format_and_unassigned_characters_are_refused(char):
    with pytest.raises(UserError, match="cannot be printed") as error:
        clean_holder(f"a{char}b")
    assert char not in str(error.value)


# Files of names.


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("a\nb c\n", ["a", "b c"]),
        ("a\r\nb", ["a", "b"]),
        ("\ufeff\u00c9cole\n\n  \n b \n", ["\u00c9cole", "b"]),
        ("a\na\n", ["a", "a"]),
        ('"a, b"\n', ['"a, b"']),
    ],
)
def test_a_file_names_one_holder_a_line(tmp_path, content, names):
    path = tmp_path / "names.txt"
    path.write_bytes(content.encode())
    assert read_holders(path) == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no holder"),
        (b"\n \n", "names no holder"),
        (b"a\nb\tc\n", "names.txt, line 2: .*cannot be printed"),
        (b"a\n\n" + b"x" * 201, "names.txt, line 3: .*201 characters"),
        (b"a\n" + b"x" * 10**6, "names.txt, line 2: more than 800 bytes"),
        (b"a\n\xff\n", "names.txt, line 2: this is not UTF-8"),
    ],
)
def test_bad_files_are_refused_by_line(tmp_path, content, message):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_holders(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (read_holders, lambda path: import_registry(Registry(tmp_path / "keys.db"), path)):
        name = tmp_path / ("pipe" if read is read_holders else "pipe.csv")
        if not name.exists():
            os.mkfifo(name)
        with pytest.raises(UserError, match="it is a named pipe, not a file"):
            read(name)


def test_unreadable_files_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.txt"):
        with pytest.raises(UserError, match=f"cannot read {path}"):
            read_holders(path)


# Many names.

names = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=12)


@given(st.lists(names, max_size=4))
def test_many_names_are_a_sequence_like_any_other(parts):
    expected = [name for part in parts for name in part]
    holders = Holders.joined([Holders(part) for part in parts])
    assert len(holders) == len(expected)
    assert list(holders) == expected
    assert [holders[i] for i in range(-len(expected), 0)] == expected
    assert holders[1:-1] == expected[1:-1] and holders[::-2] == expected[::-2]
    for beyond in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            holders[beyond]
