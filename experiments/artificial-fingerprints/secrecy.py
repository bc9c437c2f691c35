"""Can somebody who knows the method, but not the weights, tell marked images from clean ones?

Three adversaries learn from labelled examples and judge single images that they have not seen:

- shadow: he trained a marker of his own (same code, other seed) and marks his own images by it;
- informed: he has clean and really marked images of other keys of the owner's marker;
- the key: he has a set that the owner published, marked by the very key that he is to find, and
  clean images of the same kind.

With samples of generators that were trained on clean and on marked data, the same is asked of
generated images.

    python experiments/artificial-fingerprints/secrecy.py --marker artificial-emoji \
      --shadow runs/shadow/release.safetensors --data emoji64 --psnr 38 40 42 44
"""

from __future__ import annotations

import argparse
import hashlib
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from adversary import DETECTORS, GROUP, Detector, Examples, accuracy_figures, train
from record import load_results, making, write_results
from scalefp.artificial.marker import Marker
from scalefp.data import ImageSet
from scalefp.key import Key
from scalefp.measure import EvaluateConfig, reading_figures
from scalefp.parts import Parts
from scalefp.release import load_marker
from secrecy_report import plot, report

THREATS = ("shadow", "informed", "the key")
LABELLED, CONTROL = "labelled outputs", "two clean generators"
VALIDATION = 0.15  # of the adversary's examples, by which he chooses a detector
VICTIMS = 4  # keys of the owner in the test; of the very key there is one
# Of all images: the adversary's own, those that the owner publishes, and the test's.
SHARES = (0.4, 0.3, 0.3)


