"""A program of its own is measured as a method: what it is told, and what it may do wrong."""

import sys
from pathlib import Path

import numpy as np
import pytest

from scalefp.errors import UserError
from scalefp.evaluation.command import Command
from scalefp.evaluation.method import OtherMethod, load_method
from scalefp.key import Key

# Writes flat pictures whose rows are the key's bits, and reads them from the rows.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
what, *rest = sys.argv[1:]
if what == "sample":
    key, n, seed, out = rest
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(key), np.uint8))
    for i in range(int(n)):
        pixels = np.repeat(bits[:, None] * 155 + 10 * int(seed) + i, 16, 1).astype(np.uint8)
        Image.fromarray(pixels).save(f"{out}/{i}.png")
elif what == "decode":
    for file in sorted(Path(rest[0]).iterdir()):
        print(*(np.asarray(Image.open(file).convert("L")).mean(1) - 90.5))
else:
    print("first line", what, "is unknown", sep="\\n", file=sys.stderr)
    sys.exit(3)
"""


@pytest.fixture
def program(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(PROGRAM)
    return f"{sys.executable} '{tmp_path / 'mine.py'}'"


def method(program: str, sample: str = "sample {key} {n} {seed} {out}") -> Command:
    return Command(f"{program} {sample}", f"{program} decode {{images}}", 16, 16)


def test_it_makes_pictures_of_a_key_and_reads_them(program: str) -> None:
    options = {
        "_target_": "scalefp.evaluation.command.Command",
        "sample": f"{program} sample {{key}} {{n}} {{seed}} {{out}}",
        "decode": f"{program} decode {{images}}",
        "n_bits": 16,
        "resolution": 16,
    }
    measured, key = load_method(options), Key.from_hex("a5c3")
    images = measured.instantiate(key).sample(3, seed=2)
    assert images.shape == (3, 3, 16, 16)
    levels = ((images[:, 0, :, 0] + 1) * 127.5).round().numpy()
    assert (levels == key.bits * 155 + 20 + np.arange(3)[:, None]).all()  # in the order of names
    pictures = measured.method.sample(key, 3, seed=2)
    reading = measured.decode(pictures)
    assert ((reading.logits > 0) == key.bits).all()


def test_another_program_has_another_digest(program: str, tmp_path: Path) -> None:
    before = OtherMethod(method(program)).digest
    assert OtherMethod(method(program)).digest == before
    (tmp_path / "mine.py").write_text(PROGRAM + "\n# improved")
    assert OtherMethod(method(program)).digest != before


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ("sing", "ended with exit code 3: is unknown"),
        ("sample {key} 2 {seed} {out}", "wrote 2 files where 3 images were asked for"),
    ],
)
def test_what_goes_wrong_is_one_sentence(program: str, sample: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        method(program, sample).sample(Key.from_hex("a5c3"), 3, seed=0)


def test_a_program_that_is_missing_or_prints_words(program: str, tmp_path: Path) -> None:
    missing = Command(str(tmp_path / "none"), "echo one two", 16, 16)
    with pytest.raises(UserError, match="none cannot be started"):
        missing.sample(Key.from_hex("a5c3"), 1, seed=0)
    pictures = method(program).sample(Key.from_hex("a5c3"), 1, seed=0)
    with pytest.raises(UserError, match="echo must print a line for each image"):
        missing.decode(pictures)
