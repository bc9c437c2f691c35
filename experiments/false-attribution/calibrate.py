"""Are the p-values of innocent keys what they claim to be, and is anybody named wrongly?

Images that no issued instance made are held against random keys: in both forms of the evidence, a
share of at most x of all (image, key) pairs may have a p-value of x or less. The same is done for
keys that were not drawn but follow a rule, for which the fair-bit argument does not hold.

    python experiments/false-attribution/calibrate.py --model emoji
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import scalefp
from calibration_report import markdown, plots
from codebooks import structured_keys
from scalefp.attribution.evidence import FORMS, IssuedKeys, Reading, attribute_each
from scalefp.data.images import to_uint8
from scalefp.data.source import Source, resolve_source
from scalefp.evaluation.unrelated import draw_images, issued_keys
from scalefp.experiment import Experiment
from scalefp.loading import load_model
from tallies import LEVELS, Bits, Logits, Tally, figures, tally, would_name

FPR = 1e-6
IMAGES_PER_KEY = 10


class IssuedInMemory(NamedTuple):
    """Keys as a registry gives them: holder i has key i."""

    n_bits: int
    model_digest: str
    packed: NDArray[np.uint8]

    def keys_and_holders(self) -> IssuedKeys:
        holders = [str(i) for i in range(len(self.packed))]
        return IssuedKeys(self.packed, holders)

    def confirm(self, issued: IssuedKeys, indices: Sequence[int]) -> None:
        """There is no log to compare with."""


# Readings.


def unrelated_logits(model: scalefp.Model, options: argparse.Namespace) -> dict[str, Logits]:
    """Readings of the images of each source, small sources first: these may have too few."""
    sizes = {}
    for source in options.data:
        with Source(resolve_source(source)) as files:
            sizes[source] = len(files.names)
    logits: dict[str, Logits] = {}
    for number, source in enumerate(sorted(sizes, key=lambda source: sizes[source])):
        left = options.images - sum(map(len, logits.values()))
        draw = np.random.default_rng([options.seed, number])
        images = list(draw_images(source, left // (len(sizes) - number), draw))
        logits[Path(source).name] = model.decode(images, search=False).logits
    return logits


def searched_logits(model: scalefp.Model, options: argparse.Namespace) -> Logits:
    """Readings of a few images of each source, with crops and turns tried on what is unclear."""
    rng, readings = np.random.default_rng([options.seed, 99]), []
    for source in options.data:
        images = list(draw_images(source, -(-options.searched // len(options.data)), rng))
        readings.append(model.decode(images).logits)
    return np.concatenate(readings)


def instance_logits(model: scalefp.Model, keys: Bits, count: int, seed: int) -> Logits:
    """Readings of ``count`` images of each key's instance, [K count, n]."""
    parts = []
    for number, bits in enumerate(tqdm(keys, "instances", unit="key", delay=2, leave=False)):
        instance = model.instantiate(scalefp.Key.from_bits(bits))
        pixels = to_uint8(instance.sample(count, seed=seed + number))
        parts.append(model.decode(pixels, search=False).logits)
    return np.concatenate(parts)


# Keys that follow a rule.


