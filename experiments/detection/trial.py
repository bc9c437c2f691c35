"""The images of one trial, and what each method says of them.

A trial is a number of instances and a seed, from which keys, latents and the classifiers' weights
are drawn. All methods see the same images, as 8-bit files.
"""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scalefp.data.images import to_pil, to_uint8
from scalefp.detection.classifier import Change, blur_and_jpeg, train_classifier
from scalefp.detection.worlds import NOBODY, named, world_figures
from scalefp.key import Key
from scalefp.perturb import PERTURBATIONS
from scalefp.registry.audit import Event
from scalefp.registry.registry import Registry
from scalefp.registry.rows import ISSUE
from scalefp.release.model import Model

FPR = 1e-6
STRANGERS = 100  # instances that are never issued
TWO_CLASSES = 5000  # images that the generic detector is trained on
KINDS = ("own", "new", "strangers", "real")
FILES = ("PNG", "JPEG 80")
OURS, CNN, ROBUST, GENERIC = (
    "our reading",
    "attribution CNN",
    "attribution CNN, blur and JPEG",
    "generic detector",
)
METHODS = (OURS, CNN, ROBUST, GENERIC)
REFUSED = 0.05  # of a classifier's own images, by which it settles how sure it must be

Answers = list[str]  # who is named for each image, or NOBODY


