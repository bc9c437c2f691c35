"""The figures of adversaries as tables and as a plot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from scalefp.detection.scores import best_of_each
from scalefp.experiment import error_bars, made, markdown_table, new_figure

TARGET = 0.55  # of the adversary's accuracy on single images, at most
COLOURS = {"shadow": "tab:blue", "informed": "tab:orange", "the key": "tab:red"}
GENERATED = " on outputs, from "
NO_MARK = "two clean generators"  # not an adversary: what is told apart without a mark
ISSUED = "1000000"

Row = Mapping[str, Any]


def chosen(rows: Sequence[Row], by: str = "validation") -> list[Row]:
    """Of each adversary in each case, the detector that did best on his own examples."""
    return best_of_each(rows, ("psnr", "threat", "learned"), by)


def _accuracy(figures: Row | None) -> str:
    if figures is None:
        return ""
    low, high = figures["ci95"]
    return f"{figures['accuracy']:.3f} ({low:.3f} - {high:.3f})"


def _ranked(figures: Row | None) -> str:
    return "" if figures is None else f"{figures['ranked']:.3f}"


def _strength(row: Row) -> str:
    return "as trained" if row["psnr"] is None else f"{row['psnr']:g} dB"


def _from(row: Row) -> str:
    """What a detector of outputs has learned from."""
    learned = str(row["learned"])
    return f"{learned}, {_strength(row)}" if learned == "images" else learned


def _targets(name: str, figures: Row) -> Iterator[list[str]]:
    cases = [(row, f"{row['threat']}, {_strength(row)}") for row in chosen(figures["rows"])]
    hindsight = chosen(figures["rows"], by="accuracy")
    for row, best in zip(
        chosen(figures["generated"]), chosen(figures["generated"], by="accuracy"), strict=True
    ):
        if row["threat"] != NO_MARK:
            cases.append((row, f"{row['threat']}{GENERATED}{_from(row)}"))
            hindsight.append(best)
    for (row, case), best in zip(cases, hindsight, strict=True):
        met = "yes" if row["accuracy"] <= TARGET else "**no**"
        after = f"{best['accuracy']:.3f}"
        yield [name, case, f"<= {TARGET}", _accuracy(row), _ranked(row), met, after]


def _trade_off(figures: Row) -> str:
    """At each strength: what the owner reads, and what each adversary reaches."""
    pools = list(figures["readings"][0]["attributed"])
    threats = list(dict.fromkeys(row["threat"] for row in figures["rows"]))
    found = {(row["psnr"], row["threat"]): row for row in chosen(figures["rows"])}
    rows = []
    for reading in figures["readings"]:
        read = [reading["attributed"][pool] for pool in pools]
        rows.append(
            [
                _strength({"psnr": reading["asked"]}),
                f"{reading['psnr']:.2f}",
                *(f"{x['accuracy']:.4f} / {x['soft'][ISSUED]:.1%}" for x in read),
                *(
                    f"{row['accuracy']:.3f} / {row['ranked']:.3f}"
                    for row in (found[reading["asked"], threat] for threat in threats)
                ),
            ]
        )
    owner = [f"owner, {pool} image{'s together' * (pool != '1')}" for pool in pools]
    return markdown_table(["strength", "PSNR measured", *owner, *threats], rows)


def _detectors(rows: Sequence[Row], case: Callable[[Row], str]) -> list[list[str]]:
    """One line a detector: the adversary, his case, and what he reaches."""
    taken = chosen(rows)
    return [
        [
            row["threat"],
            case(row),
            row["detector"] + " *" * (row in taken),
            f"{row['validation']:.3f}",
            _accuracy(row),
            _ranked(row),
            _accuracy(row["group"]),
        ]
        for row in rows
    ]


def _on_images(rows: Sequence[Row]) -> str:
    head = ["adversary", "strength", "detector", "on his own examples", "single images"]
    head += ["ranked rightly", "16 of one source"]
    return markdown_table(head, _detectors(rows, _strength))


def _on_outputs(rows: Sequence[Row]) -> str:
    head = ["adversary", "learned from", "detector", "on his own examples"]
    head += ["marked or clean generator: single images", "ranked rightly", "16 of one source"]
    head += ["two clean generators: single images", "ranked"]
    lines = _detectors(rows, _from)
    for line, row in zip(lines, rows, strict=True):
        line += [_accuracy(row["control"]), _ranked(row["control"])]
    return markdown_table(head, lines)


def _release(name: str, figures: Row) -> list[str]:
    counts = figures["images"]
    parts = [
        f"## `{name}`: {figures['n_bits']} bits, {figures['resolution']} px, `{figures['data']}`",
        f"Release `{figures['digest'][:16]}`; {counts['adversary']:,} images of the adversary, "
        f"{counts['published']:,} published, {counts['test']:,} judged; networks trained on "
        f"{figures['training_images']:,} images; {made(figures)}",
        "The owner's bit accuracy / share attributed among 10^6 issued keys at fpr 1e-6, and the "
        "adversaries' accuracy / share ranked rightly:",
        _trade_off(figures),
    ]
    if len(figures["readings"]) > 1:
        parts.append(f"![Secrecy against readability]({name}.png)")
    parts += [
        "All detectors on images; * marks the one that did best on the adversary's own examples:",
        _on_images(figures["rows"]),
    ]
    if figures["generated"]:
        own = ", ".join(f"{n} ({threat})" for threat, n in figures["own_generators"].items())
        parts += [
            "On generators' outputs"
            + (f"; the adversary's own generators, half of them marked: {own}:" if own else ":"),
            _on_outputs(figures["generated"]),
        ]
    return parts


def report(results: Mapping[str, Any]) -> str:
    """All figures as one page."""
    targets = [row for name, figures in results.items() for row in _targets(name, figures)]
    head = ["marker", "adversary", "target", "reached", "ranked rightly"]
    parts = [
        "# Secrecy: marked or clean?",
        "Accuracy of an adversary who knows the method but not the weights; 0.5 is guessing, "
        "intervals are of 95% (Wilson). The detector is the one that he would choose himself. "
        "*Ranked rightly*: probability that a marked image scores above a clean one, whatever the "
        "threshold. *Two clean generators*: the same, asked of two of which neither was trained on "
        "marked data; what is found there is not the mark.",
        markdown_table([*head, "met", "his best detector, in hindsight"], targets),
    ]
    for name, figures in results.items():
        parts += _release(name, figures)
    return "\n\n".join(parts) + "\n"


def plot(figures: Row) -> Figure:
    """What adversaries reach and what the owner reads, over the PSNR of the marked images."""
    drawing = new_figure(9.5, 4)
    left, right = drawing.subplots(1, 2, sharex=True, sharey=True)
    psnr = {reading["asked"]: reading["psnr"] for reading in figures["readings"]}
    for threat, colour in COLOURS.items():
        own = [row for row in chosen(figures["rows"]) if row["threat"] == threat]
        if not own:
            continue
        x, y = [psnr[row["psnr"]] for row in own], [row["accuracy"] for row in own]
        error_bars(left, x, y, [row["ci95"] for row in own], fmt="o-", color=colour, label=threat)
        left.plot(x, [row["ranked"] for row in own], ":", color=colour)
    left.plot([], [], "k:", label="ranked rightly")
    left.axhline(TARGET, color="k", lw=1, ls="--", label="target")
    left.set_ylabel("accuracy of the adversary, single images")
    x = list(psnr.values())
    pools = figures["readings"][0]["attributed"]
    for pool, style in zip(pools, ("o-", "s--", "^-.", "v:"), strict=False):
        y = [reading["attributed"][pool]["accuracy"] for reading in figures["readings"]]
        label = "1 image" if pool == "1" else f"{pool} images together"
        right.plot(x, y, style, color="tab:green", label=label)
    right.set_ylabel("the owner's bit accuracy")
    for axis in (left, right):
        axis.axhline(0.5, color="k", lw=1, ls=":")
        axis.set_xlabel("PSNR of the marked images as 8-bit files, dB")
        axis.set_ylim(0.45, 1.02)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small", loc="lower left")
    return drawing


def plots(results: Mapping[str, Any]) -> dict[str, Figure]:
    """One for each marker that was tried at several strengths."""
    return {
        f"{name}.png": plot(figures)
        for name, figures in results.items()
        if len(figures["readings"]) > 1
    }