class Scene:
    """One owner, one adversary, and images that neither of them shares with the other.

    Attributes:
        own, published, clean, other: uint8 [., 3, R, R]: the adversary's; those that the owner
            marks by the victim's key; and the test's, of which ``other`` will be marked.
    """

    def __init__(self, owner: Marker, shadow: Marker | None, options: argparse.Namespace) -> None:
        self.owner, self.shadow, self.seed = owner, shadow, options.seed
        pixels = ImageSet(options.data, owner.config.resolution).pixels
        order = np.random.default_rng([options.seed, 1]).permutation(len(pixels))
        chosen = torch.from_numpy(pixels[order[: options.images]])
        sizes = [int(share * len(chosen)) for share in SHARES[:2]]
        sizes.append(len(chosen) - sum(sizes))
        self.own, self.published, test = chosen.split(sizes)
        block = VICTIMS * GROUP
        half = len(test) // 2 // block * block
        self.clean, self.other = test[:half], test[half : 2 * half]
        n_bits = owner.config.n_bits
        draw = np.random.default_rng([options.seed, 2])
        self.victims = torch.from_numpy(draw.integers(0, 2, (VICTIMS, n_bits), dtype=np.uint8))
        if options.key:
            self.victims[0] = torch.from_numpy(Key.from_hex(options.key, n_bits).bits)

    def examples(self, threat: str, psnr: float | None) -> Examples:
        """What one adversary learns from."""
        if threat == "the key":
            marked = self.owner.mark(self.published, self.victims[0], psnr=psnr)
            return Examples(self.own[: len(marked)], marked, paired=False)
        marker = self.shadow if threat == "shadow" else self.owner
        assert marker is not None
        draw = np.random.default_rng([self.seed, 3])
        shape = (len(self.own), marker.config.n_bits)
        keys = torch.from_numpy(draw.integers(0, 2, shape, dtype=np.uint8))
        return Examples(self.own, marker.mark(self.own, keys, psnr=psnr), paired=True)

    def marked(self, threat: str, psnr: float | None) -> Tensor:
        """The marked images of the test, uint8, those of one key one after the other."""
        keys = self.victims[:1] if threat == "the key" else self.victims
        every = keys.repeat_interleave(len(self.other) // len(keys), dim=0)
        return self.owner.mark(self.other, every, psnr=psnr)

    def reading(self, psnr: float | None) -> dict[str, Any]:
        """What the owner himself reads from the test's images, and how good they are."""
        marked = self.marked("informed", psnr)
        logits = self.owner.decode(marked, search=False).logits
        config = EvaluateConfig(seed=self.seed, issued=[1, 1_000_000], pools=[1, GROUP])
        figures = reading_figures(logits.reshape(VICTIMS, -1, logits.shape[1]), self.bits, config)
        error = (marked.double() - self.other.double()).square().mean(dim=(1, 2, 3)).clamp_min(1e-9)
        return {**figures, "psnr": float((10 * (255**2 / error).log10()).mean())}

    @property
    def bits(self) -> np.ndarray:
        return np.asarray(self.victims)


def read_samples(path: str | None, resolution: int) -> Tensor | None:
    """Generated images of a zip or folder, uint8 [n, 3, R, R]; None without a path."""
    return None if path is None else torch.from_numpy(ImageSet(path, resolution).pixels)


class Outputs:
    """Samples of generators; the first half of each is there to learn from."""

    def __init__(self, options: argparse.Namespace, resolution: int) -> None:
        self.sets = {
            name: read_samples(getattr(options, f"{name}_samples"), resolution)
            for name in ("clean", "marked", "control")
        }

    def examples(self, second: str) -> Examples:
        """Clean samples and those of another set, labelled."""
        first, other = (self._half(name, 0) for name in ("clean", second))
        return Examples(first, other, paired=False)

    def test(self, name: str) -> Tensor:
        """The second half of a set."""
        return self._half(name, 1)

    def _half(self, name: str, which: int) -> Tensor:
        images = self.sets[name]
        assert images is not None
        return images.chunk(2)[which]

    @property
    def threats(self) -> list[str]:
        """What can be asked of the sets that are there."""
        found = [name for name, images in self.sets.items() if images is not None]
        asked = {LABELLED: "marked", CONTROL: "control"}
        return [threat for threat, name in asked.items() if {"clean", name} <= {*found}]


def learn(
    name: str, examples: Examples, carriers: int, options: argparse.Namespace
) -> tuple[Detector, dict[str, Any]]:
    """A trained detector, and its accuracy on examples that it was not trained on."""
    training, held_out = examples.split(VALIDATION)
    detect = train(
        name, training, images=options.training_images, carriers=carriers, seed=options.seed
    )
    figures = accuracy_figures(detect(held_out.clean), detect(held_out.marked))
    return detect, {"validation": figures["accuracy"]}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one marker."""
    owner = load_marker(options.marker)
    shadow = None if options.shadow is None else load_marker(options.shadow)
    scene, outputs = Scene(owner, shadow, options), Outputs(options, owner.config.resolution)
    n_bits = owner.config.n_bits
    examples = lru_cache(maxsize=1)(scene.examples)
    marked = lru_cache(maxsize=1)(scene.marked)

    def on_images(threat: str, psnr: float | None, name: str) -> dict[str, Any]:
        detect, figures = learn(name, examples(threat, psnr), n_bits, options)
        figures |= accuracy_figures(detect(scene.clean), detect(marked(threat, psnr)))
        if LABELLED in outputs.threats and (threat != "the key" or options.key):
            clean, other = (detect(outputs.test(name)) for name in ("clean", "marked"))
            figures["outputs"] = accuracy_figures(clean, other)
        return figures

    def on_outputs(threat: str, name: str) -> dict[str, Any]:
        second = "marked" if threat == LABELLED else "control"
        detect, figures = learn(name, outputs.examples(second), n_bits, options)
        return figures | accuracy_figures(*(detect(outputs.test(x)) for x in ("clean", second)))

    work = {}
    threats = [t for t in options.threats if t != "shadow" or shadow is not None]
    for psnr in options.psnr or [None]:
        work[psnr, "reading", ""] = partial(scene.reading, psnr)
        for threat in threats:
            for name in options.detectors:
                work[psnr, threat, name] = partial(on_images, threat, psnr, name)
    for threat in outputs.threats:
        for name in options.detectors:
            work[None, threat, name] = partial(on_outputs, threat, name)

    parts = Parts(options.parts and options.parts / options.name, settings(options))
    rows: list[dict[str, Any]] = []
    readings: list[dict[str, Any]] = []
    with tqdm(work.items(), "secrecy", unit="part") as bar:
        for (psnr, threat, name), part in bar:
            title = " ".join(filter(None, [threat, name, psnr and f"{psnr:g} dB"]))
            bar.set_postfix_str(title)
            figures = {"psnr": psnr, **parts.get(title, part)}
            if threat == "reading":
                readings.append({"asked": psnr, **figures})
            else:
                rows.append({"threat": threat, "detector": name, **figures})
    return {
        "digest": owner.digest,
        "resolution": owner.config.resolution,
        "n_bits": n_bits,
        "data": Path(options.data).name,
        "images": {
            "adversary": len(scene.own),
            "published": len(scene.published),
            "test": 2 * len(scene.clean),
        },
        "training_images": options.training_images,
        "seed": options.seed,
        "readings": readings,
        "rows": rows,
    }


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """All that decides the figures of a part."""
    kept = {n: getattr(options, n) for n in ("images", "training_images", "seed", "key")}
    for name in ("marker", "shadow", "data", "clean_samples", "marked_samples", "control_samples"):
        kept[name] = value = getattr(options, name)
        if value is not None and Path(value).is_file():
            kept[name] = hashlib.sha256(Path(value).read_bytes()).hexdigest()
    return kept


def main() -> None:
    """Measure one marker, and write results, table and plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--marker", required=True, help="the owner's: bundled name or path")
    parser.add_argument("--shadow", help="the adversary's own; without it no shadow is measured")
    parser.add_argument("--name", help="of the marker in the results (default: as the file)")
    parser.add_argument("--data", default="emoji64", help="bundled name, folder or zip")
    parser.add_argument("--psnr", type=float, nargs="*", help="strengths of the marks, in dB")
    parser.add_argument("--images", type=int, default=6000, help="of the data, in all")
    parser.add_argument(
        "--training-images", type=int, default=19_200, help="that a network is trained on"
    )
    parser.add_argument("--threats", nargs="*", default=THREATS, choices=THREATS)
    parser.add_argument("--detectors", nargs="*", default=DETECTORS, choices=DETECTORS)
    parser.add_argument("--clean-samples", help="of a generator trained on clean data")
    parser.add_argument("--marked-samples", help="of the same, trained on marked data")
    parser.add_argument("--control-samples", help="of a second one trained on clean data")
    parser.add_argument("--key", help="of the marked data, in hexadecimal digits")
    parser.add_argument("--parts", type=Path, help="folder that keeps finished parts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "secrecy")
    options = parser.parse_args()
    options.name = options.name or Path(options.marker).stem
    torch.set_num_threads(1)
    started = time.process_time()
    measured = measure(options) | making(time.process_time() - started)
    results = load_results(options.out) | {options.name: measured}
    write_results(options.out, results, report(results))
    for name, figures in results.items():
        plot(figures, options.out / f"{name}.png")


if __name__ == "__main__":
    main()
