"""Keys: bits, bytes and digits are one value; the secret never shows by accident."""

import pickle
import traceback

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalefp.errors import UserError
from scalefp.key import MAX_BITS, MIN_BITS, Key, hkdf_expand, hkdf_extract

HEX = "00112233445566778899aabbccddeeff"
bit_rows = st.lists(st.integers(0, 1), min_size=MIN_BITS, max_size=MAX_BITS)


def test_bit_zero_is_the_most_significant_bit_of_the_first_digit():
    key = Key.from_hex("8001")
    assert key.n_bits == 16
    assert key.bits.tolist() == [1] + [0] * 14 + [1]
    assert key.bits.dtype == np.uint8
    assert key.bytes == b"\x80\x01"


@given(bit_rows)
def test_bits_digits_and_bytes_round_trip_at_every_length(bits):
    key = Key.from_bits(bits)
    assert key.bits.tolist() == bits
    assert key.n_bits == len(bits)
    assert len(str(key)) == -(-len(bits) // 4)
    assert len(key.bytes) == -(-len(bits) // 8)
    # The digits are the number the bits spell, shifted up by the pad bits of the last digit.
    number = int("".join(map(str, bits)), 2) << (-len(bits) % 4)
    assert int(str(key), 16) == number
    assert Key.from_hex(str(key), len(bits)) == key
    assert Key(key.bytes, key.n_bits) == key
    assert pickle.loads(pickle.dumps(key)) == key
    assert hash(Key.from_bits(bits)) == hash(key)


@given(st.integers(MIN_BITS, MAX_BITS))
def test_random_keys_have_the_asked_length_and_zero_pads(n_bits):
    key = Key.random(n_bits)
    assert key.bits.shape == (n_bits,)
    assert Key.from_hex(str(key), n_bits) == key


def test_random_bits_are_fair_and_keys_differ():
    keys = [Key.random(13) for _ in range(4000)]
    means = np.mean([key.bits for key in keys], axis=0)
    assert np.abs(means - 0.5).max() < 7 * 0.5 / np.sqrt(len(keys))  # seven sigma, all 13 bits
    assert len({Key.random() for _ in range(1000)}) == 1000
    assert Key.random().n_bits == 128


def test_hex_ignores_case_and_surrounding_space():
    assert Key.from_hex(f"  {HEX.upper()}\n") == Key.from_hex(HEX)
    assert str(Key.from_hex(HEX.upper())) == HEX
    assert Key.from_hex(HEX, 128).n_bits == 128


def test_keys_of_different_length_differ_even_with_equal_bytes():
    assert Key(b"\xf0\x00", 12) != Key(b"\xf0\x00", 16)
    assert Key.from_hex("f00", 10) != Key.from_hex("f00", 12)


def test_key_is_immutable_and_bits_are_a_fresh_array():
    key = Key.from_hex(HEX)
    with pytest.raises(AttributeError):
        key.n_bits = 64
    key.bits[:] = 1
    assert str(key) == HEX
    assert key.bits.flags.writeable


@pytest.mark.parametrize("value", [[True, False] * 8, np.tile([1.0, 0.0], 8), (1, 0) * 8])
def test_from_bits_takes_any_kind_of_zero_and_one(value):
    assert str(Key.from_bits(value)) == "aaaa"


def test_repr_shows_a_digest_in_place_of_the_key():
    key = Key.from_hex(HEX)
    # sha256 of the 16 bytes, first 8 digits; reference from coreutils' sha256sum.
    assert repr(key) == "Key(128 bits, sha256:a8faed6a)"
    try:
        raise RuntimeError([key], {"key": key})
    except RuntimeError:
        text = traceback.format_exc()
    assert HEX not in text and key.bytes.hex()[:6] not in text


@pytest.mark.parametrize(
    ("text", "n_bits", "message"),
    [
        ("", None, "the key is empty"),
        ("   ", 128, "the key is empty"),
        (HEX[:-1] + "g", 128, "has 'g' at position 32, which is not a hexadecimal digit"),
        ("0x" + HEX, None, "has 'x' at position 2"),
        (HEX[:16] + " " + HEX[16:], None, "has ' ' at position 17"),
        ("\uff11" * 32, None, "at position 1"),  # int() would take full-width digits
        (HEX[:-2], 128, "a 128-bit key has 32 hexadecimal digits, this one has 30"),
        (HEX + "0", 128, "a 128-bit key has 32 hexadecimal digits, this one has 33"),
        ("f", None, "a key has 8 to 512 bits, not 4"),
        ("f" * 129, None, "a key has 8 to 512 bits, not 516"),
        ("ff", 0, "a key has 8 to 512 bits, not 0"),
        ("f01", 10, "a 10-bit key must end in 6 zero pad bits"),
    ],
)
def test_wrong_hex_is_refused_without_repeating_the_key(text, n_bits, message):
    with pytest.raises(UserError, match=message) as error:
        Key.from_hex(text, n_bits)
    digits = text.strip()
    if len(digits) > 8:
        assert digits[:8] not in str(error.value)


@given(st.one_of(st.text(max_size=40), st.text("0123456789abcdefABCDEF xg", max_size=40)))
def test_any_text_gives_a_key_or_a_user_error(text):
    try:
        key = Key.from_hex(text)
    except UserError:
        return
    assert str(key) == text.strip().lower()


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ([0, 1, 2, 0, 1, 0, 1, 0], "are 0 and 1"),
        ([0.5] * 8, "are 0 and 1"),
        ([float("nan")] * 8, "are 0 and 1"),
        (["1"] * 8, "are 0 and 1"),
        ([-1] * 8, "are 0 and 1"),
        ([0] * 7, "8 to 512 bits, not 7"),
        ([0] * 513, "8 to 512 bits, not 513"),
        (np.zeros((2, 8)), r"not an array of shape \(2, 8\)"),
    ],
)
def test_wrong_bits_are_refused(bits, message):
    with pytest.raises(UserError, match=message):
        Key.from_bits(bits)