class Trial:
    """One number of instances under one seed. Images are made when they are first asked for."""

    def __init__(
        self, model: Model, real: Tensor, count: int, seed: int, options: Namespace
    ) -> None:
        """``real``: the data set, uint8 [m, 3, R, R]; half of it is kept for the test."""
        self.model, self.count, self.seed, self.options = model, count, seed, options
        draw = np.random.default_rng([seed, count])

        def keys(number: int) -> list[Key]:
            n = model.config.n_bits
            return [Key.from_hex(draw.bytes(n // 8).hex(), n) for _ in range(number)]

        self.keys = {"own": keys(count), "new": keys(count), "strangers": keys(STRANGERS)}
        self.real = real[torch.from_numpy(draw.permutation(len(real)))].chunk(2)

    def made(self, kind: str, images: int, part: int) -> tuple[Tensor, Answers]:
        """Images of the instances of one kind by turns, uint8, and whose they are."""
        keys = self.keys[kind]
        each = -(-images // len(keys))
        sets = []
        for i, key in enumerate(keys):
            drawn = np.random.default_rng([self.seed, self.count, KINDS.index(kind), part, i])
            latents = int(drawn.integers(2**31))
            sets.append(to_uint8(self.model.instantiate(key).sample(each, seed=latents)))
        names = [f"{kind} {i}" for i in range(len(keys))] * each
        return torch.stack(sets, dim=1).flatten(0, 1), names

    @cached_property
    def training(self) -> list[Tensor]:
        """For each instance its images; real ones last."""
        images, _ = self.made("own", self.options.training, 0)
        return [*images.unflatten(0, (-1, self.count)).unbind(1), self.real[0]]

    @cached_property
    def test(self) -> dict[str, tuple[Tensor, Answers]]:
        """By kind: images, and who should be named for them."""
        found = {kind: self.made(kind, self.options.test, 1) for kind in KINDS[:3]}
        images, _ = found["strangers"]
        found["strangers"] = images, [NOBODY] * len(images)
        real = self.real[1][: self.options.test]
        return found | {"real": (real, [NOBODY] * len(real))}

    @cached_property
    def files(self) -> dict[str, dict[str, Tensor]]:
        """The test's pixels as the files give them back, by kind of file and of image."""
        png = {kind: images for kind, (images, _) in self.test.items()}
        return {"PNG": png, "JPEG 80": {kind: jpeg(images, 80) for kind, images in png.items()}}

    def measure(self, method: str) -> dict[str, Any]:
        """What one method says of all images, and the processor time that it took."""
        begun = time.process_time()
        if method == OURS:
            figures = self._read()
        elif method == GENERIC:
            figures = self._detect()
        else:
            figures = self._classify(None if method == CNN else blur_and_jpeg)
        return {**figures, "cpu_s": time.process_time() - begun}

    def _read(self) -> dict[str, Any]:
        """Our reading: images of new instances are judged once those have been issued, too."""
        with tempfile.TemporaryDirectory() as name:
            registries = {
                kind: issue(Path(name) / f"{kind}.db", self.keys, kinds, self.model)
                for kind, kinds in (("own", ("own",)), ("new", ("own", "new")))
            }

            def names(kind: str, pixels: Tensor) -> Answers:
                reading = self.model.decode(pixels, search=False, progress=False)
                return named(reading, registries["new" if kind == "new" else "own"], FPR)

            return self._figures(names)

    def _classify(self, change: Change | None) -> dict[str, Any]:
        """A class for each instance, and one for real images; named if it is sure enough."""
        classes = self.training
        probabilities = self._trained(classes, self.options.steps[self.count], change)
        held, _ = self.made("own", max(200, self.count), 2)
        sure = float(np.quantile(probabilities(held)[:, :-1].max(axis=1), REFUSED))

        def sort(pixels: Tensor, least: float) -> Answers:
            found = probabilities(pixels)
            best = found.argmax(axis=1)
            return [
                f"own {k}" if k < self.count and row[k] >= least else NOBODY
                for k, row in zip(best, found, strict=True)
            ]

        figures = self._figures(lambda _, pixels: sort(pixels, sure))
        # In the closed world it need not doubt that an image is of one of its classes.
        closed = self._figures(lambda _, pixels: sort(pixels, 0.0))
        for file in FILES:
            for question in ("detection", "attribution"):
                figures[file][question]["closed"] = closed[file][question]["closed"]
            # Who never doubts names somebody for images of instances that he does not know, too.
            figures[file]["never_in_doubt"] = {
                "attribution": closed[file]["attribution"]["open"],
                "said": closed[file]["said"],
            }
        return {**figures, "sure": sure}

    def _detect(self) -> dict[str, Any]:
        """Real or generated, learned from blurred and compressed images: names nobody."""
        classes = [torch.cat(self.training[:-1]), self.training[-1]]
        probabilities = self._trained(classes, TWO_CLASSES, blur_and_jpeg)
        figures = self._figures(
            lambda _, pixels: [
                "generated" if row[0] > row[1] else NOBODY for row in probabilities(pixels)
            ]
        )
        for file in FILES:
            figures[file]["attribution"] = None
        return figures

    def _trained(
        self, classes: list[Tensor], images: int, change: Change | None
    ) -> Callable[[Tensor], NDArray[np.float64]]:
        return train_classifier(classes, images=images, seed=self.seed, change=change)

    def _figures(self, names: Callable[[str, Tensor], Answers]) -> dict[str, Any]:
        """By kind of file: accuracy in both worlds, and what was said of each kind of image."""
        truth = {kind: whose for kind, (_, whose) in self.test.items()}
        figures: dict[str, Any] = {}
        for file, pixels in self.files.items():
            said = {kind: names(kind, images) for kind, images in pixels.items()}
            figures[file] = {
                **world_figures(said["own"], truth["own"], said["real"], said["strangers"]),
                "said": {kind: tally(said[kind], truth[kind]) for kind in KINDS},
            }
        return figures


def tally(said: Sequence[str], truth: Sequence[str]) -> dict[str, int]:
    """How often the right one was named, somebody else, and nobody."""
    pairs = list(zip(said, truth, strict=True))
    return {
        "right": sum(who == whose != NOBODY for who, whose in pairs),
        "wrong": sum(who not in (NOBODY, whose) for who, whose in pairs),
        "nobody": sum(who == NOBODY for who, _ in pairs),
    }


def issue(path: Path, keys: dict[str, list[Key]], kinds: Sequence[str], model: Model) -> Registry:
    """A registry in which ``own 0``, ``own 1``, ... have their keys."""
    registry = Registry(path)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    events = [
        Event(now, ISSUE, f"{kind} {i}", key) for kind in kinds for i, key in enumerate(keys[kind])
    ]
    registry.add_history(events, model_digest=model.digest, n_bits=model.config.n_bits)
    return registry


def jpeg(images: Tensor, quality: int) -> Tensor:
    """The pixels after a JPEG file, uint8 [b, 3, R, R]."""
    draw = np.random.default_rng(0)  # which a JPEG file asks nothing of
    files = (PERTURBATIONS["jpeg"].apply(i, float(quality), draw) for i in to_pil(images))
    arrays = [np.array(file.convert("RGB")) for file in files]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
