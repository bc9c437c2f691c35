"""The figures of detection and attribution as tables and as a plot."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from scalefp.experiment import Plots, markdown_table, new_figure, wilson

OURS = "our reading"
COLOURS = {
    OURS: "tab:green",
    "attribution CNN": "tab:blue",
    "attribution CNN, blur and JPEG": "tab:purple",
    "generic detector": "tab:orange",
}
# Accuracy of attribution (Wang et al.: of detection), closed and open world, as the paper of 2022
# gives them for 1, 10 and 100 generators of faces.
PUBLISHED: dict[str, dict[int, tuple[float, float | None]]] = {
    OURS: {1: (1.0, 1.0), 10: (1.0, 1.0), 100: (1.0, 1.0)},
    "attribution CNN": {1: (0.997, 0.893), 10: (0.998, 0.102), 100: (0.955, None)},
    "generic detector": {1: (0.890, 0.883)},
}
SAID = {"right": "tab:green", "wrong": "tab:red", "nobody": "lightgrey"}
KINDS = {
    "own": "instances that\nwere trained on",
    "new": "instances issued\nafter training",
    "strangers": "instances never\nissued",
    "real": "real pictures",
}

Row = Mapping[str, Any]


def groups(results: Mapping[str, Any]) -> dict[tuple[str, int], list[Row]]:
    """The rows of all seeds by method and number of instances."""
    found: dict[tuple[str, int], list[Row]] = {}
    for method in COLOURS:
        for row in sorted(results["rows"], key=lambda row: row["count"]):
            if row["method"] == method:
                found.setdefault((method, row["count"]), []).append(row)
    return found


def accuracies(rows: Sequence[Row], file: str, question: str, world: str) -> list[float]:
    """One for each seed; none where the method does not answer the question."""
    return [r[file][question][world]["accuracy"] for r in rows if r[file][question] is not None]


def undoubting(rows: Sequence[Row], file: str) -> list[float]:
    """Attribution in the open world by a classifier that names its likeliest class."""
    found = [row[file].get("never_in_doubt") for row in rows]
    return [one["attribution"]["accuracy"] for one in found if one is not None]


def spread(values: Sequence[float]) -> str:
    """Mean, and lowest and highest seed."""
    if not values:
        return ""
    low, high = min(values), max(values)
    about = "" if f"{low:.3f}" == f"{high:.3f}" else f" ({low:.3f} to {high:.3f})"
    return f"{np.mean(values):.3f}{about}"


def shares(rows: Sequence[Row], file: str, kind: str) -> dict[str, float]:
    """What was said of one kind of images, all seeds together."""
    tallies = [row[file]["said"][kind] for row in rows]
    total = sum(sum(tally.values()) for tally in tallies)
    return {said: sum(tally[said] for tally in tallies) / total for said in SAID}


def _published(method: str, count: int) -> str:
    figures = PUBLISHED.get(method, {}).get(count)
    if figures is None:
        return ""
    return " / ".join("N/A" if x is None else f"{x:.3f}" for x in figures)


def _accuracy_table(results: Mapping[str, Any], file: str) -> str:
    cases = [(q, w) for q in ("detection", "attribution") for w in ("closed", "open")]
    lines = [
        [
            method,
            str(count),
            *(spread(accuracies(rows, file, *case)) for case in cases),
            spread(undoubting(rows, file)),
            spread([row[file]["said"]["new"]["right"] / sum(row[file]["said"]["new"].values())
                    for row in rows if method != "generic detector"]),
            _published(method, count),
        ]
        for (method, count), rows in groups(results).items()
    ]  # fmt: skip
    head = ["method", "instances", *(f"{question}, {world}" for question, world in cases)]
    head.append("attribution, open, never in doubt")
    return markdown_table(
        [*head, "new instances named rightly", "published closed / open"], lines, right={1}
    )


def _said_table(results: Mapping[str, Any]) -> str:
    lines = []
    for (method, count), rows in groups(results).items():
        for file in ("PNG", "JPEG 80"):
            cells = [method, str(count), file]
            for kind in KINDS:
                found = shares(rows, file, kind)
                cells.append(" / ".join(f"{found[said]:.1%}" for said in SAID))
            lines.append(cells)
    return markdown_table(["method", "instances", "file", *KINDS], lines, right={1})


def report(results: Mapping[str, Any]) -> str:
    """All figures as one page."""
    found = groups(results)
    own = [row["PNG"]["said"] for key, rows in found.items() if key[0] == OURS for row in rows]
    right = sum(said["own"]["right"] + said["new"]["right"] for said in own)
    trials = sum(sum(said["own"].values()) + sum(said["new"].values()) for said in own)
    others = sum(said["strangers"]["wrong"] + said["real"]["wrong"] for said in own)
    silent = sum(sum(said["strangers"].values()) + sum(said["real"].values()) for said in own)
    low, high = wilson(right, trials)
    seeds = ", ".join(map(str, results["seeds"]))
    parts = [
        "# Detection and attribution over 1, 10 and 100 instances",
        f"{results['date']}, {results['hardware']}, release `{results['model']}` "
        f"({results['release'][:16]}), real images `{results['data']}`, seeds {seeds}; "
        f"{results['training']:,} images of all instances to learn from, at least "
        f"{results['test']:,} of each kind to judge; "
        f"{results['measured_s'] / 60:.0f} minutes of processor time.",
        "Accuracy on single images: mean of the seeds, in brackets the lowest and the highest. "
        "Closed world: images of issued instances (detection: and real ones). Open world: also "
        "images of instances that were never issued, and real ones; the right answer is nobody. "
        "An attribution CNN says so where it is less sure than of 95% of its own held-out images. "
        "New: instances issued after training, our reading with their keys in the registry.",
        "## PNG files",
        _accuracy_table(results, "PNG"),
        "## The same images as JPEG files of quality 80",
        _accuracy_table(results, "JPEG 80"),
        f"Our reading, PNG files, all rows and seeds together: {right:,} of {trials:,} images of "
        f"issued instances name the right holder (95%: {low:.4f} to {high:.4f}, Wilson); of "
        f"{silent:,} others {others} name somebody.",
        "## What is said of each kind of image",
        "Share of images for which the right one is named / somebody else / nobody. The generic "
        "detector's only name is *generated*, which counts as somebody else.",
        _said_table(results),
    ]
    return "\n\n".join(parts) + "\n"


def plots(results: Mapping[str, Any]) -> Plots:
    """Accuracy over the number of instances, and what is said of each kind of image."""
    found = groups(results)
    largest = max(count for _, count in found)
    figure = new_figure(12, 5.2)
    panels: Any = figure.subfigures(1, 2, width_ratios=[4, 7])
    left, right = panels
    axes = left.subplots()
    for method, colour in COLOURS.items():
        points = {count: rows for (name, count), rows in found.items() if name == method}
        for file, style in (("PNG", "o-"), ("JPEG 80", "o:")):
            means = [accuracies(rows, file, "attribution", "open") for rows in points.values()]
            if all(means):
                label = method if file == "PNG" else None
                y = [float(np.mean(values)) for values in means]
                axes.plot(list(points), y, style, color=colour, label=label)
        open_world = {n: x[1] for n, x in PUBLISHED.get(method, {}).items() if x[1] is not None}
        if method != "generic detector":
            axes.plot([*open_world], [*open_world.values()], "*", color=colour, ms=11, alpha=0.5)
    axes.plot([], [], "k:", label="after JPEG 80")
    axes.plot([], [], "k*", label="published, faces", ls="")
    axes.set(xscale="log", xlabel="instances", ylabel="attribution, open world", ylim=(0, 1.04))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(0.0, 0.42))
    rows_of_axes = right.subplots(len(KINDS), 2, width_ratios=[1, 6])
    for (kind, title), (picture, bars) in zip(KINDS.items(), rows_of_axes, strict=True):
        image = Image.open(BytesIO(base64.b64decode(results["shown"][kind])))
        picture.imshow(np.asarray(image))
        picture.set_axis_off()
        for place, method in enumerate(reversed(COLOURS)):
            start = 0.0
            said = shares(found[method, largest], "PNG", kind)
            for name, colour in SAID.items():
                shade = "tab:orange" if method == "generic detector" and name == "wrong" else colour
                bars.barh(place, said[name], left=start, color=shade)
                start += said[name]
        bars.set(xlim=(0, 1), yticks=range(len(COLOURS)), yticklabels=[*reversed(COLOURS)])
        bars.set_title(f"{title}".replace("\n", " "), fontsize="medium", loc="left")
        bars.tick_params(labelsize="small", labelbottom=kind == "real")
    labels = {"right": "the right one", "wrong": "somebody else", "nobody": "nobody"}
    for name, colour in SAID.items():
        rows_of_axes[-1][1].barh(0, 0, color=colour, label=labels[name])
    rows_of_axes[-1][1].barh(0, 0, color="tab:orange", label="“generated”")
    right.legend(loc="outside lower center", ncols=4, fontsize="small")
    right.suptitle(f"Who is named, {largest} instances, single PNG files")
    return {"detection.png": figure}
