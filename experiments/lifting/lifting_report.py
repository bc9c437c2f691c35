"""The figures of lifted and washed fingerprints as a page and as plots."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from scalefp.evaluation.lifting_page import (
    asking_table,
    blends_table,
    lifting_table,
    picked_table,
)
from scalefp.experiment import made, markdown_table, new_figure

Row = Mapping[str, Any]
ONTO = ("data", "own pictures", "her pictures")
TITLES = {
    "data": "laid on pictures of the data",
    "own pictures": "laid on the attacker's own",
    "her pictures": "taken off the victim's",
}
NEAR = 20.0  # dB to the picture before: what stays a picture


def _named(row: Row, images: int) -> float:
    """Share of sources of so many images that name the victim among 10^6 keys."""
    share: float = row["attributed"][str(images)]["soft"]["1000000"]
    return share


def _best(rows: Sequence[Row], onto: str, known: int, *, near: float = NEAR) -> Row | None:
    """What serves the attacker most: the victim named most often (washing: least), then PSNR."""
    fitting = [
        row
        for row in rows
        if row["onto"] == onto and row["known_images"] == known and row["psnr"] >= near
    ]
    if not fitting:
        return None
    wanted = -1 if onto == "her pictures" else 1
    return max(fitting, key=lambda row: (wanted * _named(row, 1), row["psnr"]))


def _summary(release: Row) -> str:
    """For each number of images known, what the attacker's best choice reaches."""
    cells = []
    for onto in ONTO:
        for known in sorted({row["known_images"] for row in release["rows"]}):
            row = _best(release["rows"], onto, known)
            if row is None:
                cells.append([TITLES[onto], f"{known:,}", f"none at {NEAR:g} dB", *[""] * 5])
                continue
            copy = ", copy" if row["own_copy"] else ""
            own = f"{_named(row['own'], 1):.0%}" if "own" in row else ""
            choice = f"{row['estimator']}{copy}, {row['strength']:g} times"
            several = f"{_named(row, 16):.0%}" if "16" in row["attributed"] else ""
            shares = [f"{_named(row, 1):.0%}", several, own]
            figures = [f"{row['mean']:.3f}", *shares, f"{row['psnr']:.1f}"]
            cells.append([TITLES[onto], f"{known:,}", choice, *figures])
    head = ["estimate", "images known", "best choice", "victim's bits", "victim named, 1 image"]
    head += ["victim named, 16 images", "attacker named, 1 image", "PSNR, dB"]
    return markdown_table(head, cells)


def _release(name: str, release: Row) -> Iterator[str]:
    yield f"## `{name}`: {release['n_bits']} bits, {release['resolution']} px"
    yield f"Release `{release['release'][:16]}`; {made(release)}"
    yield (
        f"{release['victims']} victims, {release['pictures']} pictures of each kind for each. The "
        f"attacker's best choice of estimate and strength at {NEAR:g} dB or more to the picture "
        "before:"
    )
    yield _summary(release)
    yield f"![Bits read by images known]({name}.png)"
    yield f"![Pictures with a fingerprint laid on]({name}-pictures.png)"
    yield "Images of two instances blended:"
    yield blends_table(release["blends"])
    yield (
        f"Of {release['unrelated']:,} unrelated pictures the 50 that lean most to a victim, judged "
        "as one source (which the test does not allow), and 50 at random; p-values among 10^6 keys:"
    )
    yield picked_table(release["picked"])
    yield (
        f"{release['queries']:,} questions to the service about one picture, on which the mean of "
        "the most images was laid first and which is changed a little each time:"
    )
    yield asking_table(release)
    pools = " / ".join(map(str, release["pools"]))
    yield f"All choices; named in percent, by {pools} images together:"
    yield lifting_table(release["rows"])


def markdown(results: Mapping[str, Row]) -> str:
    """All figures as one page."""
    parts = [
        "# Lifting and washing",
        "Attackers hold images of a victim's instance, perhaps a copy of their own, and no "
        "decoder, release or key. Named: at fpr 1e-6 among 10^6 issued keys, soft form, 8-bit "
        "pictures read as they are. A fingerprint that is bound to its picture would leave the "
        "victim unnamed in the first two groups and named in the third.",
    ]
    for name, release in results.items():
        parts += _release(name, release)
    return "\n\n".join(parts) + "\n"


def plot(release: Row) -> Figure:
    """Bits of the victim read against images known, one panel for each use of the estimate."""
    figure = new_figure(12, 4)
    panels = figure.subplots(1, len(ONTO), sharey=True)
    for axes, onto in zip(panels, ONTO, strict=True):
        for estimator in dict.fromkeys(row["estimator"] for row in release["rows"]):
            for copy, line in ((True, "o-"), (False, "s:")):
                rows = [
                    row
                    for row in release["rows"]
                    if (row["onto"], row["estimator"], row["own_copy"]) == (onto, estimator, copy)
                ]
                known = sorted({row["known_images"] for row in rows})
                choose = min if onto == "her pictures" else max
                bits = [
                    choose(
                        (row["mean"] for row in rows if row["known_images"] == images
                         and row["psnr"] >= NEAR), default=float("nan"),
                    )
                    for images in known
                ]  # fmt: skip
                label = f"{estimator}{', own copy' if copy else ''}"
                axes.semilogx(known, bits, line, label=label, markersize=4)
        axes.axhline(0.5, color="gray", linewidth=0.8)
        axes.set_title(f"{TITLES[onto]}\n(best strength at {NEAR:g} dB or more)", fontsize=10)
        axes.set_xlabel("images of the victim that the attacker has")
    panels[0].set_ylabel("bits of the victim read")
    panels[-1].legend(fontsize="x-small")
    return figure


def plots(results: Mapping[str, Row]) -> dict[str, Figure]:
    """One for each release."""
    return {f"{name}.png": plot(release) for name, release in results.items()}
