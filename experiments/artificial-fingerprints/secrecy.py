"""Can somebody who knows the method, but not the weights, tell marked images from clean ones?

Three adversaries learn from labelled examples and judge single images that they have not seen:

- shadow: he trained a marker of his own (same code, other seed) and marks his own images by it;
- informed: he has clean and really marked images of other keys of the owner's marker;
- the key: he has a set that the owner published, marked by the very key that he is to find, and
  clean images of the same kind.

The same is asked of outputs of generators that were trained on clean and on marked data. What the
adversaries learned from images they apply to outputs. The first two may also train generators of
their own (transfer.py), by whose outputs they choose such a detector, or which they learn to tell
apart before they judge the owner's. Beside it stands what all detectors say of two generators that
were both trained on clean data.

    python experiments/artificial-fingerprints/secrecy.py --marker artificial-emoji \
      --shadow runs/shadow/release.safetensors --data emoji64 --psnr 38 46 54 60
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from outputs import CLEAN, CONTROL, MARKED, Outputs
from scalefp.detection.adversary import (
    DETECTORS,
    Training,
    joined,
    learn,
    learn_from_generators,
    validated,
)
from scalefp.detection.scores import Detector, accuracy_figures
from scalefp.errors import UserError
from scalefp.experiment import Experiment, content_digest
from scalefp.loading import load_marker
from scene import THREATS, Scene
from secrecy_report import plots, report

LABELLED, CLEAN_PAIR = "labelled outputs", "two clean generators"
IMAGES, OWN_GENERATORS, THESE = "images", "his own generators", "these generators"
FILES = ("marker", "shadow", "data", "clean_samples", "marked_samples", "control_samples")


class Trial:
    """Every adversary against one marker; each method returns the figures of one detector."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.owner = load_marker(options.marker)
        shadow = None if options.shadow is None else load_marker(options.shadow)
        self.scene = Scene(
            self.owner,
            shadow,
            options.data,
            images=options.images,
            key=options.key,
            seed=options.seed,
        )
        self.outputs = Outputs(
            {CLEAN: options.clean_samples, MARKED: options.marked_samples}
            | {CONTROL: options.control_samples},
            options.own_clean_samples,
            {"shadow": options.shadow_samples, "informed": options.informed_samples},
            self.owner.config.resolution,
        )
        self.training = Training(
            images=options.training_images,
            carriers=self.owner.config.n_bits,
            seed=options.seed,
        )
        self.threats = [t for t in options.threats if t != "shadow" or shadow is not None]
        self.examples = lru_cache(maxsize=1)(self.scene.examples)
        self.marked = lru_cache(maxsize=1)(self.scene.marked)

    def on_images(self, threat: str, psnr: float | None, name: str) -> dict[str, Any]:
        """Learned from images: judged on images, and on generators' outputs if there are any."""
        detect, validation = learn(name, self.examples(threat, psnr), self.training)
        found = accuracy_figures(detect(self.scene.clean), detect(self.marked(threat, psnr)))
        figures = {"validation": validation, **found, "outputs": None}
        if self.outputs.has(CLEAN, MARKED) and (threat != "the key" or self.options.key):
            if (whose := own_generators(self.options, threat)) is not None:
                # On their outputs he tries what he learned from images.
                validation = validated(detect, joined(self.outputs.own[whose]))
            figures["outputs"] = {"validation": validation, **self.on_outputs(detect)}
        return figures

    def on_outputs(self, detect: Detector) -> dict[str, Any]:
        """A detector that has seen none of the owner's outputs, on all of them."""
        clean, marked = (detect(self.outputs.sets[name]) for name in (CLEAN, MARKED))
        figures = {**accuracy_figures(clean, marked), "control": None}
        if self.outputs.has(CONTROL):
            figures["control"] = accuracy_figures(clean, detect(self.outputs.sets[CONTROL]))
        return figures

    def by_generators(self, threat: str, psnr: float | None, name: str) -> dict[str, Any]:
        """Learned from outputs of the adversary's own generators."""
        detect, validation = learn_from_generators(
            name, self.outputs.own[threat], self.training, self.examples(threat, psnr)
        )
        return {"validation": validation, **self.on_outputs(detect)}

    def labelled(self, second: str, name: str) -> dict[str, Any]:
        """Learned from half of the very outputs, judged on the other half."""
        detect, validation = learn(name, self.outputs.labelled(second), self.training)
        scores = (detect(self.outputs.kept_back(x)) for x in (CLEAN, second))
        return {"validation": validation, **accuracy_figures(*scores), "control": None}

    def work(self) -> dict[tuple[float | None, str, str, str], Callable[[], dict[str, Any]]]:
        """All that is to be measured, by strength, adversary, what he learned from, detector."""
        work: dict[tuple[float | None, str, str, str], Callable[[], dict[str, Any]]] = {}
        for psnr in self.options.psnr or [None]:
            work[psnr, "reading", "", ""] = partial(self.scene.reading, psnr)
            for threat in self.threats:
                for name in self.options.detectors:
                    work[psnr, threat, IMAGES, name] = partial(self.on_images, threat, psnr, name)
        # The strength at which he made the pairs that show him carriers: as his generators' data.
        for threat in [t for t in self.threats if t in self.outputs.own]:
            for name in self.options.detectors:
                judge = partial(self.by_generators, threat, None, name)
                work[None, threat, OWN_GENERATORS, name] = judge
        for threat, second in ((LABELLED, MARKED), (CLEAN_PAIR, CONTROL)):
            if self.outputs.has(CLEAN, second):
                for name in self.options.detectors:
                    work[None, threat, THESE, name] = partial(self.labelled, second, name)
        return work


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one marker."""
    check(options)
    trial = Trial(options)
    work = trial.work()
    titles = {case: _title(options, *case) for case in work}
    parts = EXPERIMENT.parts(options, settings(options))
    readings: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []  # on images
    generated: list[dict[str, Any]] = []  # on generators' outputs
    found = parts.measure({titles[case]: part for case, part in work.items()}, "secrecy")
    for (psnr, threat, source, name), title in titles.items():
        figures = found[title]
        if threat == "reading":
            readings.append({"asked": psnr, **figures})
            continue
        case = {"threat": threat, "learned": source, "detector": name, "psnr": psnr}
        if source == IMAGES:
            outputs = figures.pop("outputs")
            rows.append(case | figures)
            if outputs is not None:
                generated.append(case | outputs)
        else:
            generated.append(case | figures)
    scene, own = trial.scene, trial.outputs.own
    return {
        "digest": trial.owner.digest,
        "resolution": trial.owner.config.resolution,
        "n_bits": trial.owner.config.n_bits,
        "data": Path(options.data).name,
        "images": {
            "adversary": len(scene.own),
            "published": len(scene.published),
            "test": 2 * len(scene.clean),
        },
        "own_generators": {threat: 2 * len(pairs) for threat, pairs in own.items()},
        "training_images": options.training_images,
        "seed": options.seed,
        "readings": readings,
        "rows": rows,
        "generated": generated,
    }


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """All that decides the figures of every part."""
    kept = {n: getattr(options, n) for n in ("images", "training_images", "seed", "key")}
    return kept | {name: content_digest(getattr(options, name)) for name in FILES}


def _title(
    options: argparse.Namespace, psnr: float | None, threat: str, source: str, detector: str
) -> str:
    """The name of a part."""
    strength = "" if psnr is None else f"{psnr:g} dB"
    whose = own_outputs(options, threat)
    return " ".join(filter(None, [threat, source, detector, strength, whose]))


def own_generators(options: argparse.Namespace, threat: str) -> str | None:
    """Which of the adversaries' generators this one has: the informed one may train the shadow's,
    too, if there are none for the owner's marker."""
    kinds = {"shadow": ("shadow",), "informed": ("informed", "shadow")}.get(threat, ())
    return next((kind for kind in kinds if getattr(options, f"{kind}_samples")), None)


