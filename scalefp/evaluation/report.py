"""Evaluation results as files: ``results.json`` for machines, ``results.md`` and plots to read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scalefp.evaluation.cells import (
    accuracy_cells,
    attribution_cells,
    compared_cell,
    verdict,
)
from scalefp.evaluation.lifting_page import lifting_page
from scalefp.evaluation.plots import drawable
from scalefp.evaluation.quality import ORIGINAL
from scalefp.evaluation.removal import OWN_PICTURES
from scalefp.evaluation.tamper import TAMPERINGS
from scalefp.evaluation.targets import LOSS
from scalefp.experiment import markdown_table, write_json, write_page
from scalefp.perturb import PERTURBATIONS


def _reading_table(results: Mapping[str, Any]) -> str:
    pools = results["config"]["pools"]
    rows = [
        [
            point["perturbation"],
            f"{point['strength']:.4g}" if point["perturbation"] in PERTURBATIONS else "",
            *accuracy_cells(point),
            *attribution_cells(point, pools, ("soft", "hard")),
            compared_cell(point["compared"]),
        ]
        for point in results["reading"]
    ]
    head = ["perturbation", "strength", "images", "bit accuracy", "95% interval", "5th percentile"]
    head += [f"{form}, {pool} image(s)" for form in ("soft", "hard") for pool in pools]
    return markdown_table([*head, "read as it is / searched (images)"], rows)


def _units_table(results: Mapping[str, Any]) -> str:
    names = dict.fromkeys(p["perturbation"] for p in results["reading"])
    rows = [[name, PERTURBATIONS[name].unit] for name in names if name in PERTURBATIONS]
    return markdown_table(["perturbation", "strength"], rows)


def _hiding_table(hiding: Mapping[str, Any]) -> str:
    measures = {"PSNR, dB": ("psnr", ".2f"), "SSIM": ("ssim", ".4f"), "LPIPS": ("lpips", ".4f")}
    if hiding["lpips"] is None:
        del measures["LPIPS"]
    rows = [
        [name.replace("_", " "), f"{figures['pairs']:,}"]
        + [
            format(figures[measure + ending], form)
            for measure, form in measures.values()
            for ending in ("", "_worst")
        ]
        for name, figures in hiding.items()
        if name != "lpips"
    ]
    head = [cell for name in measures for cell in (f"{name}, mean", f"{name}, worst 5%")]
    return markdown_table(["pairs", "number", *head], rows)


def _features_table(features: Mapping[str, Any]) -> str:
    g = features["crossed"]
    columns = {"instances": "", "data (other half)": "floor_"}
    if "twin_distance" in features:
        columns["twin without keys"] = "twin_"
    measures = {
        "Fréchet distance to the data": ("distance", ".2f"),
        "kernel distance (KID) to the data": ("kernel_distance", ".5f"),
        "precision": ("precision", ".3f"),
        "recall": ("recall", ".3f"),
        "diversity": ("diversity", ".3f"),
    }
    rows = [
        [what, *(format(features[prefix + name], form) for prefix in columns.values())]
        for what, (name, form) in measures.items()
    ]
    for what in ("latents of one key", "keys of one latent"):
        value = features[f"diversity_over_{what.split()[0]}"]
        rows.append([f"diversity over {g} {what}", f"{value:.3f}", *[""] * (len(columns) - 1)])
    return markdown_table(["figure", *columns], rows)


def _against(features: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What the features of instances' pictures are compared with, as a sentence has it."""
    if features.get("against") == ORIGINAL:
        return "the original generator's pictures, which stand for the data"
    return f"`{config['data']}`"


def _unrelated_table(unrelated: Mapping[str, Any]) -> str:
    rows = []
    groups = [("", unrelated["sources"]), (", searched for crops and turns", unrelated["thorough"])]
    for ending, sources in [*groups, ("", [unrelated["other_keys"]])]:
        for figures in sources:
            rows.append(
                [
                    figures["source"] + ending,
                    f"{figures['images']:,}",
                    f"{figures['distinct_readings']:,}",
                    *(str(figures["attributed"][form]) for form in ("soft", "hard")),
                    *(f"{figures['least_p'][form]:.2g}" for form in ("soft", "hard")),
                    f"{figures['best_match_mean']:.2f}",
                    str(figures["best_match_max"]),
                ]
            )
    head = ["images", "number", "distinct readings", "attributed, soft", "attributed, hard"]
    head += ["least p, soft", "least p, hard", "best match, mean", "best match, highest"]
    return markdown_table(head, rows)


def _tampering_table(results: Mapping[str, Any]) -> str:
    tampering, pools = results["tampering"], results["config"]["pools"]
    rows = []
    for row in [tampering["untouched"], *tampering["rows"]]:
        entry = TAMPERINGS.get(row["tampering"])
        plain = row is tampering["untouched"] or (entry is not None and not entry.unit)
        quality = [f"{row['psnr']:.1f}"]
        if "loss" in row:
            quality += [f"{row['distance']:.1f}", f"{row['loss']:+.1%}"]
            quality += [f"{row['distance_to_untouched']:.1f}"]
        strength = "" if plain else f"{row['strength']:.4g}"
        cells = [*accuracy_cells(row), *attribution_cells(row, pools, ("soft",)), *quality]
        rows.append([row["tampering"], strength, *cells])
    head = ["change", "strength", "images", "bit accuracy", "95% interval", "5th percentile"]
    head += [f"soft, {pool} image(s)" for pool in pools]
    head.append("PSNR to untouched, dB")
    if "loss" in tampering["untouched"]:
        head += ["feature distance to the data", "loss", "feature distance to untouched"]
    return markdown_table(head, rows)


