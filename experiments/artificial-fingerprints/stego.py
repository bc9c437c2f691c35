"""Tools that hide a message in a picture, one interface: the baselines of the published table.

``steghide`` and ``outguess`` are Debian packages (``apt-get install steghide outguess``), programs
that write into JPEG files. The DWT-DCT marks are those of ``invisible-watermark`` 0.2.0 (PyPI). Our
own marker stands beside them.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from scalefp.artificial.marker import Marker
from scalefp.data.images import read_image, to_pil, to_tensor
from scalefp.errors import UserError

Bits = NDArray[np.uint8]
# 0, 1, or NaN for a bit that the tool did not return.
Found = NDArray[np.float64]

PASSPHRASE = "scalefp"
JPEG = {"quality": 95, "subsampling": 2}  # 4:2:0, the usual; at 4:4:4 outguess miswrites more bits
SECONDS = 60  # after which a program is given up


class Tool(Protocol):
    """One way to hide bits.

    Attributes:
        n_bits: how many bits an image of the experiment holds.
        lossy: whether its files are JPEG, as their pictures are made for it; else PNG.
    """

    n_bits: int
    lossy: bool

    def embed(self, image: Image.Image, bits: Bits) -> bytes | None:
        """A file with the bits in it; None if the tool says that it cannot."""
        ...

    def read(self, file: bytes) -> Found:
        """What it finds in a file, [n_bits]."""
        ...


def as_file(image: Image.Image, *, lossy: bool, quality: int | None = None) -> bytes:
    """A picture as a tool's kind of file, at another JPEG quality if one is given."""
    stream = BytesIO()
    if quality is not None:
        image.save(stream, "JPEG", **JPEG | {"quality": quality})
    elif lossy:
        image.save(stream, "JPEG", **JPEG)
    else:
        image.save(stream, "PNG")
    return stream.getvalue()


def nothing(n_bits: int) -> Found:
    """Of a failed extraction: no bit at all."""
    return np.full(n_bits, np.nan)


