"""The figures of coalitions as ``results.json``, as a table and as plots."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scalefp.files import atomic_path

FORMS = ("hard", "soft", "in rounds")
COLOURS = {"hard": "tab:gray", "soft": "tab:blue", "in rounds": "tab:red"}
SHOWN_IMAGES = 4  # of one source, in the plots
BOTH_NAMED = 0.95  # wanted of two who average their weights, with that many images


def load_results(folder: Path) -> dict[str, Any]:
    """The figures of an earlier run, or none."""
    path = folder / "results.json"
    if path.is_file():
        results: dict[str, Any] = json.loads(path.read_bytes())
        return results
    return {"releases": {}, "law": []}


# The table.


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shares(forms: dict[str, Any]) -> list[str]:
    """One cell a form: coalitions of which one is named / all are."""
    return [f"{forms[form]['one']:.0%} / {forms[form]['all']:.0%}" for form in FORMS]


def _targets(name: str, release: dict[str, Any]) -> Iterator[list[str]]:
    rows = release["rows"]
    innocents = sum(row["forms"][form]["innocents"] for row in rows for form in FORMS)
    trials = sum(row["coalitions"] for row in rows) * release["issued"]
    reached = f"{innocents} in {trials:.1e} (reading, key) pairs, each form"
    yield [name, "innocents named", "0", reached, "no" if innocents else "yes"]
    wanted = {"attack": "weights averaged", "colluders": 2, "images": SHOWN_IMAGES, "search": False}
    (row,) = [row for row in rows if wanted.items() <= row.items()]
    for form in ("soft", "in rounds"):
        share, (low, high) = row["forms"][form]["all"], row["forms"][form]["all_ci95"]
        yield [
            name,
            f"two who average their weights, {SHOWN_IMAGES} images: both named ({form})",
            f">= {BOTH_NAMED:.0%}",
            f"{share:.0%} ({low:.0%} to {high:.0%}) of {row['coalitions']} coalitions",
            "yes" if share >= BOTH_NAMED else "no",
        ]


def _release(name: str, release: dict[str, Any]) -> list[str]:
    law = (release["n_bits"] / colluders for colluders in range(1, 6))
    expected = dict(enumerate((ratio**0.5 for ratio in law), start=1))
    rows = [
        [
            row["attack"] + (", read with search" if row["search"] else ""),
            str(row["colluders"]),
            str(row["images"]),
            str(row["coalitions"]),
            f"{row['psnr_to_own']:.1f}",
            f"{row['psnr_between_colluders']:.1f}",
            f"{row['score']:.2f}",
            f"{expected[row['colluders']]:.2f}",
            *_shares(row["forms"]),
            str(sum(row["forms"][form]["innocents"] for form in FORMS)),
        ]
        for row in release["rows"]
    ]
    head = ["attack", "colluders", "images", "coalitions", "PSNR to own, dB", "own apart, dB"]
    head += ["score", "sqrt(n/c)", *FORMS, "innocents"]
    return [
        f"## `{name}`: {release['n_bits']} bits, {release['resolution']} px",
        f"Release `{release['digest'][:16]}`; {release['issued']:,} issued keys; fpr "
        f"{release['fpr']:g}; seed {release['seed']}; {release['date']}; "
        f"{release['hardware']}; {release['cpu_seconds']} s of processor time.",
        _table(head, rows),
        f"![Scores and shares]({name}.png)",
    ]


def _law(rows: Sequence[dict[str, Any]], measured: set[int]) -> list[str]:
    cells = [
        [
            str(row["n_bits"]) + ("" if row["n_bits"] in measured else " (not measured)"),
            str(row["colluders"]),
            f"{row['sqrt_n_over_c']:.2f}",
            f"{row['score']:.2f}",
            *_shares(row["forms"]),
        ]
        for row in rows
    ]
    return [
        "## The law: a decoder without error",
        "Simulated, not measured: the logits are the mean of the colluders' signs.",
        _table(["bits", "colluders", "sqrt(n/c)", "score", *FORMS], cells),
    ]


def markdown(results: dict[str, Any]) -> str:
    """All figures as one page."""
    releases = results["releases"]
    targets = [row for name, release in releases.items() for row in _targets(name, release)]
    parts = [
        "# Coalitions",
        "A cell `a / b`: of a share a of the coalitions at least one member is named, of a share b "
        "all are. Score: of the colluders, in standard deviations of an innocent's. PSNR: of the "
        "coalition's pictures to those of its first member, and of the first two members' "
        "pictures to each other. Intervals are of 95%.",
        _table(["release", "figure", "target", "reached", "met"], targets),
    ]
    for name, release in releases.items():
        parts += _release(name, release)
    parts += _law(results["law"], {release["n_bits"] for release in releases.values()})
    return "\n\n".join(parts) + "\n"


# The plots.


def _plot_scores(axes: Axes, rows: list[dict[str, Any]], law: list[dict[str, Any]]) -> None:
    sizes = [row["colluders"] for row in law]
    axes.plot(sizes, [row["sqrt_n_over_c"] for row in law], "k--", label="sqrt(n/c)")
    for images in sorted({row["images"] for row in rows}):
        scores = [row["score"] for row in rows if row["images"] == images]
        axes.plot(sizes, scores, "o-", label=f"{images} image{'s' * (images > 1)}")
    axes.set_xticks(sizes)
    axes.set_ylim(bottom=0)


def _plot_shares(axes: Axes, rows: list[dict[str, Any]], law: list[dict[str, Any]]) -> None:
    rows = [row for row in rows if row["images"] == SHOWN_IMAGES]
    sizes = [row["colluders"] for row in law]
    for form in FORMS:
        for what, line in (("one", "o-"), ("all", "s:")):
            shares = [row["forms"][form][what] for row in rows]
            bounds = [row["forms"][form][f"{what}_ci95"] for row in rows]
            below = [max(share - low, 0) for share, (low, _) in zip(shares, bounds, strict=True)]
            above = [max(high - share, 0) for share, (_, high) in zip(shares, bounds, strict=True)]
            axes.errorbar(
                sizes, shares, (below, above), fmt=line, color=COLOURS[form], capsize=2,
                label=f"{form}: {'at least one' if what == 'one' else 'all'}",
            )  # fmt: skip
    for what, line in (("one", "-"), ("all", ":")):
        ideal = [row["forms"]["in rounds"][what] for row in law]
        label = f"law, in rounds: {'at least one' if what == 'one' else 'all'}"
        axes.plot(sizes, ideal, "k" + line, linewidth=1, label=label)
    axes.set_xticks(sizes)
    axes.set_ylim(-0.03, 1.03)


def plot(release: dict[str, Any], law: list[dict[str, Any]]) -> Figure:
    """Scores above, shares named below, one column for each attack."""
    law = [row for row in law if row["n_bits"] == release["n_bits"]]
    rows = [row for row in release["rows"] if not row["search"]]
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    figure = Figure(figsize=(12, 7), layout="constrained")
    grid = figure.subplots(2, len(attacks), sharex=True, sharey="row")
    for column, attack in enumerate(attacks):
        own = [row for row in rows if row["attack"] == attack]
        grid[0, column].set_title(attack)
        _plot_scores(grid[0, column], own, law)
        _plot_shares(grid[1, column], own, law)
        grid[1, column].set_xlabel("colluders")
    grid[0, 0].set_ylabel("score, standard deviations")
    grid[1, 0].set_ylabel(f"coalitions named, {SHOWN_IMAGES} images")
    grid[0, -1].legend(fontsize="small")
    grid[1, -1].legend(fontsize="x-small")
    return figure


def write_report(results: dict[str, Any], folder: Path) -> None:
    """Write ``results.json``, ``table.md`` and one plot for each release."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, release in results["releases"].items():
        with atomic_path(folder / f"{name}.png") as temporary:
            plot(release, results["law"]).savefig(temporary, format="png", dpi=100)
    texts = {
        "results.json": json.dumps(results, indent=1, allow_nan=False) + "\n",
        "table.md": markdown(results),
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
