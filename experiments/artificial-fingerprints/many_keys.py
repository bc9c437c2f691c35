"""Are marked images told from others, and led back to the right one of 1, 10 or 100 keys?

For each number of keys a registry is made and one set of images is marked for each holder. Every
image is judged by itself by :func:`scalefp.attribute`: the named holder, or nobody. Closed world:
images of these keys (detection: and clean ones). Open world: also images that are marked by keys
which were never issued, and clean ones; the right answer for those is nobody.

    python experiments/artificial-fingerprints/many_keys.py --marker artificial-emoji --data emoji64

The same for samples of generators, each trained by transfer.py on data marked by its own key:

    T="python experiments/artificial-fingerprints/transfer.py -m generator=dcgan data=faces
       sources.faces=faces128.zip images.dcgan=30000 folder=runs/ten-keys"
    $T "seed=range(11)"; $T marked=false
    python experiments/artificial-fingerprints/many_keys.py --generators runs/ten-keys \\
        --marker runs/ten-keys/marker-faces/release.safetensors --data faces128.zip --name faces
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from jobs import find_jobs
from scalefp.artificial.marker import Marker
from scalefp.attribution.reading import Reading
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_pil
from scalefp.detection.worlds import named, world_figures
from scalefp.errors import UserError
from scalefp.experiment import Experiment, made, markdown_table
from scalefp.key import Key
from scalefp.loading import load_marker
from scalefp.perturb import PERTURBATIONS
from scalefp.registry.audit import Event
from scalefp.registry.registry import Registry
from scalefp.registry.rows import ISSUE

KEYS = (1, 10, 100)
FPR = 1e-6
# Yu et al. 2021, as the paper of 2022 measured it: closed and open world at 1, 10, 100 generators.
PUBLISHED = {1: ("1.000", "1.000"), 10: ("1.000", "1.000"), 100: ("N/A", "N/A")}
TOGETHER = (1, 16)  # images of one generator whose readings are added


def issue(folder: Path, keys: Sequence[Key], marker: Marker) -> Registry:
    """A registry in which holder ``i`` has key i."""
    registry = Registry(folder / f"{len(keys)}.db")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    events = [Event(now, ISSUE, f"holder {i}", key) for i, key in enumerate(keys)]
    registry.add_history(events, model_digest=marker.digest, n_bits=marker.config.n_bits)
    return registry


class Sources:
    """Images of three kinds, as files: of keys, clean, and of other keys."""

    def __init__(self, marker: Marker, options: argparse.Namespace) -> None:
        self.marker, self.options = marker, options
        pixels = ImageSet(options.data, marker.config.resolution).pixels
        order = np.random.default_rng([options.seed, 1]).permutation(len(pixels))
        self.pixels = torch.from_numpy(pixels[order])
        if len(self.pixels) < 3 * KEYS[-1]:
            raise UserError(f"{options.data} has fewer than {3 * KEYS[-1]} images: give more")

    def read(self, images: torch.Tensor, bits: NDArray[np.uint8] | None, title: str) -> Reading:
        """Readings of images [b, 3, R, R], marked by the keys [b, n] first, after the change."""
        if bits is not None:
            images = self.marker.mark(images, torch.from_numpy(bits), psnr=self.options.psnr)
        files: list[Image.Image] = to_pil(images)
        if self.options.perturbation is not None:
            name, strength = self.options.perturbation
            draw = np.random.default_rng([self.options.seed, 2])
            entry = PERTURBATIONS[name]
            files = [entry.apply(file, float(strength), draw) for file in tqdm(files, title)]
        return self.marker.decode(files, search=self.options.search)

    def split(self, count: int) -> list[torch.Tensor]:
        """So many images of each kind, no image twice."""
        count = min(count, len(self.pixels) // 3)
        return list(self.pixels[: 3 * count].split(count))


def measure_images(marker: Marker, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each number of keys."""
    sources, n_bits = Sources(marker, options), marker.config.n_bits
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in tqdm(KEYS, "keys", unit="registry"):
            draw = np.random.default_rng([options.seed, 3, count])
            bits = draw.integers(0, 2, (count, n_bits), dtype=np.uint8)
            registry = issue(Path(folder), [Key.from_bits(row) for row in bits], marker)
            to_mark, clean, strange = sources.split(max(options.images, count * options.per_key))
            whose = np.arange(len(to_mark)) % count
            others = draw.integers(0, 2, (len(strange), n_bits), dtype=np.uint8)
            own = sources.read(to_mark, bits[whose], f"{count} keys")
            row = world_figures(
                named(own, registry, FPR),
                [f"holder {i}" for i in whose],
                named(sources.read(clean, None, "clean"), registry, FPR),
                named(sources.read(strange, others, "other keys"), registry, FPR),
            )
            right = (own.bits == bits[whose]).mean()
            rows.append({"keys": count, "bit_accuracy": float(right), **row})
    return rows


