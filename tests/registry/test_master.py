"""The master secret: which files are taken, and what its keys depend on."""

import os

import numpy as np
import pytest

from scalefp.errors import UserError
from scalefp.key import Key, hkdf_expand, hkdf_extract
from scalefp.registry.master import MasterSecret

DIGEST = "ab" * 32
SECRET = bytes(range(32))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "master.key"
    path.touch(0o600)
    path.write_bytes(SECRET)
    return path


def test_the_key_is_hkdf_of_all_that_it_depends_on():
    key = MasterSecret(SECRET).key("\u00c9cole", 3, model_digest=DIGEST, n_bits=128)
    info = b"key\0" + DIGEST.encode() + b"\x00128\x003\0" + "\u00c9cole".encode()
    expected = hkdf_expand(hkdf_extract(b"scalefp master secret", SECRET), info, 16)
    assert key == Key(expected, 128)
    # Fixed for ever: registries in use could not be rebuilt otherwise.
    assert str(key) == "7b2826a20d55d9fef267bd15629d7b30"


def test_every_part_makes_another_key():
    secret = MasterSecret(SECRET)
    keys = [
        secret.key("a", 0, model_digest=DIGEST, n_bits=128),
        MasterSecret(SECRET + b"\n").key("a", 0, model_digest=DIGEST, n_bits=128),
        secret.key("b", 0, model_digest=DIGEST, n_bits=128),
        secret.key("a", 1, model_digest=DIGEST, n_bits=128),
        secret.key("a", 0, model_digest="cd" * 32, n_bits=128),
        Key(secret.key("a", 0, model_digest=DIGEST, n_bits=256).bytes[:16], 128),
        secret.key("1\0a", 0, model_digest=DIGEST, n_bits=128),
        secret.key("0\0a", 1, model_digest=DIGEST, n_bits=128),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("n_bits", [8, 13, 64, 257, 512])
def test_keys_have_the_asked_length_and_fair_bits(n_bits):
    secret = MasterSecret(SECRET)
    keys = [secret.key(f"h{i}", 0, model_digest=DIGEST, n_bits=n_bits) for i in range(2000)]
    assert all(Key.from_hex(str(key), n_bits) == key for key in keys)  # pad bits are zero
    means = np.mean([key.bits for key in keys], axis=0)
    assert np.abs(means - 0.5).max() < 5 * 0.5 / np.sqrt(len(keys))


def test_a_file_is_read_to_its_last_byte(path):
    secret = MasterSecret.read(path)
    assert secret.check == MasterSecret(SECRET).check
    path.write_bytes(SECRET + b"\n")
    assert MasterSecret.read(path).check != secret.check
    path.chmod(0o400)
    assert MasterSecret.read(path).check == MasterSecret(SECRET + b"\n").check


def test_the_secret_does_not_show(path):
    secret = MasterSecret.read(path)
    shown = f"{secret!r} {secret.check}"
    assert SECRET.hex() not in shown
    assert hkdf_extract(b"scalefp master secret", SECRET).hex() not in shown


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o777])
def test_a_file_open_to_others_is_refused(path, mode):
    path.chmod(mode)
    with pytest.raises(UserError, match=f"master.key is open to other users .mode {mode:04o}"):
        MasterSecret.read(path)


@pytest.mark.parametrize(
    ("size", "message"),
    [(0, "holds 0 bytes"), (31, "holds 31 bytes, but 32 to 65536"), (65_537, "holds more, but")],
)
def test_too_short_and_too_long_secrets_are_refused(path, size, message):
    path.write_bytes(b"x" * size)
    with pytest.raises(UserError, match=message):
        MasterSecret.read(path)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="the master secret: cannot read .*missing: No such file"):
        MasterSecret.read(tmp_path / "missing")
    with pytest.raises(UserError, match="the master secret: .* it is a folder, not a file"):
        MasterSecret.read(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(UserError, match="the master secret: .* it is a named pipe, not a file"):
        MasterSecret.read(pipe)  # and does not wait for a writer
