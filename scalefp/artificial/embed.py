"""Marking a data set: every image of a folder or zip, under the same names.

What comes out is as public as the data; the keys go into a record beside it (see marks.py).
"""

import hmac
import json
import secrets
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from scalefp.artificial.marker import BATCH, Marker
from scalefp.artificial.marks import evenly, made_of, record_path, refuse_marked, write_record
from scalefp.artificial.survey import check_out, survey
from scalefp.data.dataset import for_each, report_skipped
from scalefp.data.images import read_image, save_png, to_float, to_pil, to_tensor
from scalefp.data.prepare import WHOLE_ZIP, check_place, write_zip
from scalefp.data.renaming import png_name
from scalefp.data.source import Source, resolve_source
from scalefp.data.unfinished import Unfinished
from scalefp.errors import UserError
from scalefp.files import atomic_path
from scalefp.key import Key, check_fits, hkdf_extract
from scalefp.metrics import bit_accuracy

READ_AGAIN = 64  # written files that are read again
SALT = b"scalefp artificial embed"

T = TypeVar("T")


@dataclass(frozen=True)
class EmbedReport:
    """What :func:`embed` did."""

    out: Path
    marks: Path  # the secret record of the keys
    written: int  # images in the marked set
    reused: int  # of these, finished by an earlier, interrupted run
    skipped: list[tuple[str, str]]  # (name, reason) of files that are no images or broken
    psnr: float  # of the written 8-bit files, in dB, mean over all of them
    bit_accuracy: float  # of the key, in the files read again
    read_again: int
    repeated: bool = False  # the same call had marked the set before: nothing was done


def _secret(partial: Path, seed: int | None) -> bytes:
    """What the images' own keys are derived from: the seed, or drawn once for a data set."""
    if seed is not None:
        return str(seed).encode()
    file = partial / "secret"
    if not file.exists():
        with atomic_path(file, secret=True) as temporary:
            temporary.write_bytes(secrets.token_bytes(32))
    return file.read_bytes()


def _whole(out: Path, partial: Path, names: Sequence[str], labels: list[tuple[str, Any]]) -> Path:
    """The finished images as the folder or zip that was asked for, still in ``partial``."""
    images = partial / "images"
    if out.suffix.lower() == ".zip":
        files = ((name, images / name) for name in names)
        write_zip(partial / WHOLE_ZIP, files, {"labels": labels or None})
        return partial / WHOLE_ZIP
    if labels:
        with atomic_path(images / "dataset.json") as temporary:
            temporary.write_text(json.dumps({"labels": labels}))
    return images


def _made_before(out: Path, settings: dict[str, object]) -> dict[str, Any] | None:
    """The report of a finished call with these settings, if ``out`` is whole and made by it."""
    made = made_of(out)
    if made is None or made["settings"] != settings:
        return None
    report: dict[str, Any] = made["report"]
    try:
        if out.is_dir():
            names = [path.name for path in out.rglob("*")]
        else:
            with zipfile.ZipFile(out) as archive:
                names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return None
    images = sum(name.lower().endswith(".png") for name in names)
    return report if images == report["written"] else None


def _report(out: Path, report: dict[str, Any]) -> EmbedReport:
    skipped = [(name, why) for name, why in report["skipped"]]
    return EmbedReport(out=out, marks=record_path(out), **report | {"skipped": skipped})


def _ahead(
    pool: ThreadPoolExecutor, task: Callable[[int], T], numbers: Sequence[int]
) -> Iterator[dict[int, T]]:
    """``task(i)`` of all numbers, a batch at a time, while threads are at work on the next."""
    waiting: dict[int, Future[T]] = {}
    for start in range(0, len(numbers), BATCH):
        batch = waiting
        waiting = {index: pool.submit(task, index) for index in numbers[start : start + BATCH]}
        if batch:
            yield {index: future.result() for index, future in batch.items()}
    if waiting:
        yield {index: future.result() for index, future in waiting.items()}


@dataclass
class _Work:
    """A data set on its way: what is marked, with which keys, into which files."""

    marker: Marker
    entries: Source
    keys: dict[int, Key]  # by the image's number
    files: dict[int, Path]
    workers: int
    progress: bool

    def read(self, index: int) -> Tensor:
        """Pixels uint8 [3, R, R] of an original image."""
        return to_tensor([self.entries.read(index)], self.marker.config.resolution)[0]

    def try_to_read(self, index: int) -> Tensor | str:
        """As :meth:`read`, or why that fails."""
        try:
            return self.read(index)
        except UserError as error:
            return str(error)

    def write(self, index: int, pixels: Tensor) -> None:
        file = self.files[index]
        file.parent.mkdir(parents=True, exist_ok=True)
        save_png(file, to_pil(pixels[None])[0])

    def mark(self, numbers: Sequence[int], psnr: float | None) -> dict[int, str]:
        """Write the marked images of these numbers; returns why some were skipped."""
        skipped: dict[int, str] = {}
        bar = tqdm(
            total=len(numbers), desc="marking images", unit="img", delay=1, file=sys.stderr,
            disable=not self.progress,
        )  # fmt: skip
        writing: list[Future[None]] = []
        with ThreadPoolExecutor(self.workers) as pool, bar:
            for found in _ahead(pool, self.try_to_read, numbers):
                skipped |= {i: why for i, why in found.items() if isinstance(why, str)}
                whole = {i: image for i, image in found.items() if isinstance(image, Tensor)}
                if whole:
                    bits = np.stack([self.keys[index].bits for index in whole])
                    images = torch.stack(list(whole.values()))
                    marked = self.marker.mark(images, torch.from_numpy(bits), psnr=psnr).cpu()
                    for future in writing:
                        future.result()  # what went wrong in the batch before
                    writing = [
                        pool.submit(self.write, *pair) for pair in zip(whole, marked, strict=True)
                    ]
                bar.update(len(found))
            for future in writing:
                future.result()
        return skipped

    def quality(self, numbers: Sequence[int]) -> float:
        """Mean PSNR in dB of the written files."""
        side = self.marker.config.resolution
        least = (2 / 255) ** 2 / (3 * side**2)  # one value changed by one: keeps the mean finite
        errors = np.zeros(len(numbers))

        def compare(row: int) -> None:
            written = to_tensor([read_image(self.files[numbers[row]])], side)[0]
            error = to_float(written) - to_float(self.read(numbers[row]))
            errors[row] = float(error.square().mean())

        for_each(compare, len(numbers), self.workers, self.progress, "comparing images")
        return float(np.mean(10 * np.log10(4 / np.maximum(errors, least))))

    def accuracy(self, numbers: Sequence[int]) -> float:
        """Share of the key bits that are read from written files."""
        reading = self.marker.decode([self.files[index] for index in numbers], search=False)
        bits = np.stack([self.keys[index].bits for index in numbers])
        return float(bit_accuracy(reading.logits, bits).mean())


