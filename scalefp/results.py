"""Evaluation results as files: ``results.json`` for machines, ``results.md`` for readers."""

import json
from pathlib import Path
from typing import Any

from scalefp.errors import UserError
from scalefp.files import atomic_path


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _reading_table(results: dict[str, Any]) -> str:
    rows = []
    for copy, figures in results["reading"].items():
        single, pooled = figures["single"], figures["pooled"]
        low, high = single["ci95"]
        row = [copy, f"{single['mean']:.4f}", f"{low:.4f} - {high:.4f}", f"{single['p5']:.3f}"]
        row += [f"{single['min']:.3f}", f"{single['attributed']:.2%}", f"{pooled['mean']:.4f}"]
        rows.append([*row, f"{pooled['attributed']:.2%}"])
    each = results["config"]["pooled"]
    head = ["copy", "bit accuracy", "95% interval", "5th percentile", "minimum", "attributed"]
    return _table([*head, f"{each} pooled: bit accuracy", f"{each} pooled: attributed"], rows)


def _hiding_table(results: dict[str, Any]) -> str:
    rows = []
    for name, figures in results["hiding"].items():
        row = [name.replace("_", " "), f"{figures['pairs']:,}", f"{figures['psnr']:.2f}"]
        row += [f"{figures['psnr_p5']:.2f}", f"{figures['ssim']:.4f}", f"{figures['ssim_p5']:.4f}"]
        rows.append(row)
    head = ["pairs", "number", "PSNR dB, mean", "PSNR dB, 5th percentile", "SSIM, mean"]
    return _table([*head, "SSIM, 5th percentile"], rows)


def _features_table(features: dict[str, Any]) -> str:
    g = features["crossed"]
    rows = [
        ["Fréchet distance to the data", "distance", "distance_floor", ".2f"],
        ["kernel distance (KID) to the data", "kernel_distance", "kernel_distance_floor", ".5f"],
        ["diversity", "diversity", "diversity_data", ".3f"],
        [f"diversity over {g} latents of one key", "diversity_over_latents", "", ".3f"],
        [f"diversity over {g} keys of one latent", "diversity_over_keys", "", ".3f"],
    ]
    cells = [
        [name, format(features[own], form), format(features[data], form) if data else ""]
        for name, own, data, form in rows
    ]
    return _table(["figure", "instances", "data (other half)"], cells)


def _unrelated_table(unrelated: dict[str, Any]) -> str:
    rows = [
        [
            figures["source"],
            f"{figures['images']:,}",
            f"{figures['distinct_readings']:,}",
            str(figures["attributed"]),
            f"{figures['best_match_mean']:.2f}",
            str(figures["best_match_max"]),
        ]
        for figures in [*unrelated["sources"], unrelated["other_keys"]]
    ]
    head = ["images", "number", "distinct readings", "attributed", "best match, mean"]
    return _table([*head, "best match, highest"], rows)


def markdown(results: dict[str, Any]) -> str:
    """The results as one Markdown page: targets first, then every measurement with its numbers."""
    config, rule, environment = results["config"], results["attribution"], results["environment"]
    features, unrelated = results["features"], results["unrelated"]
    verdicts = {True: "yes", False: "no", None: ""}
    targets = [
        [row["what"], row["target"], row["reached"], verdicts[row["met"]]]
        for row in results["targets"]
    ]
    single = results["reading"]["PNG"]["single"]["sources"]
    pooled = results["reading"]["PNG"]["pooled"]["sources"]
    needed = "no number of" if rule["matches_needed"] is None else rule["matches_needed"]
    parts = [
        "# Evaluation",
        f"Release `{results['model']['digest'][:16]}`, {results['model']['resolution']} px, "
        f"{rule['n_bits']} bits; seed {config['seed']}; {environment['date']}; "
        f"{environment['seconds']:.0f} s on {environment['hardware']}; "
        f"torch {environment['torch']}.",
        "## Targets",
        _table(["figure", "target", "reached", "met"], targets),
        "## Reading the key",
        f"{config['keys']} unseen keys, {config['images_per_key']} unseen latents each: "
        f"{single:,} images from 8-bit files, {pooled:,} sets of {config['pooled']} images of one "
        "instance with their logits added. Intervals are bootstrapped over keys. Attributed: "
        f"{needed} of {rule['n_bits']} bits match the own key, which names anybody wrongly with "
        f"probability at most {rule['fpr']:g} among {rule['issued']:,} issued keys.",
        _reading_table(results),
        "## Hiding the key",
        "PNG files; equal images count as 100 dB.",
        _hiding_table(results),
    ]
    if features:
        parts += [
            "## Likeness to the data",
            f"{features['extractor']} (not FID: numbers do not compare with Inception's); "
            f"{features['images_each']:,} images of each kind against as many others of "
            f"`{config['data']}`. Diversity is the mean feature distance of two images.",
            _features_table(features),
        ]
    parts += [
        "## Unrelated images",
        f"Each image is searched among {unrelated['issued']:,} random issued keys; the best match "
        f"of an innocent image is {unrelated['best_match_expected']:.2f} bits on average, "
        f"{needed} bits are needed to be attributed.",
        _unrelated_table(unrelated),
    ]
    return "\n\n".join(parts) + "\n"


def write_results(results: dict[str, Any], out_dir: str | Path) -> None:
    """Write ``results.json`` and ``results.md`` into a folder (made if missing), each whole.

    Raises:
        UserError: the folder cannot be made or written.
    """
    out = Path(out_dir)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write into {out} ({error.strerror}): choose another place"
        ) from error
    texts = {
        "results.json": json.dumps(results, indent=1, allow_nan=False) + "\n",
        "results.md": markdown(results),
    }
    for name, text in texts.items():
        with atomic_path(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
