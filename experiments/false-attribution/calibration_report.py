"""The figures of false attribution as a table and as a plot."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scalefp.attribution.evidence import FORMS
from scalefp.experiment import markdown_table, new_figure
from tallies import LEVELS

SHOWN = (1e-2, 1e-4, 1e-6)  # levels in the table
MAX_EXCESS = 3.5  # standard errors, the worst of all levels and both forms
TRIALS = 1e8


def _shares(figures: dict[str, Any]) -> list[str]:
    """Shares of pairs at the levels of the table."""
    return [f"{figures['share'][int(np.abs(LEVELS - level).argmin())]:.2g}" for level in SHOWN]


def _targets(results: dict[str, Any]) -> Iterator[list[str]]:
    drawn = results["random"]
    pairs = drawn["images"] * (drawn["keys"] + drawn["issued"])
    named = {
        form: sum(
            entry["forms"][form]["attributed"] + entry["forms"][form]["named"]
            for entry in drawn["sources"]
        )
        for form in FORMS
    }
    met = pairs >= TRIALS and not any(named.values())
    reached = ", ".join(f"{form}: {count}" for form, count in named.items())
    yield [
        f"images naming an innocent at fpr {results['fpr']:g}",
        f"0 in >= {TRIALS:.0e} (image, key) pairs",
        f"{reached}; {pairs:.1e} pairs",
        "yes" if met else "no",
    ]
    worst = {form: drawn["all"][form]["excess"] for form in FORMS}
    reached = ", ".join(f"{form}: {excess:+.1f}" for form, excess in worst.items())
    yield [
        "p-values on or above the diagonal: largest excess, standard errors",
        f"<= {MAX_EXCESS}",
        f"{reached}; {drawn['images']:,} images x {drawn['keys']:,} keys",
        "yes" if max(worst.values()) <= MAX_EXCESS else "no",
    ]


def _random_table(results: dict[str, Any]) -> str:
    rows = []
    searched = results["searched"]["sources"] if results["searched"] else []
    for entry in [*results["random"]["sources"], *searched]:
        name = "some of these, read with search" if entry in searched else f"`{entry['source']}`"
        for form in FORMS:
            own = entry["forms"][form]
            row = [name, f"{entry['images']:,}", f"{entry['distinct_readings']:,}", form]
            row += [*_shares(own), f"{own['excess']:+.1f}", f"{own['least_p']:.1e}"]
            rows.append([*row, str(own["attributed"] + own["named"])])
    head = ["images", "number", "distinct readings", "form", *(f"p <= {x:g}" for x in SHOWN)]
    return markdown_table([*head, "largest excess, s.e.", "least p", "attributed"], rows)


def _structured_table(entries: list[dict[str, Any]]) -> str:
    rows = []
    for entry in entries:
        beside = {own["form"]: own for own in entry["beside_own"]}
        for form in FORMS:
            own = entry["forms"][form]
            row = [entry["keys"], f"{entry['number']:,}", form, *_shares(own)]
            row += [f"{own['least_p']:.1e}", f"{own['named'] / entry['images']:.2%}"]
            row.append(
                f"{beside[form]['innocents_named'] / beside[form]['images']:,.1f}" if beside else ""
            )
            rows.append(row)
    head = ["keys", "number", "form", *(f"p <= {x:g}" for x in SHOWN), "least p"]
    return markdown_table([*head, "images attributed", "innocents named beside the own key"], rows)


def markdown(results: dict[str, Any]) -> str:
    """All figures as one page."""
    model, drawn = results["model"], results["random"]
    half = results["structured"][0]["images"]
    parts = [
        "# False attribution",
        f"Release `{model['name']}` ({model['digest'][:16]}), {model['n_bits']} bits; seed "
        f"{results['seed']}; {results['date']}; {results['hardware']}; "
        f"{results['cpu_seconds']} s of processor time.",
        markdown_table(["figure", "target", "reached", "met"], list(_targets(results))),
        "![P-values](p-values.png)",
        "## Random keys",
        f"Each image is held against {drawn['keys']:,} random keys: the share of pairs whose "
        "p-value is at most x should not exceed x. The standard error is that of a mean over "
        "keys, since images may read alike. Attributed: images that name one of these keys, or "
        f"one of {drawn['issued']:,} others in a search, at fpr {results['fpr']:g}.",
        _random_table(results),
        "## Keys that follow a rule",
        f"The same p-values for keys that were not drawn, on {half:,} of the images of the data "
        "sets. Images attributed: they name one of these keys if these are all that were issued. "
        "Last column: so many others an image of the instance of one such key names on average.",
        _structured_table(results["structured"]),
    ]
    return "\n\n".join(parts) + "\n"


def _curve(axes: Axes, shares: Sequence[float], **style: Any) -> None:
    """A quantile plot: the p-value over the share of pairs that have at most this one."""
    seen = np.array(shares) > 0
    axes.plot(np.array(shares)[seen], LEVELS[seen], **style)


def plots(results: dict[str, Any]) -> dict[str, Figure]:
    """Random keys beside keys that follow a rule."""
    figure = new_figure(12, 5.5)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for form, colour in zip(FORMS, ("tab:blue", "tab:gray"), strict=True):
        for entry in results["random"]["sources"]:
            _curve(left, entry["forms"][form]["share"], color=colour, linewidth=0.6, alpha=0.6)
        _curve(left, results["random"]["all"][form]["share"], color=colour, marker=".", label=form)
    for entry in results["structured"]:
        if entry["keys"] != "random":
            _curve(right, entry["forms"]["hard"]["share"], marker=".", label=entry["keys"])
    left.set_title(
        f"{results['random']['images']:,} images x {results['random']['keys']:,} random keys"
    )
    right.set_title("keys that follow a rule, hard form")
    for axes in (left, right):
        axes.plot([LEVELS[-1], 1], [LEVELS[-1], 1], "k--", linewidth=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("share of (image, key) pairs")
        axes.legend(fontsize="small")
    left.set_ylabel("p-value that this share does not exceed")
    return {"p-values.png": figure}
