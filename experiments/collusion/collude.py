"""Who is named when several recipients make images together?

Coalitions of 2 to 5 recipients, among many issued keys, average what their instances show, average
their weights, or build an instance from layers of each. Every picture is rounded to 8 bits, as a
file holds it. Besides the release, the same is computed for an ideal linear decoder.

    python experiments/collusion/collude.py --model emoji
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import scalefp
from attacks import pictures
from collusion_report import markdown, plots
from scalefp.attribution.coalition import attribute_coalition
from scalefp.attribution.evidence import Attribution, IssuedKeys, Reading, attribute
from scalefp.data.images import to_float
from scalefp.evaluation.unrelated import issued_keys
from scalefp.experiment import Experiment, wilson
from scalefp.loading import load_model
from scalefp.metrics import psnr

COLLUDERS = (2, 3, 4, 5)
POOLS = (1, 4, 16)  # images of the coalition, taken as one source
FPR = 1e-6
# Ways to ask who it was: a reading and a registry -> whom they name.
FORMS: dict[str, Callable[..., list[Attribution]]] = {
    "hard": partial(attribute, form="hard"),
    "soft": partial(attribute, form="soft"),
    "in rounds": attribute_coalition,
}
LAW_BITS = (128, 256, 512)
# An instance read with search takes a hundred times as long; these are tried on a few coalitions.
SEARCHED_COLLUDERS, SEARCHED_POOLS = 2, (1, 4)


class Drawn:
    """Issued keys in memory, as a registry gives them: holder i has key i."""

    def __init__(self, packed: NDArray[np.uint8], n_bits: int, digest: str | None) -> None:
        self.n_bits, self.model_digest = n_bits, digest
        holders = [str(i) for i in range(len(packed))]
        self._issued = IssuedKeys(packed, holders)

    def keys_and_holders(self) -> IssuedKeys:
        return self._issued

    def confirm(self, issued: IssuedKeys, indices: Sequence[int]) -> None:
        """There is no log to compare with."""

    def bits(self, members: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Keys [c, n] of some holders."""
        return np.unpackbits(self._issued.packed[members], axis=1, count=self.n_bits)


# Who is named.


def standard_score(logits: NDArray[np.float64], bits: NDArray[np.uint8]) -> float:
    """Mean over keys [c, n] of sum(+-l) in its standard deviations under chance, logits [n]."""
    scores = (bits * 2.0 - 1) @ logits / np.sqrt(np.square(logits).sum())
    return float(scores.mean())


def count_named(
    reading: Reading, registry: Drawn, members: NDArray[np.int64], fpr: float
) -> dict[str, tuple[int, int]]:
    """(members, innocents) named by each form."""
    guilty = {str(member) for member in members}
    named = {
        form: {one.holder for one in ask(reading, registry, fpr)} for form, ask in FORMS.items()
    }
    return {form: (len(who & guilty), len(who - guilty)) for form, who in named.items()}


def summary(colluders: int, counts: Sequence[dict[str, tuple[int, int]]]) -> dict[str, Any]:
    """Shares of coalitions of which one, or all, are named; innocents named in all of them."""
    figures = {}
    for form in FORMS:
        members = np.array([count[form][0] for count in counts])
        one, everybody = int((members > 0).sum()), int((members == colluders).sum())
        figures[form] = {
            "one": one / len(counts),
            "one_ci95": wilson(one, len(counts)),
            "all": everybody / len(counts),
            "all_ci95": wilson(everybody, len(counts)),
            "innocents": sum(count[form][1] for count in counts),
        }
    return figures


