"""Does a recipient erase the fingerprint by flattening the constant maps of an instance?

    python experiments/flattening/flatten.py --model emoji

writes results.json and results.md beside this file: one row for each share of the maps removed.
The same change stands among others, with plots, in the report of ``scalefp evaluate``.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import scalefp
from scalefp.evaluation.features import choose_extractor
from scalefp.evaluation.removal import Tampered, attempts
from scalefp.evaluation.run import hardware
from scalefp.evaluation.samples import EvaluateConfig, Samples
from scalefp.files import atomic_path
from scalefp.loading import load_model

POOLS, ISSUED = [1, 4], 1_000_000


def measure(model: scalefp.Model, config: EvaluateConfig) -> list[dict[str, Any]]:
    """Figures of the untouched instances, then of each share of the maps removed."""
    extractor = choose_extractor(config.features, config.feature_weights)
    tampered = Tampered(model, Samples(model, config), extractor, config)
    tries = tqdm(attempts(config), "flattening", unit="strength")
    return [tampered.nothing(), *(tampered.attempt(attempt) for attempt in tries)]


def table(rows: list[dict[str, Any]], fpr: float) -> str:
    """The rows as Markdown."""
    shares = [f"attributed, {pool} image(s)" for pool in POOLS]
    head = ["maps removed", "bit accuracy", *shares, "PSNR to untouched, dB", "feature distance"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        attributed = [row["attributed"][str(pool)]["soft"][str(ISSUED)] for pool in POOLS]
        distance = f"{row['distance']:.1f} ({row['loss']:+.1%})" if "loss" in row else ""
        cells = [f"{row['strength']:.0%}", f"{row['mean']:.4f}", *(f"{s:.1%}" for s in attributed)]
        lines.append([*cells, f"{row['psnr']:.1f}", distance])
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{body}\n\nAttributed at fpr {fpr:g} among {ISSUED:,} issued keys, soft form.\n"


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="emoji", help="bundled name or path of a release")
    parser.add_argument("--keys", type=int, default=50)
    parser.add_argument("--images", type=int, default=10, help="images of each instance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = EvaluateConfig(
        seed=options.seed,
        keys=options.keys,
        tamper_keys=options.keys,
        tamper_images=options.images,
        tamperings=["flatten"],
        pools=POOLS,
        issued=[ISSUED],
    )
    model = load_model(options.model)
    rows = measure(model, config)
    results = {
        "release": model.digest,
        "keys": options.keys,
        "images_per_key": options.images,
        "seed": options.seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "rows": rows,
    }
    texts = {"results.json": json.dumps(results, indent=1) + "\n"}
    texts["results.md"] = table(rows, config.fpr)
    for name, text in texts.items():
        with atomic_path(options.out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(texts["results.md"], end="")


if __name__ == "__main__":
    main()
