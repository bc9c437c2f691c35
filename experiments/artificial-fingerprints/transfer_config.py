"""Options of transfer.py, and what a result depends on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalefp.artificial.marker import Marker
from scalefp.errors import UserError

GENERATORS = {
    "ours": "generators.ours:Ours",
    "ours_maps": "generators.ours:OursWithMaps",
    "ours_dcgan": "generators.ours_dcgan:OursAgainstDcgan",
    "dcgan": "generators.dcgan:Dcgan",
    "ddpm": "generators.ddpm:Ddpm",
}


@dataclass
class TransferConfig:
    """Everything ``transfer.py`` knows."""

    data: str = "emoji"  # which of `sources`
    generator: str = "ours"  # one of GENERATORS
    marked: bool = True  # false: trained on the images as they are
    seed: int = 0  # of key, order of the data, weights and samples
    # Name of each data set -> bundled name, folder or zip. Further sets: +sources.NAME=PATH.
    sources: dict[str, str] = field(
        default_factory=lambda: {"emoji": "emoji64", "cifar": "", "faces": ""}
    )
    # Data set -> release of its marker. A set without one has its own trained, once.
    markers: dict[str, str] = field(default_factory=lambda: {"emoji": "", "cifar": "", "faces": ""})
    marker: str = "small"  # that training: one of conf/marker
    # Images that each generator is trained with.
    images: dict[str, int] = field(
        default_factory=lambda: {
            "ours": 60_000,
            "ours_maps": 60_000,
            "ours_dcgan": 60_000,
            "dcgan": 100_000,
            "ddpm": 40_000,
        }
    )
    psnr: float | None = None  # strength of the mark in dB; null = the marker's own
    samples: int = 1024  # images generated, read and compared with the data
    features: str = "auto"  # extractor of the distance: auto, mobilenet, none
    folder: str = "runs/transfer"  # of jobs, markers and what jobs share

    def check(self) -> None:
        """Raise :class:`UserError` for options that cannot work."""
        if self.generator not in GENERATORS:
            raise UserError(
                f"generator must be one of {', '.join(GENERATORS)}, not {self.generator!r}."
            )
        if not self.sources.get(self.data):
            raise UserError(
                f"there is no source for the data set {self.data!r}: give sources.{self.data}=PATH."
            )
        if self.seed < 0:
            raise UserError(f"seed must be at least 0, not {self.seed}.")
        if self.samples < 64:
            raise UserError(f"samples must be at least 64, not {self.samples}.")
        if self.images.get(self.generator, 0) < 1:
            raise UserError(f"images.{self.generator} must be at least 1.")

    def settings(self, marker: Marker) -> dict[str, Any]:
        """What a result depends on, without the paths of this machine."""
        return {
            "data": self.data,
            "generator": self.generator,
            "marked": self.marked,
            "seed": self.seed,
            "images": self.images[self.generator],
            "samples": self.samples,
            "marker": marker.digest,
            "psnr": marker.config.psnr if self.psnr is None else self.psnr,
        }


def check_settings(found: dict[str, Any], settings: dict[str, Any], path: Path) -> None:
    """Raise :class:`UserError` if what ``path`` holds was made with other settings."""
    theirs = found.get("settings") or {}
    for name, value in settings.items():
        if theirs.get(name) != value:
            raise UserError(
                f"{path} was made with {name}={theirs.get(name)}, not {value}: "
                "choose another folder=, or remove that file"
            )
