"""What the tests of data sets share: files of noise, and folders and zips of them."""

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from scalefp.data.dataset import ImageSet


def png(seed: int, width: int = 16, height: int = 16) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, body in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(body)
    return path


def load(source: str | Path, resolution: int = 16, workers: int = 0) -> ImageSet:
    return ImageSet(source, resolution, workers=workers, progress=False)


FILES = {"b/2.png": png(2), "a/1.png": png(1, 40, 24), "3.png": png(3)}