def named_beside(
    model: scalefp.Model, bits: Bits, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Images of some of these keys' instances: whom does each name beside its own?"""
    rng = np.random.default_rng([options.seed, len(bits)])
    own = rng.choice(len(bits), options.guilty, replace=False)
    logits = instance_logits(model, bits[own], 1, options.seed)
    for form in FORMS:
        named = [{*np.flatnonzero(row)} for row in would_name(logits, bits, form, FPR)]
        yield {
            "form": form,
            "images": len(own),
            "own_named": sum(k in who for k, who in zip(own, named, strict=True)),
            "innocents_named": sum(len(who - {k}) for k, who in zip(own, named, strict=True)),
        }


# The measurement.


def measure_random(
    model: scalefp.Model, logits: dict[str, Logits], options: argparse.Namespace
) -> dict[str, Any]:
    """P-values of random keys, and whom attribution names among many issued ones."""
    n_bits = model.config.n_bits
    rng = np.random.default_rng([options.seed, n_bits])
    bits = np.unpackbits(issued_keys(n_bits, options.keys, rng), axis=1, count=n_bits)
    issued = IssuedInMemory(n_bits, model.digest, issued_keys(n_bits, options.issued, rng))
    sources = []
    together = {form: np.zeros((options.keys, len(LEVELS)), np.int64) for form in FORMS}
    for name, read in logits.items():
        entry: dict[str, Any] = {
            "source": name,
            "images": len(read),
            "distinct_readings": len(np.unique(read > 0, axis=0)),
            "forms": {},
        }
        for form in FORMS:
            tallied = tally(read, bits, form, FPR, name)
            together[form] += tallied.reached
            answers = attribute_each(list(Reading(read, model.digest)), issued, FPR, form=form)
            entry["forms"][form] = figures(tallied, len(read)) | {
                "excess": tallied.excess(len(read)),
                "attributed": sum(bool(answer) for answer in answers),
            }
        sources.append(entry)
    images = sum(map(len, logits.values()))
    everything = {form: Tally(reached, 1, 0) for form, reached in together.items()}
    return {
        "keys": options.keys,
        "issued": options.issued,
        "images": images,
        "sources": sources,
        "all": {
            form: {"share": t.share(images).tolist(), "excess": t.excess(images)}
            for form, t in everything.items()
        },
    }


def measure_structured(
    model: scalefp.Model, logits: Logits, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The same test for keys that were not drawn.

    Half the images say what the decoder leans to; a third of the others, for time, are tested.
    """
    learn, test = logits[::2], logits[1::6]
    rng = np.random.default_rng([options.seed, 7])
    entries = []
    for name, bits in structured_keys(learn, rng).items():
        tallies = {form: tally(test, bits, form, FPR, name) for form in FORMS}
        entries.append(
            {
                "keys": name,
                "number": len(bits),
                "images": len(test),
                "forms": {form: figures(t, len(test)) for form, t in tallies.items()},
                "beside_own": list(named_beside(model, bits, options))
                if len(bits) >= options.guilty
                else [],
            }
        )
    return entries


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one release."""
    model = load_model(options.model)
    n_bits = model.config.n_bits
    logits = unrelated_logits(model, options)
    structured = measure_structured(model, np.concatenate(list(logits.values())), options)
    others = np.random.default_rng([options.seed, 8]).integers(
        0, 2, (options.instances, n_bits), dtype=np.uint8
    )
    logits["instances of other keys"] = instance_logits(model, others, IMAGES_PER_KEY, options.seed)
    return {
        "model": {"name": Path(options.model).stem, "digest": model.digest, "n_bits": n_bits},
        "fpr": FPR,
        "seed": options.seed,
        "random": measure_random(model, logits, options),
        "searched": measure_random(model, {"search": searched_logits(model, options)}, options)
        if model.searches
        else None,
        "structured": structured,
    }


EXPERIMENT = Experiment(Path(__file__).parent, measure, markdown, plots)


def main() -> None:
    """Measure one release, and write results, table and plot."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", default="emoji", help="bundled name or path of a release")
    parser.add_argument(
        "--data", nargs="+", default=["emoji64"], help="bundled name, folders or zips of images"
    )
    parser.add_argument("--images", type=int, default=12_000, help="of all sources together")
    parser.add_argument("--instances", type=int, default=300, help="of keys never issued")
    parser.add_argument("--keys", type=int, default=10_000, help="random keys, each judged")
    parser.add_argument("--issued", type=int, default=100_000, help="random keys searched")
    parser.add_argument("--searched", type=int, default=100, help="images read with search too")
    parser.add_argument("--guilty", type=int, default=100, help="instances of a codebook's keys")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
