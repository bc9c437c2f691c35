"""The secret from which all keys of a registry can be derived, so that a lost one is rebuilt.

The key is HKDF-SHA-256 (RFC 5869) of the secret for the release, the key's length, the holder and
the number of keys that the holder had before. Who knows the secret knows every key.
"""

from __future__ import annotations

import os
import stat

from scalefp.errors import UserError
from scalefp.files import open_regular
from scalefp.key import Key, hkdf_expand, hkdf_extract

MIN_BYTES, MAX_BYTES = 32, 65_536


class MasterSecret:
    """A master secret in memory, or :meth:`read` from its file.

    Args:
        secret: at least 32 bytes that nobody can guess.
    """

    def __init__(self, secret: bytes) -> None:
        self._pseudorandom_key = hkdf_extract(b"scalefp master secret", secret)
        # Tells secrets apart and nothing else: another `info` than that of any key.
        self.check = hkdf_expand(self._pseudorandom_key, b"check", 16).hex()

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> MasterSecret:
        """The secret in a file: every byte of it counts, a last line break included.

        Raises:
            UserError: the file cannot be read, is no regular file, may be read or written by
                others, or is too short or too long.
        """
        name = os.fspath(path)
        try:
            with open_regular(name) as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(MAX_BYTES + 1)
        except UserError as error:
            raise UserError(f"the master secret: {error}") from error
        except OSError as error:
            raise UserError(f"the master secret: cannot read {name}: {error.strerror}") from error
        if mode & 0o077:
            raise UserError(
                f"the master secret {name} is open to other users (mode {stat.S_IMODE(mode):04o}): "
                f"run chmod 600 {name}, and replace the secret if others may have read it"
            )
        if not MIN_BYTES <= len(content) <= MAX_BYTES:
            size = f"{len(content)} bytes" if len(content) <= MAX_BYTES else "more"
            raise UserError(
                f"the master secret {name} holds {size}, but {MIN_BYTES} to {MAX_BYTES} are "
                f"needed: make one by head -c {MIN_BYTES} /dev/urandom > {name}"
            )
        return cls(content)

    def key(self, holder: str, number: int, *, model_digest: str, n_bits: int) -> Key:
        """The holder's key for a release; ``number`` counts from 0 the keys issued to the holder.

        ``holder`` and ``model_digest`` hold no NUL character.
        """
        info = f"key\0{model_digest}\0{n_bits}\0{number}\0{holder}"
        return Key.derive(self._pseudorandom_key, info.encode(), n_bits)
