"""What a mark looks like: images clean, marked, and the residual times ten around grey.

python experiments/artificial-fingerprints/marked_pictures.py --marker artificial-emoji
"""

import argparse
from pathlib import Path

import torch

from scalefp.data.dataset import ImageSet
from scalefp.data.images import grid, save_png, to_float, to_uint8
from scalefp.loading import load_marker

COUNT = 12
GAIN = 10


def main() -> None:
    """Mark some images under one key and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--marker", default="artificial-emoji", help="bundled name or path")
    parser.add_argument("--data", default="emoji64", help="bundled name, folder or zip")
    parser.add_argument("--seed", type=int, default=0, help="of the key")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "pictures.png")
    options = parser.parse_args()
    torch.set_num_threads(1)
    marker = load_marker(options.marker)
    data = ImageSet(options.data, marker.config.resolution)
    clean = data.batch(torch.linspace(0, len(data) - 1, COUNT).long())
    draw = torch.Generator().manual_seed(options.seed)
    marked = marker.mark(clean, torch.randint(0, 2, (marker.config.n_bits,), generator=draw))
    residual = to_uint8((to_float(marked) - to_float(clean)) * GAIN)
    save_png(options.out, grid(torch.cat([clean, marked, residual]), columns=COUNT))
    print(options.out)


if __name__ == "__main__":
    main()
