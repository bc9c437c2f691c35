"""Does a recipient erase the fingerprint by flattening the constant maps of an instance?

An instance adds a constant map to each channel of some layers, and the key writes through these
maps. Whoever knows that can replace each map by its mean. This measures what is then left of the
fingerprint, and what the pictures lose.

    python experiments/flattening/flatten.py --model emoji
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import scalefp
from scalefp.attribution import matches_needed
from scalefp.files import atomic_path
from scalefp.images import to_float, to_uint8
from scalefp.instantiate import Instance
from scalefp.metrics import bit_accuracy, psnr

FPR, ISSUED = 1e-6, 1_000_000


@torch.no_grad()
def flatten(instance: Instance) -> None:
    """Replace the constant maps of an instance by their means, in place."""
    for name, parameter in instance.named_parameters():
        if name.endswith("offset"):
            parameter.copy_(parameter.mean(dim=(2, 3), keepdim=True).expand_as(parameter))


def measure(model: scalefp.Model, keys: int, images: int, seed: int) -> dict[str, object]:
    """Figures of ``keys`` instances, ``images`` pictures each, before and after flattening."""
    rng = np.random.default_rng(seed)
    needed = matches_needed(model.config.n_bits, ISSUED, FPR)
    accuracy: dict[str, list[np.ndarray]] = {"as issued": [], "flattened": []}
    decibels = []
    for k in tqdm(range(keys), "flattening instances", unit="key"):
        key = scalefp.Key.from_bits(rng.integers(0, 2, model.config.n_bits))
        instance = model.instantiate(key)
        pictures = {"as issued": to_uint8(instance.sample(images, seed=seed + k))}
        flatten(instance)
        pictures["flattened"] = to_uint8(instance.sample(images, seed=seed + k))
        for name, pixels in pictures.items():
            accuracy[name].append(bit_accuracy(model.decode(pixels).logits, key.bits))
        decibels.append(psnr(*(to_float(pixels) for pixels in pictures.values())))
    figures: dict[str, object] = {"keys": keys, "images_per_key": images, "seed": seed}
    for name, parts in accuracy.items():
        values = np.concatenate(parts)
        matches = np.rint(values * model.config.n_bits)
        figures[name] = {
            "bit_accuracy": float(values.mean()),
            "attributed": float((matches >= needed).mean()),
        }
    figures["psnr_flattened_to_issued"] = float(np.concatenate(decibels).mean())
    return figures


def main() -> None:
    """Print the figures as JSON and write them beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="emoji", help="bundled name or path of a release")
    parser.add_argument("--keys", type=int, default=50)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure(scalefp.load(options.model), options.keys, options.images, options.seed)
    text = json.dumps(figures, indent=1)
    with atomic_path(options.out) as temporary:
        temporary.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