@pytest.mark.parametrize("n_bits", [7, 513, -1])
def test_random_refuses_other_lengths(n_bits):
    with pytest.raises(UserError, match=f"8 to 512 bits, not {n_bits}"):
        Key.random(n_bits)


def test_constructor_checks_the_packed_form():
    with pytest.raises(UserError, match="packed in 16 bytes, not 15"):
        Key(bytes(15), 128)
    with pytest.raises(UserError, match="4 zero pad bits"):
        Key(b"\xff\xff", 12)


# Derivation: RFC 5869, appendix A.1 to A.3.
RFC_5869 = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x00, 0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c6"
        "5e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    (
        "0b" * 22,
        "",
        "",
        "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


@pytest.mark.parametrize("vector", RFC_5869, ids=["A.1", "A.2", "A.3"])
def test_hkdf_agrees_with_its_standard(vector):
    secret, salt, info, extracted, expanded = map(bytes.fromhex, vector)
    assert hkdf_extract(salt, secret) == extracted
    assert hkdf_expand(extracted, info, len(expanded)) == expanded
    for length in (1, 32, 33):
        assert hkdf_expand(extracted, info, length) == expanded[:length]


def test_hkdf_gives_no_more_than_it_can():
    assert len(hkdf_expand(bytes(32), b"", 255 * 32)) == 255 * 32
    for length in (0, 255 * 32 + 1):
        with pytest.raises(ValueError, match="1 to 8160 bytes"):
            hkdf_expand(bytes(32), b"", length)


@given(st.integers(MIN_BITS, MAX_BITS))
def test_derived_keys_are_the_first_bits_of_hkdf(n_bits):
    key = Key.derive(bytes(32), b"info", n_bits)
    stream = hkdf_expand(bytes(32), b"info", 64)
    assert key.bits.tolist() == np.unpackbits(np.frombuffer(stream, np.uint8))[:n_bits].tolist()
