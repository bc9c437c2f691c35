"""Can a key of TAEF2's decoder be laid on others' pictures, or taken off its own?

    python experiments/lifting/lift_taef2.py --images photos256.zip

writes taef2.json, taef2.md and taef2-pictures.png beside this file. A recipient has pictures that
another's copy decoded, his own copy of the bundled release `taef2`, and the published encoder. All
are read by inversion from 8-bit files. What a copy fitted to hers reaches: experiments/inversion/.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from scalefp.data.dataset import ImageSet
from scalefp.data.images import grid, save_png, to_float, to_pil, to_uint8
from scalefp.evaluation.quality import decibels
from scalefp.evaluation.single_files import drawn_key, inverting, mean, of_key, photographs
from scalefp.experiment import Experiment, made, markdown_table
from scalefp.key import Key
from scalefp.pretrained.instance import PretrainedInstance
from scalefp.pretrained.release import InvertingModel

SIDE = 128  # pixels a side of all pictures
KNOWN = 16  # pictures of hers whose differences are averaged
SHOWN = 3  # pictures in a row of the sheet


def files_of(instance: PretrainedInstance, photos: Tensor) -> Tensor:
    """What an instance makes of pictures [b, 3, H, W] in [-1, 1], as it comes back from files."""
    return to_float(to_uint8(torch.cat([instance.reconstruct(one[None]) for one in photos])))


def attacks(
    hers: PretrainedInstance, his: PretrainedInstance, original: PretrainedInstance,
    photos: Tensor, count: int,
) -> dict[str, tuple[Tensor, Tensor]]:  # fmt: skip
    """For each row so many pictures in [-1, 1] before and after, [count, 3, H, W].

    Args:
        photos: KNOWN that her copy made pictures of, then ``count`` that his makes pictures of.
    """
    seen, own_photos = files_of(hers, photos[:KNOWN]), photos[KNOWN : KNOWN + count]
    again = files_of(his, seen)
    more = seen - again  # what her pictures have beyond what his copy makes of them
    exact = seen - files_of(original, photos[:KNOWN])
    common = more.mean(dim=0, keepdim=True)
    theirs, own = seen[:count], files_of(his, own_photos)
    laid = {
        "one picture of hers less what his copy makes of it": more[:count],
        "what her key changed of another picture, exactly": exact[:count],
        "the mean of 16 of hers less what his copy makes of them": common,
    }
    return {
        "hers, as they are": (theirs, theirs),
        "hers, encoded and decoded by his copy": (theirs, again[:count]),
        "hers, less three times the mean of 16 of them less what his copy makes of these": (
            theirs, theirs - 3 * common,
        ),
        **{
            f"his, with {what}, {times} times": (own, own + times * difference)
            for what, difference in laid.items()
            for times in (1, 3)
        },
        "photographs, with one picture of hers less what his copy makes of it, 3 times": (
            own_photos, own_photos + 3 * more[:count],
        ),
    }  # fmt: skip


def row(
    model: InvertingModel, before: Tensor, after: Tensor, keys: Mapping[str, Key]
) -> dict[str, Any]:
    """What is read of two keys, and dB to the pictures before, means over pictures [b, 3, H, W]."""
    pixels = to_uint8(after.clamp(-1, 1))
    readings = [model.decode(file, search=False, progress=False) for file in to_pil(pixels)]
    found = {whose: [of_key(one, key) for one in readings] for whose, key in keys.items()}
    return {
        **{
            whose: {what: mean(rows, what) for what in ("right", "named")}
            for whose, rows in found.items()
        },
        "psnr": float(decibels(pixels, to_uint8(before)).mean()),
    }


def draw_sheet(
    copies: tuple[PretrainedInstance, PretrainedInstance, PretrainedInstance], path: Path
) -> None:
    """The rows of the table with emoji, since not all photographs may be passed on."""
    emoji = torch.from_numpy(ImageSet("emoji64", SIDE, progress=False).pixels[: KNOWN + SHOWN])
    rows = [after for _, after in attacks(*copies, to_float(emoji), SHOWN).values()]
    save_png(path, grid(to_uint8(torch.cat(rows).clamp(-1, 1)), columns=SHOWN))


@torch.no_grad()
def measure(options: argparse.Namespace) -> dict[str, Any]:
    """A row for each attack."""
    model = inverting("taef2", drawn=False)
    seed, count = options.seed, options.pictures
    photos = torch.cat(photographs(options.images, KNOWN + count, seed, SIDE))
    keys = {whose: drawn_key(model.n_bits, seed, n) for n, whose in enumerate(("hers", "his"))}
    copies = model.instantiate(keys["hers"]), model.instantiate(keys["his"]), model.original
    draw_sheet(copies, options.out / "taef2-pictures.png")
    pairs = attacks(*copies, photos, count)
    return {
        "release": model.digest, "n_bits": model.n_bits, "side": SIDE, "seed": seed,
        "pictures": count,
        "rows": [
            {"pictures": name, **row(model, before, after, keys)}
            for name, (before, after) in tqdm(pairs.items(), "lifting, taef2", unit="row")
        ],
    }  # fmt: skip


def markdown(results: Mapping[str, Any]) -> str:
    """The rows as a page."""
    rows: Sequence[Sequence[str]] = [
        [
            one["pictures"], f"{one['hers']['right']:.3f}", f"{one['hers']['named']:.0%}",
            f"{one['his']['right']:.3f}", f"{one['his']['named']:.0%}", f"{one['psnr']:.1f}",
        ]
        for one in results["rows"]
    ]  # fmt: skip
    head = ["pictures", "her bits", "she named", "his bits", "he named", "dB to the picture before"]
    parts = [
        "# Lifting and washing keys of `taef2`",
        f"{results['n_bits']} bits; release `{results['release'][:16]}`; two recipients, "
        f"{results['pictures']} pictures of {results['side']} pixels in each row, as 8-bit files "
        f"read as they are; {made(results)} Named: single files, at fpr 1e-6 among 10^6 keys. "
        "Equal pictures count as 100 dB.",
        markdown_table(head, rows, range(1, len(head))),
        "![The rows in this order, with emoji for photographs](taef2-pictures.png)",
    ]
    return "\n\n".join(parts) + "\n"


EXPERIMENT = Experiment(
    Path(__file__).parent, measure, markdown, results_file="taef2.json", page_file="taef2.md"
)


def main() -> None:
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--images", required=True, help="folder or zip of photographs")
    parser.add_argument("--pictures", type=int, default=8, help="that are read in each row")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
