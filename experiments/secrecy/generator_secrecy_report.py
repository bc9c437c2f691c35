"""The figures of adversaries who look for fingerprints, as tables and as a plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scalefp.detection.scores import best_of_each
from scalefp.experiment import Plots, error_bars, made, markdown_table, new_figure
from scalefp.files import counted

TARGET = 0.55  # of the adversary's accuracy on single images, at most
COLOURS = {"shadow": "tab:blue", "informed": "tab:orange", "the key": "tab:red"}
CASE = ("strength", "threat", "examples")

Row = Mapping[str, Any]


def _accuracy(figures: Row | None) -> str:
    if figures is None:
        return ""
    low, high = figures["ci95"]
    return f"{figures['accuracy']:.3f} ({low:.3f} to {high:.3f})"


def _row(row: Row, mark: str) -> list[str]:
    return [
        f"{row['strength']:g}",
        row["threat"],
        f"{row['examples']:,}",
        row["detector"] + mark,
        f"{row['validation']:.3f}",
        _accuracy(row),
        f"{row['ranked']:.3f}",
        *(_accuracy(row["together"][m]) for m in list(row["together"])[1:]),
    ]


def _readings(figures: Row) -> str:
    lines = [
        [
            f"{row['strength']:g}",
            f"{row['psnr']:.1f}",
            f"{row['bit_accuracy']:.4f}",
            f"{row['named']:.1%}",
            f"{row['named_together']:.1%}",
        ]
        for row in figures["readings"]
    ]
    head = ["strength", "PSNR to no key, dB", "the owner's bit accuracy", "named", "named, 16"]
    return markdown_table(head, lines, right=range(5))


def _clean(figures: Row) -> str:
    """What is told from the instances of a release."""
    if figures.get("twin") is None:
        return "told from itself without a key"
    told = f"told from `{figures['twin'][:16]}`, its twin, which was trained without keys"
    if not (shadows := figures.get("shadow_twins")):
        return told
    return f"{told}; the shadow has {counted(len(shadows), 'release')} with a twin each"


def _release(name: str, figures: Row) -> list[str]:
    best = best_of_each(figures["rows"], CASE)
    head = ["strength", "adversary", "examples of each", "detector", "on his own examples"]
    head += ["1 image", "ranked rightly"]
    head += [f"{m} images together" for m in list(figures["rows"][0]["together"])[1:]]
    lines = [_row(row, " *" if row in best else "") for row in figures["rows"]]
    return [
        f"## `{name}`: {figures['n_bits']} bits, {figures['resolution']} px",
        f"Release `{figures['digest'][:16]}`, {_clean(figures)}; networks trained on "
        f"{figures['training_images']:,} images; {made(figures)}",
        f"{figures['images']:,} images of each class are judged, of the very key a quarter of "
        "that. What the owner reads from them; named: share of images, or of 16 together, for "
        "which their holder is named at fpr 1e-6 among 10^6 issued keys:",
        _readings(figures),
        markdown_table(head, lines, right={0, 2}),
        f"![Without a key, with one, and the difference]({name}-pictures.png)",
    ]


def report(results: Mapping[str, Any]) -> str:
    """All figures as one page."""
    lines = []
    for name, figures in results.items():
        for row in best_of_each(figures["rows"], CASE):
            met = "yes" if row["accuracy"] <= TARGET else "**no**"
            at = "" if row["strength"] == 1 else f", strength {row['strength']:g}"
            case = f"{row['threat']}, {row['examples']:,} examples of each{at}"
            lines.append([name, case, f"<= {TARGET}", _accuracy(row), row["detector"], met])
    head = ["release", "adversary", "target", "reached on single images", "by", "met"]
    parts = [
        "# Secrecy of generated images: an instance, or the generator without a key?",
        "Accuracy of an adversary who does not have the decoder; 0.5 is guessing, intervals are of "
        "95% (Wilson). The detector is the one that did best on his own examples, marked * below. "
        "*Ranked rightly*: probability that an instance's image scores above a plain one, whatever "
        "the threshold.",
        markdown_table(head, lines),
    ]
    for name, figures in results.items():
        parts += _release(name, figures)
    return "\n\n".join(parts) + "\n"


def plots(results: Mapping[str, Any]) -> Plots:
    """What adversaries reach and what the owner reads, over the strength of the fingerprint."""
    found = {name: x for name, x in results.items() if len(x["readings"]) > 1}
    return {f"{name}.png": plot(name, figures) for name, figures in found.items()}


def plot(name: str, figures: Row) -> Any:
    """One release whose fingerprints were made weaker."""
    figure = new_figure(9.5, 4)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    psnr = {row["strength"]: row["psnr"] for row in figures["readings"]}
    most = max(row["examples"] for row in figures["rows"])
    best = [row for row in best_of_each(figures["rows"], CASE) if row["examples"] == most]
    for threat, colour in COLOURS.items():
        rows = [row for row in best if row["threat"] == threat]
        if rows:
            x, y = [psnr[row["strength"]] for row in rows], [row["accuracy"] for row in rows]
            intervals = [row["ci95"] for row in rows]
            error_bars(left, x, y, intervals, fmt="o-", color=colour, label=threat)
            left.plot(x, [row["ranked"] for row in rows], ":", color=colour)
    left.plot([], [], "k:", label="ranked rightly")
    left.axhline(TARGET, color="k", lw=1, ls="--", label="target")
    left.set_ylabel("the adversary, single images")
    x = [row["psnr"] for row in figures["readings"]]
    for field, label, style in (
        ("bit_accuracy", "bit accuracy, 1 image", "o-"),
        ("named", "holder named, 1 image", "s--"),
        ("named_together", "holder named, 16 images", "^-."),
    ):
        y = [row[field] for row in figures["readings"]]
        right.plot(x, y, style, color="tab:green", label=label)
    right.set_ylabel("the owner")
    for axes in (left, right):
        axes.axhline(0.5, color="k", lw=1, ls=":")
        axes.set(xlabel="PSNR to the image without a key, dB", ylim=(-0.03, 1.03))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="lower left")
    figure.suptitle(f"{name}: {figures['n_bits']} bits, {figures['resolution']} px")
    return figure
