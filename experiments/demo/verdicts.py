"""What was read from images, whom that names, and whether that is what should have come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import scalefp
from scalefp.attribution.evidence import count_matches, p_value
from scalefp.attribution.odds import in_words
from scalefp.pretrained import LiftCheck
from scalefp.release.reader import Reader

NOBODY = "nobody"


@dataclass(frozen=True)
class Verdict:
    """One decoding (of one image, or of several as one source) against the registry.

    The closest issued key is kept even where it is not close enough to be named, to show by how
    much an innocent key fails.
    """

    read: scalefp.Key
    named: tuple[str, ...]  # holders, best first; empty = nobody
    closest: str  # holder of the issued key with the most matching bits
    issued: scalefp.Key  # that key
    p_value: float  # chance that any issued key matches as well or better if all are innocent

    @property
    def errors(self) -> NDArray[np.bool_]:
        """Bits in which the key read differs from the closest issued key, [n]."""
        differs: NDArray[np.bool_] = self.read.bits != self.issued.bits
        return differs

    @property
    def n_errors(self) -> int:
        return int(self.errors.sum())

    @property
    def answer(self) -> str:
        return " and ".join(self.named) or NOBODY


@dataclass(frozen=True)
class Group:
    """Images of one source, judged one by one and together."""

    title: str
    expected: str | None  # holder; None = nobody
    files: list[Path]
    each: list[Verdict]
    together: Verdict
    note: str = ""  # one sentence for readers of the report

    def as_expected(self, verdict: Verdict) -> bool:
        """Exactly the expected holder was named, or nobody if nobody was expected."""
        return verdict.named == (() if self.expected is None else (self.expected,))

    @property
    def n_right(self) -> int:
        return sum(map(self.as_expected, self.each))

    @property
    def right(self) -> bool:
        """Every image and the whole set gave what was expected."""
        return self.n_right == len(self.each) and self.as_expected(self.together)

    @property
    def mean_errors(self) -> float:
        """Bit errors an image, mean."""
        return sum(verdict.n_errors for verdict in self.each) / len(self.each)


def judge(reading: scalefp.Reading, registry: scalefp.Registry, fpr: float) -> Verdict:
    """Attribute the images of a reading as one source."""
    named = scalefp.attribute(reading, registry, fpr=fpr)
    issued = registry.keys_and_holders()
    read = reading.key
    matches = count_matches(read.bits, issued.packed)
    best = int(np.argmax(matches))
    return Verdict(
        read=read,
        named=tuple(attribution.holder for attribution in named),
        closest=issued.holders[best],
        issued=scalefp.Key(issued.packed[best].tobytes(), reading.n_bits),
        p_value=p_value(reading.n_bits, len(issued.holders), int(matches[best])),
    )


def judge_files(
    title: str,
    files: Sequence[Path],
    *,
    expected: str | None,
    model: Reader,
    registry: scalefp.Registry,
    fpr: float,
    note: str = "",
) -> Group:
    """Decode image files; attribute each of them, and all of them as one source."""
    reading = model.decode(files)
    return Group(
        title=title,
        expected=expected,
        files=list(files),
        each=[judge(one, registry, fpr) for one in reading],
        together=judge(reading, registry, fpr),
        note=note,
    )


def bits_off(count: int) -> str:
    return f"{count} bit{'' if count == 1 else 's'} off"


@dataclass(frozen=True)
class Recipient:
    """Who got which key, and how long it took to make the instance."""

    holder: str
    key: scalefp.Key
    file: Path
    seed: int  # of the latents of its images
    milliseconds: float


@dataclass(frozen=True)
class OnnxCheck:
    """The ONNX file, run by ONNX Runtime, beside the instance it was exported from."""

    file: Path
    difference: float  # largest of any pixel, in [-1, 1] units
    tolerance: float

    @property
    def right(self) -> bool:
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class Decoded:
    """One picture as a decoder that others trained makes it, without a key and under several."""

    release: str
    files: list[Path]  # the original's, then one a recipient
    groups: list[Group]


@dataclass(frozen=True)
class Checked:
    """A file, whom it names, and whether the lift check of her copy was passed."""

    title: str
    file: Path
    named: tuple[str, ...]
    check: LiftCheck
    honest: bool  # made by the copy whose holder it is expected to name

    @property
    def right(self) -> bool:
        return self.check.passed == self.honest

    @property
    def answer(self) -> str:
        passed = "passed" if self.check.passed else "NOT passed"
        whose = " and ".join(self.named) or "nobody"
        return (
            f"names {whose}; lift check {passed} "
            f"({self.check.agree} of {self.check.bits} bound bits)"
        )


@dataclass(frozen=True)
class Lifted:
    """Her picture, his, and his with her fingerprint."""

    before: Path  # his, before anything was laid on
    pictures: list[Checked]

    @property
    def right(self) -> bool:
        return all(picture.right for picture in self.pictures)

    @property
    def lines(self) -> list[str]:
        """For the end of the table."""
        return [
            f"{one.title}: {one.answer}: {'ok' if one.right else 'NOT OK'}" for one in self.pictures
        ]


@dataclass(frozen=True)
class Training:
    """The small training at the end."""

    log: list[dict[str, float]]  # lines of log.jsonl
    grids: dict[str, Path]  # name -> picture
    seconds: float


@dataclass(frozen=True)
class Results:
    """All that the demo found, but for the training."""

    release: str  # as given: bundled name or path
    model: scalefp.Model
    fpr: float
    recipients: list[Recipient]
    shared: list[list[Image.Image]]  # [recipient][latent]: the same latents under each key
    psnr: float  # dB, mean over these latents and pairs of recipients
    groups: list[Group]
    onnx: OnnxCheck | None  # None where the packages are not installed
    decoded: Decoded | None  # None where it is left out
    seconds: float
    lifted: Lifted | None = None  # likewise

    @property
    def right(self) -> bool:
        others = [one for one in (self.onnx, self.lifted) if one is not None]
        return all(one.right for one in (*self.groups, *others))


SUMMARY_HEAD = (
    "images",
    "result",
    "expected",
    "one by one",
    "all together",
    "bit errors",
    "chance",
)


def summary(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """Expected beside found, one row a group, under ``SUMMARY_HEAD``."""
    return [
        (
            group.title,
            "ok" if group.right else "NOT OK",
            group.expected or NOBODY,
            f"{group.n_right} of {len(group.each)}",
            group.together.answer,
            f"{group.mean_errors:.1f} of {group.together.read.n_bits}",
            in_words(group.together.p_value),
        )
        for group in groups
    ]
