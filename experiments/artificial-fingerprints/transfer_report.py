"""The jobs of transfer.py as one table, one plot and one sheet of pictures.

    python experiments/artificial-fingerprints/transfer_report.py [--folder runs/transfer]

writes results.json, table.md, transfer.png and samples.png into transfer/ beside this file. Of the
data sets named by --private no picture is shown.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from scalefp.data.images import save_png
from scalefp.errors import UserError
from scalefp.experiment import Experiment, make_folder, markdown_table, new_figure

Result = dict[str, Any]
POOLS = ("1", "4", "16", "64")
COLOURS = {
    "ours": "tab:blue", "ours_maps": "tab:red", "ours_dcgan": "tab:purple", "dcgan": "tab:orange",
    "ddpm": "tab:green",
}  # fmt: skip
TITLE = 16  # pixels above each part of the sheet


def collect(folder: Path) -> list[Result]:
    """All finished jobs, ordered by data set, generator, seed, marked first.

    Raises:
        UserError: there is none, or jobs of one data set used different markers.
    """
    results = [json.loads(path.read_bytes()) for path in sorted(folder.glob("*/result.json"))]
    if not results:
        raise UserError(f"{folder} holds no finished job: run transfer.py first")
    markers: dict[str, str] = {}
    for result in results:
        settings = result["settings"]
        if markers.setdefault(settings["data"], settings["marker"]) != settings["marker"]:
            raise UserError(
                f"{folder} holds jobs of two markers of {settings['data']!r}: remove those of one"
            )

    def order(result: Result) -> tuple[Any, ...]:
        settings = result["settings"]
        return (*(settings[x] for x in ("data", "generator", "seed")), not settings["marked"])

    return sorted(results, key=order)


def _twin(result: Result, results: Sequence[Result]) -> Result | None:
    """The job that differs in nothing but that its images were not marked."""
    wanted = result["settings"] | {"marked": False}
    return next((other for other in results if other["settings"] == wanted), None)


def _power(log10: float) -> str:
    """A p-value from its logarithm."""
    return f"{10**log10:.2g}" if log10 > -3 else f"10^{log10:.0f}"


def _cells(figures: dict[str, Any]) -> list[str]:
    """Accuracies, median p-values and shares found of one image and of 64, and the distance."""
    pools, distance = figures["pools"], figures["distance"]
    one, many = pools["1"], pools["64"]
    return [
        *(f"{pools[size]['accuracy']:.3f}" for size in POOLS),
        " / ".join(_power(pool["log10_p_binomial"]) for pool in (one, many)),
        " / ".join(_power(pool["log10_p_soft"]) for pool in (one, many)),
        " / ".join(f"{pool['found']:.0%}" for pool in (one, many)),
        "" if distance is None else f"{distance:.1f}",
    ]


def cost(marked: Result, clean: Result | None) -> float | None:
    """By how much marking raised the distance, relative; None where it is not known."""
    if clean is None or marked["generated"]["distance"] is None:
        return None
    return float(marked["generated"]["distance"] / clean["generated"]["distance"] - 1)


def _rows(results: Sequence[Result], marked: bool) -> list[list[str]]:
    """One row a data set, then one for each generator trained on it."""
    rows: list[list[str]] = []
    for result in results:
        settings = result["settings"]
        if settings["marked"] != marked:
            continue
        name = settings["data"]
        if not rows or rows[-1][0] != name:
            own = result["marked_data" if marked else "unmarked_data"]
            title = f"the data, marked at {own['psnr']:.1f} dB" if marked else "the data"
            rows.append([name, title, *_cells(own), ""])
        title = f"{settings['generator']}, {settings['images']:,} images, seed {settings['seed']}"
        relative = cost(result, _twin(result, results)) if marked else None
        change = "" if relative is None else f"{relative:+.1%}"
        rows.append([name, title, *_cells(result["generated"]), change])
    return rows


def markdown(results: dict[str, list[Result]]) -> str:
    """Two tables: generators on marked images, and the same on the images as they are."""
    jobs = results["jobs"]
    head = ["data", "images from", "bit accuracy of 1", "4", "16", "64 images"]
    head += ["p, binomial, 1 / 64", "p, soft, 1 / 64", "found, 1 / 64", "distance", "cost"]
    first = jobs[0]
    samples = first["settings"]["samples"]
    return (
        f"Trained on marked images:\n\n{markdown_table(head, _rows(jobs, True))}\n\n"
        "Trained on the images as they are, and read for the same key:\n\n"
        f"{markdown_table(head[:-1], [row[:-1] for row in _rows(jobs, False)])}\n\n"
        f"{samples:,} images each. p-values are medians, over single images and over sources of 64 "
        "images whose readings are added, of one key; found: the soft form's p is at most 1e-6. "
        f"Distance: Fréchet, to {samples:,} clean images ({first['extractor']}), which does not "
        "compare with FID; cost: of marking, relative to the same training on clean images. "
        f"{first['date'][:10]}, {first['hardware']}.\n\n"
        "Why one generator copies a mark and another does not: what each can draw, "
        "`transfer-reason/table.md`, and what its discriminator asks for, "
        "`transfer-discriminator/table.md`.\n"
    )


def plots(results: dict[str, list[Result]]) -> dict[str, Figure]:
    """Bit accuracy over the number of images read together; one panel a data set."""
    names = sorted({result["settings"]["data"] for result in results["jobs"]})
    figure = new_figure(4 * len(names), 3.6)
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)
    sizes = [int(size) for size in POOLS]
    for axis, name in zip(axes[0], names, strict=True):
        own = [result for result in results["jobs"] if result["settings"]["data"] == name]
        data = own[0]["marked_data"]["pools"]
        axis.plot(sizes, [data[s]["accuracy"] for s in POOLS], "k:", label="marked data")
        for result in own:
            settings = result["settings"]
            axis.plot(
                sizes,
                [result["generated"]["pools"][size]["accuracy"] for size in POOLS],
                color=COLOURS[settings["generator"]],
                linestyle="-" if settings["marked"] else "--",
                marker="o" if settings["marked"] else "x",
                label=settings["generator"] + ("" if settings["marked"] else ", unmarked"),
            )
        axis.set(title=name, xlabel="images read together", xscale="log", ylim=(0.4, 1.02))
        axis.set_xticks(sizes, POOLS)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("bit accuracy")
    lines = {line.get_label(): line for axis in axes[0] for line in axis.get_lines()}
    axes[0][-1].legend(lines.values(), lines.keys(), fontsize=7)
    return {"transfer.png": figure}


def sheet(results: Sequence[Result], folder: Path, private: Sequence[str]) -> Image.Image | None:
    """The pictures of all jobs one under the other; None if there is none to show."""
    parts = []
    for result in results:
        settings = result["settings"]
        if settings["data"] in private:
            continue
        job = "{data}-{generator}-marked={marked}-seed={seed}".format(**settings)
        with Image.open(folder / job / "samples.png") as opened:
            picture = opened.convert("RGB")
        arm = "marked" if settings["marked"] else "unmarked"
        parts.append((f"{settings['data']}, {settings['generator']}, {arm} data", picture))
    if not parts:
        return None
    width = max(picture.width for _, picture in parts)
    height = sum(picture.height + TITLE for _, picture in parts)
    canvas = Image.new("RGB", (width, height), "white")
    draw, top = ImageDraw.Draw(canvas), 0
    for title, picture in parts:
        draw.text((4, top + 2), title, "black")
        canvas.paste(picture, (0, top + TITLE))
        top += picture.height + TITLE
    return canvas


def measure(options: argparse.Namespace) -> dict[str, list[Result]]:
    """All jobs; their pictures become samples.png."""
    jobs = collect(options.folder)
    if (pictures := sheet(jobs, options.folder, options.private)) is not None:
        make_folder(options.out)
        save_png(options.out / "samples.png", pictures)
    return {"jobs": jobs}


EXPERIMENT = Experiment(Path(__file__).parent / "transfer", measure, markdown, plots)


def main() -> None:
    """Collect the jobs, and write results, table, plot and pictures."""
    parser = EXPERIMENT.parser(__doc__, seeded=False)
    parser.add_argument("--folder", type=Path, default=Path("runs/transfer"), help="of the jobs")
    parser.add_argument("--private", nargs="*", default=["faces"], help="sets not to be shown")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