def own_outputs(options: argparse.Namespace, threat: str) -> str:
    """What tells apart the parts of an adversary who had generators of his own."""
    if (whose := own_generators(options, threat)) is None:
        return ""
    marked = getattr(options, f"{whose}_samples")
    paths = [*marked, *options.own_clean_samples[: len(marked)]]
    return hashlib.sha256(repr([content_digest(path) for path in paths]).encode()).hexdigest()[:12]


def check(options: argparse.Namespace) -> None:
    """Raise :class:`UserError` for generators of the adversary's that lack their counterpart."""
    for name in ("shadow_samples", "informed_samples"):
        own, clean = getattr(options, name), options.own_clean_samples
        if len(own) > len(clean):
            option = name.replace("_", "-")
            raise UserError(f"--{option} needs as many --own-clean-samples beside it")
        if own and None in (options.clean_samples, options.marked_samples):
            raise UserError("own generators need --clean-samples and --marked-samples to judge")


EXPERIMENT = Experiment(
    Path(__file__).parent / "secrecy", measure, report, plots, named_by="marker"
)


def main() -> None:
    """Measure one marker, and write results, table and plots."""
    parser = EXPERIMENT.parser(__doc__, in_parts=True)
    parser.add_argument("--marker", required=True, help="the owner's: bundled name or path")
    parser.add_argument("--shadow", help="the adversary's own; without it no shadow is measured")
    parser.add_argument("--data", default="emoji64", help="bundled name, folder or zip")
    parser.add_argument("--psnr", type=float, nargs="*", help="strengths of the marks, in dB")
    parser.add_argument("--images", type=int, default=6000, help="of the data, in all")
    parser.add_argument(
        "--training-images", type=int, default=19_200, help="that a network is trained on"
    )
    parser.add_argument("--threats", nargs="*", default=THREATS, choices=THREATS)
    parser.add_argument("--detectors", nargs="*", default=DETECTORS, choices=DETECTORS)

    owner = parser.add_argument_group("outputs of the owner's generators (folders or zips)")
    owner.add_argument("--clean-samples", help="of a generator trained on clean data")
    owner.add_argument("--marked-samples", help="of the same, trained on marked data")
    owner.add_argument("--control-samples", help="of a second one trained on clean data")
    owner.add_argument("--key", help="of the marked data, in hexadecimal digits")

    own = parser.add_argument_group("outputs of the adversary's own generators, one or several")
    for name, data in (
        ("own-clean", "clean data"),
        ("shadow", "data that the shadow marked"),
        ("informed", "data marked by the owner's marker, by other keys"),
    ):
        own.add_argument(f"--{name}-samples", nargs="+", default=[], help=f"trained on {data}")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
