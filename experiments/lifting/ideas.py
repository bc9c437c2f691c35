"""What was tried so that a fingerprint cannot be lifted, side by side: ideas.md and ideas.png.

    python experiments/lifting/ideas.py

Measures nothing: it reads results.json, redrawing.json, checks.json and taef2.json beside it, and
those of ../binding and ../inversion. A recipient lays another's fingerprint on his pictures, or
lets a copy draw them that imitates hers. The share of her bits that is read is put against how
many of her pictures he has; of a release with bound bits, those that its lift check compares.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lifting_report import NEAR
from scalefp.experiment import load_results, markdown_table, new_figure, write_page

HERE = Path(__file__).parent
PAGE, PLOT = "ideas.md", "ideas.png"
LAID, IMITATED = "laid on his pictures", "drawn by a copy that imitates hers"
PANELS = (LAID, IMITATED)
PLAIN = "decoder (`emoji`, bundled)"
MAPS = "decoder, with maps and carriers (former release)"
KEYS = "keys bound to the picture (`experiment=bound`)"
CODED = "keys bound to the picture, of an autoencoder (`taef2`)"
SHARED = "decoder and bound bits, directions shared"
OWN = "decoder and bound bits, each copy its own directions (`release bind`)"
MARKERS = {PLAIN: "o", MAPS: "D", KEYS: "s", CODED: "^", SHARED: "v", OWN: "P"}
EXACTLY = "what her key changed of another picture, exactly"
ONE = "one picture of hers, less what his copy makes of it"
TWICE = "twice the mean of hers, less that of as many of his"
FITTED = "his copy, fitted to hers"
TOGETHER = "put together from 32 copies {}"
NEAREST = "hers, with the nearest sum of what bound bits of 32 others change"


@dataclass(frozen=True)
class Trial:
    """What one recipient reached against another.

    Attributes:
        idea: what was to keep him from it.
        panel: LAID or IMITATED.
        how: what he does.
        known: how many of her pictures he has; None where he has what nobody has.
        bits: share of her bits that is read, .5 by chance; of bound bits if she has them.
        counted: share of pictures that name her, and where she has bound bits pass the check.
        psnr: dB to his own pictures of the same latents; None if not measured.
    """

    idea: str
    panel: str
    how: str
    known: int | None
    bits: float
    counted: float
    psnr: float | None


def row_of(rows: list[dict[str, Any]], key: str, name: str) -> dict[str, Any]:
    """The one row of this name."""
    (row,) = [row for row in rows if row[key] == name]
    return row


def of_decoders(
    averaged: Mapping[str, Any], redrawn: Mapping[str, Any], checks: Mapping[str, Any]
) -> Iterator[Trial]:
    """Bundled releases, the present one and the former, which are read by a decoder. Fitted copies
    are those of bound bits, of which the decoder's bits are read, too."""
    for idea, name in ((MAPS, "emoji-with-maps"), (PLAIN, "emoji")):
        (row,) = [
            row for row in redrawn[name]["rows"]
            if row["onto"] == "own pictures" and row["strength"] == 1
        ]  # fmt: skip
        named = row["attributed"]["1"]["soft"]["1000000"]
        yield Trial(idea, LAID, ONE, 1, row["mean"], named, row["psnr"])
    rows = [
        row for row in averaged["emoji"]["rows"]
        if row["onto"] == "own pictures" and row["estimator"] == "mean" and row["own_copy"]
        and row["psnr"] >= NEAR
    ]  # fmt: skip
    for known in sorted({row["known_images"] for row in rows} - {1}):
        best = max((row for row in rows if row["known_images"] == known), key=lambda r: r["mean"])
        named = best["attributed"]["1"]["soft"]["1000000"]
        how = f"the mean of hers, less that of his, {best['strength']:g} times"
        yield Trial(PLAIN, LAID, how, known, best["mean"], named, best["psnr"])
    for known, row in zip((16, 256), checks["fitted"]["rows"], strict=True):
        named = row["named"] / row["pictures"]
        yield Trial(PLAIN, IMITATED, FITTED, known, row["bits"], named, row["psnr"])


def of_bound_keys(bound: Mapping[str, Any]) -> Iterator[Trial]:
    """This project's generator with keys that are read by inversion."""
    on_his, fitted = "laid on his pictures: ", "made by his copy, fitted to {} of her pictures"
    for panel, how, known, name in (
        (LAID, EXACTLY, None, on_his + EXACTLY),
        (LAID, ONE, 1, on_his + ONE),
        (LAID, TWICE, 256, on_his + "twice the mean of 256, less that of as many of his"),
        *((IMITATED, FITTED, size, fitted.format(size)) for size in (1, 4, 16)),
    ):
        row = row_of(bound["rows"], "what", name)
        hers = row["hers"]
        yield Trial(KEYS, panel, how, known, hers["bits"], hers["named"], row["psnr"])


def of_autoencoders(laid: Mapping[str, Any], imitated: Mapping[str, Any]) -> Iterator[Trial]:
    """The bundled ``taef2``, whose keys are read by inversion with the published encoder."""
    one = "one picture of hers less what his copy makes of it"
    many = "the mean of 16 of hers less what his copy makes of them"
    for how, known, name in (
        (EXACTLY, None, EXACTLY), (ONE, 1, one),
        ("the mean of hers, less that of what his copy makes of them, 3 times", 16, many),
    ):  # fmt: skip
        times = 3 if known == 16 else 1
        row = row_of(laid["rows"], "pictures", f"his, with {name}, {times} times")
        hers = row["hers"]
        yield Trial(CODED, LAID, how, known, hers["right"], hers["named"], row["psnr"])
    named, known = imitated["named"]["fitted copy"], imitated["fitted_from"]
    yield Trial(CODED, IMITATED, FITTED, known, imitated["fitted"], named, None)