def embed(
    marker: Marker,
    data: str | Path,
    out: str | Path,
    key: Key | None = None,
    *,
    seed: int | None = None,
    psnr: float | None = None,
    workers: int = 1,
    again: bool = False,
    progress: bool = True,
) -> EmbedReport:
    """Mark every image of a data set.

    Images keep names and order and become lossless PNG files, ``a/b.jpg`` as ``a/b.png``; labels
    are kept. The record of the keys is written beside the set, ``OUT.marks.json``, and never into
    it. Finished images wait in ``OUT.partial/``: the same call after an interruption goes on from
    there, and the set appears under its name only when whole. The record tells what the set was
    made of, so that the same call once more finds both and does nothing.

    Args:
        marker: what marks; it knows one resolution.
        data: folder, zip or bundled name.
        out: folder, or zip if the name ends so.
        key: of all images; None draws one for each, uniformly at random.
        seed: None, or what the images' own keys are derived from instead, with their names.
        psnr: strength of the mark in dB; None takes the one trained for.
        workers: threads that read and write files.
        again: mark what carries a mark of this marker already.

    Raises:
        UserError: what :func:`scalefp.data.prepare.prepare` refuses; images of another
            resolution, data that is marked already, an output folder that holds other
            files, or a record of earlier marks under that name.
    """
    path, out = resolve_source(data), Path(out)
    if out.name in ("", ".."):
        out = out.resolve()
    if key is not None:
        check_fits(key, marker.config.n_bits)
    marker.check_psnr(psnr)
    check_place(out, path)
    strength = marker.config.psnr if psnr is None else psnr

    with Source(path) as entries:
        # A digest in place of what the keys follow from, for the folder may be forgotten.
        secret = hmac.digest(SALT, f"{key} {seed}".encode(), "sha256").hex()
        settings: dict[str, object] = {
            "source": entries.digest(), "model": marker.digest, "psnr": strength
        }  # fmt: skip
        settings["keys"] = secret
        unfinished = Unfinished(out, settings, private=True)
        partial = unfinished.folder
        if (earlier := unfinished.take_up_the_end()) is not None:
            return _report(out, earlier)
        if (made := _made_before(out, settings)) is not None:
            return _report(out, made | {"repeated": True})
        check_out(out, partial)
        reasons = survey(entries, marker.config.resolution, workers, progress)
        usable = [index for index, why in enumerate(reasons) if why is None]
        if not again:
            refuse_marked(marker, entries, usable)
        unfinished.claim()

        names = {index: png_name(entries.names[index]) for index in usable}
        if key is not None:
            keys = dict.fromkeys(usable, key)
        else:
            source = hkdf_extract(SALT, _secret(partial, seed))
            keys = {i: Key.derive(source, names[i].encode(), marker.config.n_bits) for i in usable}
        files = {index: partial / "images" / name for index, name in names.items()}
        work = _Work(marker, entries, keys, files, workers, progress)
        missing = [index for index in usable if not files[index].exists()]
        for index, why in work.mark(missing, psnr).items():
            reasons[index] = why
        kept = [index for index, why in enumerate(reasons) if why is None]
        if not kept:
            unfinished.discard()
        skipped = report_skipped(entries, reasons)
        read = evenly(kept, READ_AGAIN)
        report = {
            "written": len(kept),
            "reused": len(usable) - len(missing),
            "skipped": skipped,
            "psnr": work.quality(kept),
            "bit_accuracy": work.accuracy(read),
            "read_again": len(read),
        }
        renamed = {entries.names[index]: names[index] for index in kept}
        labels = [(renamed[name], of) for name, of in entries.label_pairs() if name in renamed]
        named = entries.originals()
        originals = {marked: named.get(name, name) for name, marked in renamed.items()}

    # First the keys: a set without its record could never be read.
    by_name = {names[index]: keys[index] for index in kept}
    # As the same command would report it again, however often this one was interrupted.
    made_from: dict[str, object] = {
        "settings": settings, "report": report | {"reused": len(kept)}
    }  # fmt: skip
    write_record(out, marker, strength, key or by_name, originals, made_from)
    whole = _whole(out, partial, [names[index] for index in kept], labels)
    unfinished.finish(whole, report)
    return _report(out, report)
