"""The figures of marked images and of generators' samples as tables and as plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from scalefp.evaluation.plots import by_perturbation, plot_attribution, plot_robustness
from scalefp.evaluation.targets import ReadingTarget
from scalefp.experiment import made, markdown_table
from scalefp.perturb import PERTURBATIONS

MIN_PSNR = 38.0  # of marked images, in dB
SHARE_ISSUED = "1000000"

Row = Mapping[str, Any]


def _point(points: Sequence[Row], target: ReadingTarget) -> Row | None:
    place = target.perturbation, float(target.strength)
    return next((p for p in points if (p["perturbation"], p["strength"]) == place), None)


def _mean(point: Row) -> str:
    low, high = point["ci95"]
    return f"{point['mean']:.4f} ({low:.4f} - {high:.4f})"


def _targets(name: str, figures: Row, targets: Sequence[ReadingTarget]) -> Iterator[list[str]]:
    series = {"marked images": figures["reading"]} | {
        f"samples of {one}": points for one, points in figures["generated"].items()
    }
    for what, points in series.items():
        for target in targets:
            point = _point(points, target)
            reached, met = "not measured", ""
            if point is not None:
                reached, met = _mean(point), "yes" if point["mean"] >= target.least else "**no**"
            published = f"{target.published:g}"
            yield [name, f"{what}: {target.what}", published, f">= {target.least}", reached, met]
    decibels = figures["quality"]["psnr"]
    reached = f"{decibels['mean']:.2f} (5th percentile {decibels['p5']:.2f})"
    met = "yes" if decibels["mean"] >= MIN_PSNR else "**no**"
    yield [name, "marked images: PSNR, dB", "", f">= {MIN_PSNR:g}", reached, met]
    unrelated = figures["unrelated"]
    named = unrelated["attributed"]
    what = f"unrelated images attributed, {unrelated['searched']:,} keys, fpr {figures['fpr']:g}"
    reached = f"{named['soft']} soft, {named['hard']} hard of {unrelated['images']:,}"
    yield [name, what, "", "0", reached, "**no**" if any(named.values()) else "yes"]


def _curves(points: Sequence[Row]) -> str:
    """One row a perturbation: strength -> bit accuracy, share attributed among 10^6 keys."""
    rows = []
    for name, own in by_perturbation(points).items():
        cells = []
        for point in own:
            share = point["attributed"]["1"]["soft"][SHARE_ISSUED]
            cells.append(f"{point['strength']:.4g}: {point['mean']:.3f} / {share:.0%}")
        rows.append([name, PERTURBATIONS[name].unit, "; ".join(cells)])
    return markdown_table(["perturbation", "strength", "strength: bit accuracy / attributed"], rows)


def _shares(points: Sequence[Row], targets: Sequence[ReadingTarget]) -> str:
    """Shares attributed at the targets' strengths, by pools and numbers of issued keys."""
    rows = []
    for target in targets:
        if (point := _point(points, target)) is None:
            continue
        for pool, found in point["attributed"].items():
            shares = [f"{share:.1%}" for share in found["soft"].values()]
            rows.append([target.what, pool, f"{found['accuracy']:.4f}", *shares])
    issued = [f"{int(n):,} issued" for n in points[0]["attributed"]["1"]["soft"]]
    return markdown_table(["perturbation", "images together", "bit accuracy", *issued], rows)


def _quality(figures: Row) -> str:
    rows = [
        [name.upper(), *(f"{x[part]:.4g}" for part in ("mean", "p5", "p95", "min"))]
        for name, x in figures["quality"].items()
    ]
    return markdown_table(["measure", "mean", "5th percentile", "95th percentile", "least"], rows)


def _unrelated(unrelated: Row) -> str:
    rows = []
    for row in [*unrelated["sources"], unrelated["other_keys"]]:
        name = row["source"].replace("instances", "marked images")
        numbers = [row["images"], row["attributed"]["soft"], row["attributed"]["hard"]]
        least = f"{min(row['least_p'].values()):.2g}"
        matches = f"{row['best_match_mean']:.2f}"
        rows.append([name, *(f"{x:,}" for x in numbers), least, matches])
    head = ["images", "number", "attributed, soft", "attributed, hard", "least p"]
    return markdown_table([*head, "best match, mean"], rows)


def _release(name: str, figures: Row, targets: Sequence[ReadingTarget]) -> list[str]:
    parts = [
        f"## `{name}`: {figures['n_bits']} bits, {figures['resolution']} px, `{figures['data']}`",
        f"Release `{figures['digest'][:16]}`; {made(figures)}",
        "Marked images beside the clean ones:",
        _quality(figures),
        f"Shares attributed at fpr {figures['fpr']:g}, soft form:",
        _shares(figures["reading"], targets),
        "Every perturbation of the table; attributed: one image, among 10^6 issued keys:",
        _curves(figures["reading"]),
        f"![Bit accuracy]({name}.png)",
        f"![Attribution]({name}-attribution.png)",
        "Images that no issued key made, searched among "
        f"{figures['unrelated']['searched']:,} issued keys "
        f"({figures['unrelated']['best_match_expected']:.2f} bits match best by chance):",
        _unrelated(figures["unrelated"]),
    ]
    for one, points in figures["generated"].items():
        parts += [
            f"### Samples of `{one}`, a generator trained on marked data",
            _shares(points, targets),
            _curves(points),
            f"![Bit accuracy of samples]({name}-{one}.png)",
        ]
    return parts


def report(results: Mapping[str, Any], targets: Sequence[ReadingTarget]) -> str:
    """All figures as one page."""
    rows = [row for name, figures in results.items() for row in _targets(name, figures, targets)]
    parts = [
        "# Robustness of the mark",
        "Bit accuracy of 8-bit files after the real operation; random keys, unless said otherwise "
        "of one image by itself. Published: Yu et al., ICCV 2021, clean: marked training images, "
        "the rest: samples of ProGAN on CelebA, read off their figure 3. Intervals are 95%, "
        "bootstrapped over keys (of samples: over groups of 16).",
        markdown_table(["marker", "figure", "published", "target", "reached", "met"], rows),
    ]
    for name, figures in results.items():
        parts += _release(name, figures, targets)
    return "\n\n".join(parts) + "\n"


def plots(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Those of every marker of which more than one point was measured."""
    drawn = {}
    for name, figures in results.items():
        points = figures["reading"]
        if len(points) > 1:
            drawn[f"{name}.png"] = plot_robustness(points)
            drawn[f"{name}-attribution.png"] = plot_attribution(points, figures["fpr"])
            for one, own in figures["generated"].items():
                drawn[f"{name}-{one}.png"] = plot_robustness(own)
    return drawn