def unpack(message: bytes, n_bits: int) -> Found:
    """The first bits of a message; those that it is too short for are missing."""
    found = nothing(n_bits)
    bits = np.unpackbits(np.frombuffer(message[: n_bits // 8], np.uint8))
    found[: len(bits)] = bits
    return found


# Programs.


class Program(ABC):
    """A command-line program that writes a message file into a JPEG file and back."""

    lossy = True

    def __init__(self, n_bits: int) -> None:
        if shutil.which(self.name) is None:
            raise UserError(f"{self.name} is not installed: `apt-get install {self.name}`")
        if n_bits % 8:
            raise UserError(f"{self.name} hides whole bytes, not {n_bits} bits")
        self.n_bits = n_bits

    name = ""

    @abstractmethod
    def _embed(self, cover: Path, message: Path, out: Path) -> list[str]:
        """The command that writes ``message`` into a copy of ``cover``."""

    @abstractmethod
    def _extract(self, file: Path, out: Path) -> list[str]:
        """The command that writes the message of ``file`` into ``out``."""

    @staticmethod
    def _run(command: list[str], out: Path) -> bytes | None:
        """What the program wrote; None where it failed or wrote nothing."""
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return None
        if done.returncode or not out.is_file():
            return None
        return out.read_bytes() or None

    def embed(self, image: Image.Image, bits: Bits) -> bytes | None:
        with tempfile.TemporaryDirectory() as folder:
            cover, message, out = (Path(folder) / name for name in ("c.jpg", "m.bin", "o.jpg"))
            cover.write_bytes(as_file(image, lossy=True))
            message.write_bytes(np.packbits(bits).tobytes())
            return self._run(self._embed(cover, message, out), out)

    def read(self, file: bytes) -> Found:
        with tempfile.TemporaryDirectory() as folder:
            path, out = (Path(folder) / name for name in ("c.jpg", "m.bin"))
            path.write_bytes(file)
            message = self._run(self._extract(path, out), out)
        return nothing(self.n_bits) if message is None else unpack(message, self.n_bits)


class Steghide(Program):
    """steghide 0.5.1, with nothing beside the message: small pictures do not hold much."""

    name = "steghide"

    def _embed(self, cover: Path, message: Path, out: Path) -> list[str]:
        files = ["-cf", str(cover), "-ef", str(message), "-sf", str(out)]
        bare = ["-e", "none", "-Z", "-K", "-N"]
        return [self.name, "embed", "-q", "-f", *files, "-p", PASSPHRASE, *bare]

    def _extract(self, file: Path, out: Path) -> list[str]:
        files = ["-sf", str(file), "-xf", str(out)]
        return [self.name, "extract", "-q", "-f", *files, "-p", PASSPHRASE]


class Outguess(Program):
    """outguess 0.4."""

    name = "outguess"

    def _embed(self, cover: Path, message: Path, out: Path) -> list[str]:
        quality = ["-p", str(JPEG["quality"])]
        return [self.name, "-k", PASSPHRASE, *quality, "-d", str(message), str(cover), str(out)]

    def _extract(self, file: Path, out: Path) -> list[str]:
        return [self.name, "-k", PASSPHRASE, "-r", str(file), str(out)]


# Marks in the frequencies.


class DwtDct:
    """``dwtDct`` or ``dwtDctSvd`` of invisible-watermark, at its default strengths.

    Its outer class refuses pictures below 256x256; the algorithm itself does not mind. One bit
    goes into each 4x4 block of the first wavelet level, so a picture of R pixels holds (R/8)^2.
    """

    lossy = False

    def __init__(self, method: str, resolution: int, n_bits: int) -> None:
        if importlib.util.find_spec("imwatermark") is None:
            raise UserError("this needs `pip install invisible-watermark==0.2.0`")
        from imwatermark.dwtDctSvd import EmbedDwtDctSvd
        from imwatermark.maxDct import EmbedMaxDct

        self._make: Any = {"dwtDct": EmbedMaxDct, "dwtDctSvd": EmbedDwtDctSvd}[method]
        self.n_bits = min(n_bits, (resolution // 8) ** 2)

    def embed(self, image: Image.Image, bits: Bits) -> bytes | None:
        bgr = np.asarray(image)[:, :, ::-1].copy()
        marked = self._make(watermarks=bits.tolist(), wmLen=self.n_bits).encode(bgr)
        return as_file(Image.fromarray(marked[:, :, ::-1].copy()), lossy=False)

    def read(self, file: bytes) -> Found:
        bgr = np.asarray(read_image(file))[:, :, ::-1].copy()
        found = self._make(watermarks=[], wmLen=self.n_bits).decode(bgr)
        return np.asarray(found, np.float64)


class Ours:
    """A marker of this project."""

    lossy = False

    def __init__(self, marker: Marker) -> None:
        self.marker = marker
        self.n_bits = marker.config.n_bits

    def embed(self, image: Image.Image, bits: Bits) -> bytes | None:
        pixels = to_tensor([image], self.marker.config.resolution)
        (marked,) = to_pil(self.marker.mark(pixels, torch.from_numpy(bits)))
        return as_file(marked, lossy=False)

    def read(self, file: bytes) -> Found:
        reading = self.marker.decode([read_image(file)], search=False)
        return np.asarray(reading.bits[0], np.float64)


TOOLS: dict[str, Callable[[int, int], Tool]] = {
    "steghide": lambda resolution, n_bits: Steghide(n_bits),
    "outguess": lambda resolution, n_bits: Outguess(n_bits),
    "dwtDct": lambda resolution, n_bits: DwtDct("dwtDct", resolution, n_bits),
    "dwtDctSvd": lambda resolution, n_bits: DwtDct("dwtDctSvd", resolution, n_bits),
}