def law(n_bits: int, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The same for a decoder that reads the mean of the colluders' signs without any error.

    Its registry holds the colluders alone, with so much less of ``fpr`` that each of them has to
    reach the p-value he would have to reach among all issued keys.
    """
    for colluders in COLLUDERS:
        rng = np.random.default_rng([options.seed, n_bits, colluders])
        scores, counts = [], []
        for _ in range(options.law):
            bits = rng.integers(0, 2, (colluders, n_bits), dtype=np.uint8)
            logits = (bits * 2.0 - 1).mean(axis=0)
            scores.append(standard_score(logits, bits))
            registry = Drawn(np.packbits(bits, axis=1), n_bits, None)
            fpr = FPR * colluders / options.issued
            counts.append(count_named(Reading(logits[None]), registry, np.arange(colluders), fpr))
        yield {
            "n_bits": n_bits,
            "colluders": colluders,
            "sqrt_n_over_c": float(np.sqrt(n_bits / colluders)),
            "score": float(np.mean(scores)),
            "forms": summary(colluders, counts),
        }


# The measurement.


def coalitions(model: scalefp.Model, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row of figures for each attack, size of the coalition, and number of images."""
    n_bits = model.config.n_bits
    drawn = issued_keys(n_bits, options.issued, np.random.default_rng([options.seed, n_bits]))
    registry = Drawn(drawn, n_bits, model.digest)
    for colluders in COLLUDERS:
        gathered = defaultdict(list)  # (attack, images, search) -> one entry a coalition
        title = f"coalitions of {colluders}"
        for number in tqdm(range(options.coalitions), title, unit="coalition"):
            rng = np.random.default_rng([options.seed, colluders, number])
            members = rng.choice(options.issued, colluders, replace=False)
            bits = registry.bits(members)
            instances = [model.instantiate(scalefp.Key.from_bits(row)) for row in bits]
            own, made = pictures(instances, POOLS[-1], rng)
            searched = model.searches and colluders == SEARCHED_COLLUDERS
            for attack, images in made.items():
                own_db = float(psnr(to_float(images), to_float(own[0])).mean())
                apart_db = float(psnr(to_float(own[1]), to_float(own[0])).mean())
                for search in (False, True) if searched and number < options.searched else (False,):
                    pools = SEARCHED_POOLS if search else POOLS
                    reading = model.decode(images[: pools[-1]], search=search)
                    for pool in pools:
                        source = Reading(reading.logits[:pool], model.digest).pooled()
                        score = standard_score(source.logits[0], bits)
                        counts = count_named(source, registry, members, FPR)
                        gathered[attack, pool, search].append((own_db, apart_db, score, counts))
        for (attack, pool, search), entries in gathered.items():
            own_dbs, apart_dbs, scores, named = zip(*entries, strict=True)
            yield {
                "attack": attack,
                "colluders": colluders,
                "images": pool,
                "search": search,
                "coalitions": len(entries),
                "psnr_to_own": float(np.mean(own_dbs)),
                "psnr_between_colluders": float(np.mean(apart_dbs)),
                "score": float(np.mean(scores)),
                "forms": summary(colluders, named),
            }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one release, and the law."""
    model = load_model(options.model)
    return {
        "n_bits": model.config.n_bits,
        "resolution": model.config.resolution,
        "digest": model.digest,
        "issued": options.issued,
        "fpr": FPR,
        "seed": options.seed,
        "coalitions": options.coalitions,
        "rows": list(coalitions(model, options)),
        "law": [row for n_bits in LAW_BITS for row in law(n_bits, options)],
    }


def merge(earlier: dict[str, Any], name: str, release: dict[str, Any]) -> dict[str, Any]:
    """The releases by name, and the law that is the same for all."""
    law = release.pop("law")
    return {"releases": earlier.get("releases", {}) | {name: release}, "law": law}


EXPERIMENT = Experiment(
    Path(__file__).parent, measure, markdown, plots, named_by="model", merge=merge
)


def main() -> None:
    """Measure one release, and write results, table and plots."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", default="emoji", help="bundled name or path of a release")
    parser.add_argument("--coalitions", type=int, default=100, help="of each size")
    parser.add_argument("--searched", type=int, default=10, help="of these read with search too")
    parser.add_argument("--issued", type=int, default=1_000_000)
    parser.add_argument("--law", type=int, default=400, help="coalitions of the ideal decoder")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