def added(logits: NDArray[np.float64], together: int, marker: Marker) -> Reading:
    """Readings of groups of images of one generator; of logits [G, m, n], generators by turns."""
    generators, m, n_bits = logits.shape
    groups = logits[:, : m // together * together].reshape(generators, -1, together, n_bits)
    return Reading(groups.sum(axis=2).swapaxes(0, 1).reshape(-1, n_bits), marker.digest)


def measure_generators(marker: Marker, options: argparse.Namespace) -> list[dict[str, Any]] | None:
    """The same for samples of generators, each trained on data marked by a key of its own.

    The keys of the last ``options.strangers`` generators are never issued. Where more keys are
    issued than there are generators, the rest are random ones, whose holders published nothing.
    """
    if options.generators is None:
        return None

    def read(source: Path) -> NDArray[np.float64]:
        pixels = torch.from_numpy(ImageSet(source, marker.config.resolution).pixels)
        return marker.decode(pixels[: options.images], search=options.search).logits

    jobs, nobody = (
        find_jobs(options.generators, marker, generator="dcgan", marked=marked)
        for marked in (True, False)
    )
    issuable = len(jobs) - options.strangers
    if issuable < 1:
        raise UserError(f"{options.generators} holds {len(jobs)} generators: lower --strangers")
    marked = np.stack([read(job.samples) for job in tqdm(jobs, "reading", unit="generator")])
    clean = np.stack([read(job.samples) for job in nobody])
    draw, rows = np.random.default_rng([options.seed, 4]), []
    with tempfile.TemporaryDirectory() as folder:
        for count in KEYS:
            own = min(count, issuable)
            unused = draw.integers(0, 2, (count - own, marker.config.n_bits), dtype=np.uint8)
            keys = [job.key for job in jobs[:own]] + [Key.from_bits(row) for row in unused]
            registry = issue(Path(folder), keys, marker)
            for together in TOGETHER:
                reading = added(marked[:own], together, marker)
                row = world_figures(
                    named(reading, registry, FPR),
                    [f"holder {i % own}" for i in range(len(reading))],
                    named(added(clean, together, marker), registry, FPR),
                    named(added(marked[own:], together, marker), registry, FPR),
                )
                bits = np.stack([key.bits for key in keys])[np.arange(len(reading)) % own]
                right = float((reading.bits == bits).mean())
                about = {"keys": count, "generators": own, "strangers": len(jobs) - own}
                rows.append({**about, "together": together, "bit_accuracy": right, **row})
    return rows


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one marker."""
    if options.strangers < 1:
        raise UserError("--strangers must be at least 1: the open world needs some")
    marker = load_marker(options.marker)
    return {
        "digest": marker.digest,
        "n_bits": marker.config.n_bits,
        "data": Path(options.data).name,
        "perturbation": options.perturbation,
        "psnr": options.psnr,
        "fpr": FPR,
        "seed": options.seed,
        "rows": measure_images(marker, options),
        "generators": measure_generators(marker, options),
    }


# The table.


def _cell(found: Mapping[str, Any]) -> str:
    low, high = found["ci95"]
    return f"{found['accuracy']:.4f} ({low:.4f} - {high:.4f})"


def _cells(row: Mapping[str, Any]) -> list[str]:
    kinds = ((kind, world) for kind in ("detection", "attribution") for world in ("closed", "open"))
    return [*(_cell(row[kind][world]) for kind, world in kinds), str(row["wrongly_named"])]


def generator_cells(row: Mapping[str, Any]) -> list[str]:
    """One line of the table of generators."""
    return [
        str(row["keys"]),
        f"{row['generators']} / {row['strangers']}",
        str(row["together"]),
        f"{row['attribution']['closed']['images']:,}",
        f"{row['bit_accuracy']:.4f}",
        *_cells(row),
        " / ".join(PUBLISHED[row["keys"]]),
    ]


def report(results: Mapping[str, Any]) -> str:
    """All figures as one page."""
    parts = [
        "# Detection and attribution over 1, 10 and 100 keys",
        f"Every image or group of images by itself, at fpr {FPR:g} among the issued keys. "
        "Published: attribution by Yu et al. 2021, one generator for each key, as the paper of "
        "2022 gives it. Intervals are of 95% (Wilson).",
    ]
    head = ["keys", "images of each kind", "bit accuracy", "detection, closed", "detection, open"]
    head += ["attribution, closed", "attribution, open", "named wrongly", "published closed / open"]
    for name, figures in results.items():
        after = " ".join(figures["perturbation"] or ["PNG files"])
        rows = [
            [
                str(row["keys"]),
                f"{row['attribution']['closed']['images']:,}",
                f"{row['bit_accuracy']:.4f}",
                *_cells(row),
                " / ".join(PUBLISHED[row["keys"]]),
            ]
            for row in figures["rows"]
        ]
        parts += [
            f"## `{name}`: {figures['n_bits']} bits, `{figures['data']}`, {after}",
            f"Release `{figures['digest'][:16]}`; {made(figures)}",
            markdown_table(head, rows),
        ]
        if figures["generators"] is not None:
            parts += [
                "Samples of generators, each trained on data marked by its own key. Keys issued "
                "beyond the generators' are random ones whose holders published nothing. Open "
                "world: also samples of generators whose keys were not issued, and of one trained "
                "on clean data.",
                markdown_table(
                    ["keys", "their generators / others", "images together", "groups", *head[2:]],
                    [generator_cells(row) for row in figures["generators"]],
                ),
            ]
    return "\n\n".join(parts) + "\n"


EXPERIMENT = Experiment(Path(__file__).parent / "keys", measure, report, named_by="marker")


def main() -> None:
    """Measure one marker, and write results and table."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--marker", required=True, help="bundled name or path of a marker")
    parser.add_argument("--data", default="emoji64", help="bundled name, folder or zip")
    parser.add_argument("--psnr", type=float, help="strength of the marks (default: as trained)")
    parser.add_argument("--images", type=int, default=1000, help="of each kind, at least")
    parser.add_argument("--per-key", type=int, default=10, help="images of each key, at least")
    parser.add_argument(
        "--perturbation", nargs=2, metavar=("NAME", "STRENGTH"), help="that all images meet"
    )
    parser.add_argument("--search", action="store_true", help="look for crops and turns, too")
    parser.add_argument("--generators", type=Path, help="folder of transfer.py, to be judged, too")
    parser.add_argument(
        "--strangers", type=int, default=1, help="the last generators, whose keys nobody gets"
    )
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