def _at_loss_table(at_loss: Mapping[str, Any]) -> str:
    rows = []
    for name, figures in at_loss.items():
        where = f"{figures['strength']:.3g} {TAMPERINGS[name].unit}"
        lost = f"{figures['loss']:+.0%}"
        if not figures["reached"]:
            lost += " (not more at any strength)"
        rows.append([name, lost, where, f"{figures['accuracy']:.4f}"])
    return markdown_table(["change", "loss", "at", "bit accuracy"], rows)


def _trained_on(results: Mapping[str, Any]) -> str:
    """What stands for the data of a generator that others trained, and what copies trained on."""
    many = f"{results['config']['feature_images']:,}"
    said = ""
    if "key_and_original" in results["hiding"]:
        said += (
            " The data are what the original generator makes; fine-tuning is given "
            f"{many} pictures of it, more than a recipient has."
        )
    if any(row["tampering"] == OWN_PICTURES for row in results["tampering"]["rows"]):
        said += f" Own pictures: {many} that the recipient's copy made before it was trained."
    return said


def _tampering_parts(results: Mapping[str, Any]) -> list[str]:
    tampering, config = results["tampering"], results["config"]
    if not tampering["rows"]:
        return []
    parts = [
        "## Changing an instance's weights",
        f"{tampering['untouched']['keys']} instances, {config['tamper_images']} latents each, the "
        f"same ones throughout (for fine-tuning {config['finetune_keys']}, as many images in all), "
        "read as they are. "
        "Strengths of noise and steps are in standard deviations of each tensor. Loss: increase of "
        "the feature distance to the data over that of the untouched instances."
        + _trained_on(results),
        _tampering_table(results),
    ]
    if tampering["at_loss"]:
        parts += [
            f"Where the pictures have lost {LOSS:.0%}, interpolated between strengths:",
            _at_loss_table(tampering["at_loss"]),
        ]
    return parts


def markdown(results: Mapping[str, Any]) -> str:
    """The results as one Markdown page: targets first, then every measurement with its numbers."""
    config, environment = results["config"], results["environment"]
    features, unrelated = results["features"], results["unrelated"]
    targets = [
        [row["what"], row["published"], row["target"], row["reached"], verdict(row)]
        for row in results["targets"]
    ]
    issued = " / ".join(f"{number:,}" for number in config["issued"])
    parts = [
        "# Evaluation",
        f"{results['model'].get('method', 'Release')} `{results['model']['digest'][:16]}`, "
        f"{results['model']['resolution']} px, "
        f"{results['model']['n_bits']} bits; seed {config['seed']}; {environment['date']}; "
        f"{environment['seconds']:.0f} s on {environment['hardware']}; "
        f"torch {environment['torch']}.",
        *results["left_out"],
        "## Targets",
        "Published: the immunized model of 2022 (CelebA at 128 px), see the end. Intervals are "
        "95%, bootstrapped over keys.",
        markdown_table(["figure", "published", "target", "reached", "met"], targets),
        "## Reading the key",
        f"Unseen keys and latents, 8-bit files, real operations. Shares attributed in percent at "
        f"fpr {config['fpr']:g} among {issued} issued keys, by one and by several images of one "
        "source with their logits added. Where the decoder can search for crops and turns, the "
        "last column has the bit accuracy read as it is and searched, on so many images; changes "
        "of geometry are read searched, everything else as it is.",
        _reading_table(results),
        _units_table(results),
        *_tampering_parts(results),
        "## Hiding the key",
        "PNG files; equal images count as 100 dB."
        + (f" {results['hiding']['lpips']}." if results["hiding"]["lpips"] else ""),
        _hiding_table(results["hiding"]),
    ]
    if features:
        note = (
            ""
            if "Inception" in features["extractor"]
            else (" (not FID: numbers do not compare with Inception's)")
        )
        parts += [
            "## Likeness to the data",
            f"{features['extractor']}{note}; {features['images_each']:,} images of each kind "
            f"against as many others of {_against(features, config)}. Precision and recall: "
            "3 neighbours. Diversity is the mean feature distance of two images.",
            _features_table(features),
        ]
    parts += [
        "## Unrelated images",
        f"Each image is searched among {unrelated['searched']:,} random issued keys; the best of "
        f"them matches {unrelated['best_match_expected']:.2f} bits of an innocent image on "
        "average.",
        _unrelated_table(unrelated),
    ]
    parts += lifting_page(results)
    if results["pictures"]:
        parts += ["## Pictures", *(f"![{name}]({name})" for name in results["pictures"])]
    parts += ["## Published figures"]
    parts += [f"- {year}: {text}" for year, text in results["published"].items()]
    return "\n\n".join(parts) + "\n"


def write_results(results: Mapping[str, Any], out_dir: str | Path) -> None:
    """Write ``results.json``, ``results.md`` and the plots into a folder, each file whole.

    Raises:
        UserError: the folder cannot be made or written.
    """
    folder = Path(out_dir)
    drawn = {name: d for name, d in drawable(results).items() if name in results["pictures"]}
    write_json(folder / "results.json", results)
    write_page(folder / "results.md", markdown(results), {name: d() for name, d in drawn.items()})
