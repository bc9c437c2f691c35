"""A method that is a program of its own, in whatever language, measured beside releases."""

import hashlib
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from scalefp.attribution.reading import Reading
from scalefp.data.images import read_image, save_png
from scalefp.errors import UserError
from scalefp.key import Key


class Command:
    """Two command lines: one writes pictures of a key, the other prints what it reads.

    See :class:`scalefp.evaluation.method.Method`. No shell is used; words may be quoted.

    Args:
        sample: writes ``{n}`` images for the key ``{key}`` (hexadecimal digits) into the empty
            folder ``{out}``; ``{seed}`` stands for the latents or originals. Their order is that of
            their names.
        decode: reads the images of the folder ``{images}``, in the order of their names, and prints
            a line for each: a number for every bit, above 0 where it reads as 1.
        n_bits: length of the key.
        resolution: height and width of the pictures.
    """

    def __init__(self, sample: str, decode: str, n_bits: int, resolution: int) -> None:
        self.n_bits, self.resolution = n_bits, resolution
        self._sample, self._decode = shlex.split(sample), shlex.split(decode)
        # Another program must not take over what an earlier one was measured at.
        words = [*self._sample, *self._decode]
        contents = [Path(word).read_bytes() for word in words if Path(word).is_file()]
        told = [*(word.encode() for word in words), *contents]
        self.digest = hashlib.sha256(b"\0".join(told)).hexdigest()

    def sample(self, key: Key, n: int, *, seed: int) -> list[Image.Image]:
        with tempfile.TemporaryDirectory() as out:
            _run(self._sample, key=str(key), n=n, seed=seed, out=out)
            files = sorted(Path(out).iterdir())
            if len(files) != n:
                raise UserError(
                    f"{self._sample[0]} wrote {len(files)} files where {n} images were asked for"
                )
            return [read_image(file) for file in files]

    def decode(self, images: Sequence[Image.Image]) -> Reading:
        with tempfile.TemporaryDirectory() as folder:
            for number, image in enumerate(images):
                save_png(Path(folder) / f"{number:06d}.png", image)
            printed = _run(self._decode, images=folder)
        try:
            logits = [[float(word) for word in line.split()] for line in printed.splitlines()]
            return Reading(np.array(logits, dtype=np.float64))
        except ValueError:
            raise UserError(
                f"{self._decode[0]} must print a line for each image, with a number for each bit"
            ) from None


def _run(words: Sequence[str], **values: object) -> str:
    """What a command prints, with ``{name}`` replaced by each of the values.

    Raises:
        UserError: it cannot be started, or ends with another exit code than 0.
    """
    filled = list(words)
    for name, value in values.items():
        filled = [word.replace(f"{{{name}}}", str(value)) for word in filled]
    try:
        done = subprocess.run(filled, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise UserError(f"{filled[0]} cannot be started ({error.strerror})") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["nothing on standard error"]
        raise UserError(f"{filled[0]} ended with exit code {done.returncode}: {said[-1]}")
    return done.stdout
