"""Distances of keys, images, features and logits as tables and as a plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scalefp.experiment import Plots, markdown_table, new_figure


def _by_bits(results: Mapping[str, Any]) -> str:
    rows = [
        [
            str(row["distance"]),
            "" if row["psnr"] is None else f"{row['psnr']:.1f}",
            f"{row['features']:.2f}",
            f"{row['logits']:.2f}",
            f"{row['bits_read']:.1f}",
        ]
        for row in results["rows"]
    ]
    two = results["two_latents"]
    rows.append(["two latents, one key", f"{two['psnr']:.1f}", f"{two['features']:.2f}", "", ""])
    columns = ["key bits that differ", "PSNR of the images, dB", "distance of features"]
    columns += ["root mean square of logits", "bits read that differ"]
    return markdown_table(columns, rows, right=range(5))


def _between(results: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{row['at']:.3g}",
            *(f"{row[name]:.3f}" for name in ("first", "second", "common")),
            *(f"{row[name]:.0%}" for name in ("names_first", "names_second")),
            f"{row['features']:.2f}",
        ]
        for row in results["between"]
    ]
    columns = ["part of the way", "read as the first key, bits that differ", "as the second key"]
    columns += ["bits in common", "first holder named", "second holder named"]
    columns += ["distance of features from the start"]
    return markdown_table(columns, rows, right=range(7))


def report(results: Mapping[str, Any]) -> str:
    """All figures as one page."""
    return (
        f"{results['date']}, {results['hardware']}, release `{results['model']}`, seed "
        f"{results['seed']}, {results['latents']} latents, a key for each; features: "
        f"{results['features']}.\n\n{_by_bits(results)}\n\n"
        "On the straight way between two random keys, single images; named at fpr 1e-6 among 10^6 "
        f"issued keys:\n\n{_between(results)}\n"
    )


def plots(results: Mapping[str, Any]) -> Plots:
    """Distances over the bits that differ, and what is read between two keys."""
    figure = new_figure(12, 6.6)
    (pixels, features), (logits, between) = figure.subplots(2, 2)
    rows = results["rows"]
    at = [row["distance"] for row in rows]
    for axes, name, label, first in (
        (pixels, "psnr", "PSNR of the images, dB", 1),
        (features, "features", "distance of features", 0),
        (logits, "logits", "root mean square of logits", 0),
    ):
        axes.plot(at[first:], [row[name] for row in rows[first:]], "o-")
        axes.set(xlabel="key bits that differ", ylabel=label)
    other = results["two_latents"]["features"]
    features.axhline(other, color="grey", ls="--", label="two latents under one key")
    features.set_ylim(0, 1.1 * other)
    features.legend(fontsize="small", loc="center right")
    way = [row["at"] for row in results["between"]]
    for name, label, style in (
        ("first", "read as the first key", "o-"),
        ("second", "read as the second key", "o-"),
        ("names_first", "first holder named", "--"),
        ("names_second", "second holder named", "--"),
    ):
        colour = "tab:blue" if "first" in name else "tab:orange"
        y = [row[name] for row in results["between"]]
        between.plot(way, y, style, color=colour, label=label)
    between.set(
        xlabel="part of the way from one key to another", ylabel="share", ylim=(-0.03, 1.03)
    )
    between.legend(fontsize="small", loc="center left")
    for axes in (pixels, features, logits, between):
        axes.grid(alpha=0.3)
    return {"geometry.png": figure}
