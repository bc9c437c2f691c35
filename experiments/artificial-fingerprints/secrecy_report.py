"""The figures of adversaries as a table and as a plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from record import made, table
from scalefp.files import atomic_path

TARGET = 0.55  # of the adversary's accuracy on single images, at most
COLOURS = {"shadow": "tab:blue", "informed": "tab:orange", "the key": "tab:red"}
GENERATED = ("labelled outputs", "two clean generators")

Row = Mapping[str, Any]


def chosen(rows: Sequence[Row]) -> list[Row]:
    """Of each adversary at each strength, the detector that did best on his own examples."""
    best: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        case = row["psnr"], row["threat"]
        if case not in best or row["validation"] > best[case]["validation"]:
            best[case] = row
    return list(best.values())


def _accuracy(figures: Row) -> str:
    low, high = figures["ci95"]
    return f"{figures['accuracy']:.3f} ({low:.3f} - {high:.3f})"


def _strength(row: Row) -> str:
    return "as trained" if row["psnr"] is None else f"{row['psnr']:g}"


def _row(row: Row, taken: Sequence[Row]) -> list[str]:
    group, outputs = row["group"], row.get("outputs")
    generated = row["threat"] in GENERATED
    return [
        row["threat"],
        "" if generated else _strength(row),
        row["detector"] + (" *" if row in taken else ""),
        f"{row['validation']:.3f}",
        _accuracy(row),
        f"{row['ranked']:.3f}",
        _accuracy(group) if group else "",
        f"{outputs['accuracy']:.3f} / {outputs['ranked']:.3f}" if outputs else "",
    ]


def _targets(name: str, figures: Row) -> Iterator[list[str]]:
    for row in chosen(figures["rows"]):
        if row["threat"] in GENERATED[1:]:
            continue
        strength = "" if row["threat"] in GENERATED else f", {_strength(row)} dB"
        yield [
            name,
            f"{row['threat']}{strength.replace('as trained dB', 'as trained')}",
            f"<= {TARGET}",
            _accuracy(row),
            "yes" if row["accuracy"] <= TARGET else "**no**",
        ]


def _readings(figures: Row) -> str:
    rows = []
    for reading in figures["readings"]:
        pool, together = list(reading["attributed"].items())[-1]
        one = reading["attributed"]["1"]
        shares = (f"{x['soft']['1000000']:.1%}" for x in (one, together))
        rows.append(
            [
                "as trained" if reading["asked"] is None else f"{reading['asked']:g}",
                f"{reading['psnr']:.2f}",
                f"{reading['mean']:.4f}",
                f"{together['accuracy']:.4f}",
                *shares,
            ]
        )
    head = ["strength, dB", "PSNR measured, dB", "bit accuracy", "of 16 images together"]
    return table([*head, "attributed, 1 image", "attributed, 16 images"], rows)


def _release(name: str, figures: Row) -> list[str]:
    counts = figures["images"]
    taken = chosen(figures["rows"])
    head = ["adversary", "strength, dB", "detector", "on his own examples", "single images"]
    head += ["ranked rightly", "16 of one source", "on generated images: accuracy / ranked rightly"]
    return [
        f"## `{name}`: {figures['n_bits']} bits, {figures['resolution']} px, `{figures['data']}`",
        f"Release `{figures['digest'][:16]}`; {counts['adversary']:,} images of the adversary, "
        f"{counts['published']:,} published, {counts['test']:,} judged; networks trained on "
        f"{figures['training_images']:,} images; {made(figures)}",
        "What the owner himself reads from the judged images (attributed: among 10^6 issued keys "
        "at fpr 1e-6):",
        _readings(figures),
        "The adversaries; * marks the detector that did best on the adversary's own examples:",
        table(head, [_row(row, taken) for row in figures["rows"]]),
        f"![Secrecy against readability]({name}.png)",
    ]


def report(results: Mapping[str, Any]) -> str:
    """All figures as one page."""
    targets = [row for name, figures in results.items() for row in _targets(name, figures)]
    parts = [
        "# Secrecy: marked or clean?",
        "Accuracy of an adversary who knows the method but not the weights; 0.5 is guessing, "
        "intervals are of 95% (Wilson). The detector is the one that he would choose himself. "
        "*Ranked rightly*: probability that a marked image scores above a clean one, whatever the "
        "threshold.",
        table(["marker", "adversary", "target", "reached", "met"], targets),
    ]
    for name, figures in results.items():
        parts += _release(name, figures)
    return "\n\n".join(parts) + "\n"


def plot(figures: Row, path: Path) -> None:
    """Accuracy of each adversary against what the owner reads, one point for each strength."""
    drawing = Figure(figsize=(9.5, 4), layout="constrained")
    axes = drawing.subplots(1, 2, sharey=True)
    readings = {reading["asked"]: reading for reading in figures["readings"]}
    rows = [row for row in chosen(figures["rows"]) if row["threat"] in COLOURS]
    for threat, colour in COLOURS.items():
        own = [row for row in rows if row["threat"] == threat]
        y = [row["accuracy"] for row in own]
        below = [row["accuracy"] - row["ci95"][0] for row in own]
        above = [row["ci95"][1] - row["accuracy"] for row in own]
        reached = [readings[row["psnr"]] for row in own]
        for axis, x in (
            (axes[0], [reading["psnr"] for reading in reached]),
            (axes[1], [reading["mean"] for reading in reached]),
        ):
            axis.errorbar(x, y, (below, above), fmt="o-", color=colour, capsize=2, label=threat)
    for axis, label in zip(axes, ("PSNR of the marked images, dB", "bit accuracy"), strict=True):
        axis.axhline(0.5, color="k", lw=1, ls=":")
        axis.axhline(TARGET, color="k", lw=1, ls="--", label="target")
        axis.set_xlabel(label)
        axis.set_ylim(0.45, 1.02)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy of the adversary, single images")
    axes[1].legend(fontsize="small", loc="center left")
    with atomic_path(path) as temporary:
        drawing.savefig(temporary, format="png", dpi=100, metadata={"Software": None})
