"""The figures of coalitions as a table and as plots."""

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scalefp.experiment import error_bars, markdown_table, new_figure

FORMS = ("hard", "soft", "in rounds")
COLOURS = {"hard": "tab:gray", "soft": "tab:blue", "in rounds": "tab:red"}
SHOWN_IMAGES = 4  # of one source, in the plots
DESTROYED = 15.0  # dB to what the first of them draws
BOTH_NAMED = 0.95  # wanted of two who average their weights, with that many images


# The table.


def _shares(forms: dict[str, Any]) -> list[str]:
    """One cell a form: coalitions of which one is named / all are."""
    return [f"{forms[form]['one']:.0%} / {forms[form]['all']:.0%}" for form in FORMS]


def _targets(name: str, release: dict[str, Any]) -> Iterator[list[str]]:
    rows = release["rows"]
    innocents = sum(row["forms"][form]["innocents"] for row in rows for form in FORMS)
    trials = sum(row["coalitions"] for row in rows) * release["issued"]
    reached = f"{innocents} in {trials:.1e} (reading, key) pairs, each form"
    yield [name, "innocents named", "0", reached, "no" if innocents else "yes"]
    naive = {"attack": "weights averaged as they are", "images": SHOWN_IMAGES, "search": False}
    for row in rows:
        if naive.items() <= row.items():
            yield [
                name,
                f"{row['colluders']} who average their weights as they are: pictures destroyed",
                f"< {DESTROYED:g} dB",
                f"{row['psnr_to_own']:.1f} dB in the mean of {row['coalitions']} coalitions",
                "yes" if row["psnr_to_own"] < DESTROYED else "no",
            ]
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
        markdown_table(head, rows),
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
        markdown_table(["bits", "colluders", "sqrt(n/c)", "score", *FORMS], cells),
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
        markdown_table(["release", "figure", "target", "reached", "met"], targets),
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
            label = f"{form}: {'at least one' if what == 'one' else 'all'}"
            error_bars(axes, sizes, shares, bounds, fmt=line, color=COLOURS[form], label=label)
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
    figure = new_figure(12, 7)
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


def plots(results: dict[str, Any]) -> dict[str, Figure]:
    """One for each release."""
    return {
        f"{name}.png": plot(release, results["law"])
        for name, release in results["releases"].items()
    }