def of_bound_bits(checks: Mapping[str, Any]) -> Iterator[Trial]:
    """Bits beside a decoder that mean nothing in another picture, and a check that looks for them:
    first along directions that all copies shared, then along each copy's own."""
    on_his, by_sums = "his, with ", "by what their bits change"
    mixed = "by any mixture of what their bits change"
    put = "put together from 32 copies and 16 of hers, "
    limit = "by her copy, with the nearest sum of what bound bits of 32 others change"
    both = [
        (LAID, ONE, 1, "laid", on_his + "one picture of hers less what his copy makes of it"),
        (LAID, TWICE, 256, "laid",
         on_his + "twice the mean of 256 of hers less that of as many of his"),
        (LAID, EXACTLY, None, "laid",
         on_his + "what her copy makes of a latent and his does not, exactly"),
        (IMITATED, TOGETHER.format(by_sums), 16, "compared", put + by_sums),
        (IMITATED, TOGETHER.format(mixed), 16, "compared", put + mixed),
        (IMITATED, NEAREST, None, "limits", limit),
    ]  # fmt: skip
    for idea, groups, fits in (
        (SHARED, {"laid": "first", "compared": "compared-shared", "limits": "limits-shared"},
         [(16, "first", "16 of hers"), (64, "first", "64 of hers")]),
        (OWN, {},
         [(16, "fitted", "16 of hers in 200 steps"), (256, "fitted", "256 of hers in 800 steps")]),
    ):  # fmt: skip
        fitted = [
            (IMITATED, FITTED, size, group, f"made by his copy, fitted to {name}")
            for size, group, name in fits
        ]
        for panel, how, known, group, name in both[:3] + fitted + both[3:]:
            part = checks[groups.get(group, group)]
            row = row_of(part["rows"], "what", name)
            bits = sum(row["agree"]) / len(row["agree"]) / part["bound_bits"]
            passed = row["passed"] / row["pictures"]
            yield Trial(idea, panel, how, known, bits, passed, row["psnr"])


def trials(experiments: Path) -> list[Trial]:
    """All that was tried, of the results that lie in the folder ``experiments``."""
    lifting = experiments / "lifting"
    checks = load_results(lifting / "checks.json")
    return [
        *of_decoders(
            load_results(lifting / "results.json"), load_results(lifting / "redrawing.json"), checks
        ),
        *of_bound_keys(load_results(experiments / "binding" / "results.json")),
        *of_autoencoders(
            load_results(lifting / "taef2.json"),
            load_results(experiments / "inversion" / "results.json"),
        ),
        *of_bound_bits(checks),
    ]


def markdown(tried: list[Trial]) -> str:
    """The page: a table for each of the two kinds of attack, and the plot."""
    parts = [
        "# What was tried against lifting",
        "Share of the victim's bits (bound ones where her copy has them) that is read from "
        "pictures which she did not make; .5 is chance. Counted: pictures that name her at fpr "
        "1e-6 among 10^6 keys, and of copies with bound bits those that name her and pass the lift "
        "check. All: what nobody has who has pictures only. dB: to what his own copy draws, "
        f"{NEAR:g} or more. Rows have 2 to 64 pictures; files, seeds and dates stand with the "
        "results that this is made of.",
        f"![Bits read by pictures that the attacker has]({PLOT})",
    ]
    head = ["against", "what he does", "pictures of hers", "her bits", "counted", "dB"]
    for panel in PANELS:
        rows = [
            [
                one.idea, one.how, "all" if one.known is None else f"{one.known:,}",
                f"{one.bits:.3f}", f"{one.counted:.0%}",
                "" if one.psnr is None else f"{one.psnr:.1f}",
            ]
            for one in tried if one.panel == panel
        ]  # fmt: skip
        parts += [
            f"## {panel[0].upper()}{panel[1:]}",
            markdown_table(head, rows, right={2, 3, 4, 5}),
        ]
    return "\n\n".join(parts) + "\n"


def plot(tried: list[Trial]) -> Figure:
    """Bits against pictures known, of each idea; full where a picture counts. Lines join what was
    done alike with more pictures."""
    figure = new_figure(11, 5.5)
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, panel in zip(panels, PANELS, strict=True):
        for number, (idea, marker) in enumerate(MARKERS.items()):
            alike: dict[str, list[Trial]] = {}
            for one in tried:
                if (one.idea, one.panel) == (idea, panel) and one.known is not None:
                    alike.setdefault(one.how.split(",")[0], []).append(one)
            colour = f"C{number}"
            for some in alike.values():
                points = [one.known for one in some], [one.bits for one in some]
                axes.semilogx(*points, "-", color=colour, linewidth=1)
                for one in some:
                    face = colour if one.counted else "white"
                    axes.semilogx(one.known, one.bits, marker, color=colour, mfc=face)
            axes.plot([], [], marker, color=colour, label=idea.replace("`", ""))
        axes.axhline(0.5, color="gray", linewidth=0.8)
        axes.set(title=panel, xlabel="pictures of hers that he has", xlim=(0.7, 6000))
    panels[0].set(ylabel="her bits that are read", ylim=(0.4, 1.03))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=2, fontsize="small",
        title="full: a picture names her (and passes the check); hollow: none does",
    )  # fmt: skip
    return figure


def main() -> None:
    tried = trials(HERE.parent)
    page = markdown(tried)
    write_page(HERE / PAGE, page, {PLOT: plot(tried)})
    print(page, end="")


if __name__ == "__main__":
    main()
