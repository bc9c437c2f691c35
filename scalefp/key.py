"""The key issued to one recipient: bits <-> bytes <-> hexadecimal digits.

Order: bit 0 is the most significant bit of the first hexadecimal digit. Lengths that do not fill
the last digit or byte end in zero pad bits. Standard library and numpy only: no network here.
"""

from __future__ import annotations

import builtins
import hashlib
import hmac
import secrets
import string
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalefp.errors import UserError

MIN_BITS, MAX_BITS, DEFAULT_BITS = 8, 512, 128


def check_length(n_bits: int) -> None:
    """Raise UserError unless ``n_bits`` is a key length this project supports."""
    if not MIN_BITS <= n_bits <= MAX_BITS:
        raise UserError(f"a key has {MIN_BITS} to {MAX_BITS} bits, not {n_bits}")


def hkdf_extract(salt: bytes, secret: bytes) -> bytes:
    """HKDF-SHA-256, first step (RFC 5869, 2.2): a pseudorandom key of 32 bytes."""
    return hmac.digest(salt, secret, "sha256")


def hkdf_expand(pseudorandom_key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA-256, second step (RFC 5869, 2.3): ``length`` bytes, 255 * 32 at most."""
    if not 0 < length <= 255 * 32:
        raise ValueError(f"HKDF-SHA-256 gives 1 to {255 * 32} bytes, not {length}")
    output = block = b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(pseudorandom_key, block + info + bytes([counter]), "sha256")
        output += block
    return output[:length]


@dataclass(frozen=True, repr=False, slots=True)
class Key:
    """An immutable, hashable key of 8 to 512 bits.

    Make one with :meth:`random`, :meth:`derive`, :meth:`from_hex` or :meth:`from_bits`; the
    constructor takes the packed form that a registry stores.

    Args:
        bytes: the bits packed eight a byte, most significant first, ceil(n_bits / 8) bytes; pad
            bits after the last are zero.
        n_bits: 8..512.

    Raises:
        UserError: unsupported length, wrong number of bytes, or pad bits that are not zero.
    """

    # `builtins.`, because inside the class the plain name would mean this very field.
    bytes: builtins.bytes
    n_bits: int

    def __post_init__(self) -> None:
        check_length(self.n_bits)
        expected = -(-self.n_bits // 8)
        if len(self.bytes) != expected:
            raise UserError(
                f"a {self.n_bits}-bit key is packed in {expected} bytes, not {len(self.bytes)}"
            )
        n_pad = 8 * expected - self.n_bits
        if self.bytes[-1] & ((1 << n_pad) - 1):
            raise UserError(
                f"a {self.n_bits}-bit key must end in {n_pad} zero pad bits: "
                "was it written for another key length?"
            )

    @classmethod
    def random(cls, n_bits: int = DEFAULT_BITS) -> Key:
        """Draw a key from the operating system's CSPRNG: attribution rests on this uniformity."""
        check_length(n_bits)
        n_bytes = -(-n_bits // 8)
        n_pad = 8 * n_bytes - n_bits
        number = secrets.randbits(n_bits) << n_pad
        return cls(number.to_bytes(n_bytes, "big"), n_bits)

    @classmethod
    def derive(
        cls, pseudorandom_key: builtins.bytes, info: builtins.bytes, n_bits: int = DEFAULT_BITS
    ) -> Key:
        """The one key that HKDF expands from a secret (see :func:`hkdf_extract`) for ``info``."""
        check_length(n_bits)
        n_bytes = -(-n_bits // 8)
        n_pad = 8 * n_bytes - n_bits
        number = int.from_bytes(hkdf_expand(pseudorandom_key, info, n_bytes), "big")
        return cls((number >> n_pad << n_pad).to_bytes(n_bytes, "big"), n_bits)

    @classmethod
    def from_hex(cls, text: str, n_bits: int | None = None) -> Key:
        """Read hexadecimal digits of either case; white space around them is ignored.

        Args:
            text: ceil(n_bits / 4) digits.
            n_bits: the expected length; None takes four bits a digit.

        Raises:
            UserError: a character that is no digit, a wrong number of digits, or pad bits set.
                The message never repeats the key: it may be right but for one digit.
        """
        digits = text.strip().lower()
        if not digits:
            raise UserError("the key is empty: give it as hexadecimal digits (0-9, a-f)")
        for position, character in enumerate(digits, start=1):
            if character not in string.hexdigits:
                raise UserError(
                    f"the key has {character!r} at position {position}, which is not "
                    "a hexadecimal digit (0-9, a-f)"
                )
        if n_bits is None:
            n_bits = 4 * len(digits)
        check_length(n_bits)
        expected = -(-n_bits // 4)
        if len(digits) != expected:
            raise UserError(
                f"a {n_bits}-bit key has {expected} hexadecimal digits, this one has {len(digits)}"
            )
        return cls(builtins.bytes.fromhex(digits + "0" * (len(digits) % 2)), n_bits)

    @classmethod
    def from_bits(cls, bits: Any) -> Key:
        """Pack a one-dimensional array (or list, or CPU tensor) of 8..512 values 0 and 1.

        Raises:
            UserError: another shape, length or value.
        """
        array = np.asarray(bits)
        if array.ndim != 1:
            raise UserError(f"the bits of a key are one row, not an array of shape {array.shape}")
        check_length(array.size)
        if not np.isin(array, (0, 1)).all():
            raise UserError("the bits of a key are 0 and 1; this array holds other values")
        return cls(np.packbits(array.astype(np.uint8)).tobytes(), array.size)

    @property
    def bits(self) -> NDArray[np.uint8]:
        """The key as a fresh array, uint8 [n_bits] in {0, 1}."""
        return np.unpackbits(np.frombuffer(self.bytes, np.uint8), count=self.n_bits)

    def __str__(self) -> str:
        """The key in lower-case hexadecimal, ceil(n_bits / 4) digits. This is the secret."""
        return self.bytes.hex()[: -(-self.n_bits // 4)]

    def __repr__(self) -> str:
        """A digest in place of the key, so that logs and tracebacks never hold the secret."""
        return f"Key({self.n_bits} bits, sha256:{hashlib.sha256(self.bytes).hexdigest()[:8]})"


def check_fits(key: Key, n_bits: int) -> None:
    """Raise UserError unless a key has the length that a release takes."""
    if key.n_bits != n_bits:
        raise UserError(
            f"the key has {key.n_bits} bits, and this release takes {n_bits}: "
            "use a key that was issued for it"
        )
