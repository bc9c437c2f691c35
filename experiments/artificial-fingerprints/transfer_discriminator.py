"""Does a discriminator see a mark, and does it ask for it? Discriminators alone.

A generator learns of a mark only what the discriminator tells it: its gradient. So the two
discriminators of transfer.py learn, by the losses of these trainings, to tell marked images from

- the same images without a mark, where nothing else is to be told;
- what the bundled generator draws, which differs from the data in other ways, too.

Measured on images that they have not seen: how many they judge rightly, and how many bits are read
if their mean gradient, as strong as a mark, is laid on clean images.

    python experiments/artificial-fingerprints/transfer_discriminator.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from generators.dcgan import Dcgan
from generators.ours import Ours
from scalefp.artificial.marker import Marker
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_float, to_uint8
from scalefp.detection.scores import accuracy_figures
from scalefp.experiment import Experiment, made, markdown_table
from scalefp.key import Key
from scalefp.loading import load_marker, load_model
from scalefp.training.losses import discriminator_terms, r1_penalty
from transfer import key_of, make_learner
from transfer_config import TransferConfig
from transfer_reason import read

BATCH = 32  # images of each kind
CLEAN, DRAWN = "the same images", "generated images"


@dataclass
class Judge:
    """A discriminator before its first image, as the trainings of transfer.py have it.

    Attributes:
        r1, interval: weight of the gradient penalty, and every how many steps it is counted.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    r1: float
    interval: int

    def logits(self, images: Tensor) -> Tensor:
        """[b], positive for real."""
        found: Tensor = self.network(images)
        return found.flatten()

    def learn(self, real: Tensor, fake: Tensor, number: int) -> None:
        """One step of a training, the generator's part apart."""
        self.optimizer.zero_grad(set_to_none=True)
        terms = discriminator_terms(self.logits(real), self.logits(fake))
        loss = terms["real"] + terms["fake"]
        if self.r1 and number % self.interval == 0:
            seen = real.detach().requires_grad_(True)
            loss = loss + self.r1 * self.interval * r1_penalty(self.logits(seen), seen)
        loss.backward()
        self.optimizer.step()

    def asked(self, images: Tensor) -> Tensor:
        """The mean gradient [3, R, R] at images [n, 3, R, R]: what makes them look more real."""
        total = torch.zeros(images.shape[1:])
        for part in images.split(BATCH):
            seen = part.clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.logits(seen).sum(), seen)
            total += gradient.sum(dim=0)
        return total / len(images)


def judge_of(generator: str, data: ImageSet, seed: int, *, r1: bool = True) -> Judge:
    """The discriminator that a generator of transfer.py learns from."""
    learner = make_learner(TransferConfig(generator=generator, seed=seed), data)
    if isinstance(learner, Dcgan):
        return Judge(learner.discriminator, learner.discriminator_optimizer, 0, 1)
    assert isinstance(learner, Ours)
    loss, state = learner.config.loss, learner.state
    return Judge(state.discriminator, state.discriminator_optimizer, loss.r1 * r1, loss.r1_interval)


@dataclass(frozen=True)
class Pictures:
    """Images uint8 [n, 3, R, R] to learn from and, apart from them, to be judged."""

    learned: Tensor
    judged: Tensor


def drawn_by(release: str, count: int, seed: int) -> Tensor:
    """What a release draws, each picture under a key of its own, so that no key is common."""
    model, chance = load_model(release), torch.Generator().manual_seed(seed)
    z = torch.randn(count, model.config.latent_dim, generator=chance)
    bits = torch.randint(0, 2, (count, model.config.n_bits), generator=chance).float()
    with torch.inference_mode():
        parts = zip(z.split(BATCH), bits.split(BATCH), strict=True)
        return torch.cat([to_uint8(model.generator(*part).clamp(-1, 1)) for part in parts])


@torch.no_grad()
def scores(judge: Judge, images: Tensor) -> Any:
    """Logits of uint8 images, in batches of one kind as in training."""
    return torch.cat([judge.logits(to_float(part)) for part in images.split(BATCH)]).numpy()


def follow(
    judge: Judge, real: Pictures, fake: Pictures, marks: Tensor, reads: Callable[[Tensor], float],
    lengths: Sequence[int],
) -> list[dict[str, Any]]:  # fmt: skip
    """What a discriminator knows after so many images of each kind.

    Args:
        marks: what the marker writes into the judged images, float [n, 3, R, R].
        reads: bit accuracy of a pattern [3, R, R] laid on clean images.
    """
    strength, rows = marks.square().mean().sqrt(), []
    mark = marks.mean(dim=0)
    for number in tqdm(range(max(lengths) // BATCH), "learn", unit="step", leave=False):
        at = torch.arange(number * BATCH, (number + 1) * BATCH) % len(real.learned)
        judge.learn(to_float(real.learned[at]), to_float(fake.learned[at]), number)
        if (seen := (number + 1) * BATCH) in lengths:
            asked = judge.asked(to_float(fake.judged))
            told = accuracy_figures(scores(judge, fake.judged), scores(judge, real.judged))
            rows.append(
                {
                    "images": seen,
                    **{name: told[name] for name in ("accuracy", "ci95", "ranked")},
                    "likeness": float(torch.cosine_similarity(asked.flatten(), mark.flatten(), 0)),
                    "bit_accuracy": reads(asked * (strength / asked.square().mean().sqrt())),
                }
            )
    return rows


def reader(marker: Marker, clean: Tensor, key: Key) -> Callable[[Tensor], float]:
    """Bit accuracy of a pattern laid on clean images in [-1, 1]."""
    return lambda pattern: read(marker, clean + pattern, key)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every discriminator, against unmarked images and against generated ones."""
    marker = load_marker(options.marker)
    data = ImageSet(options.data, marker.config.resolution)
    count = options.images + options.judged
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(options.seed))
    clean = data.batch(chosen[:count])
    key = key_of(TransferConfig(seed=options.seed), marker.config.n_bits)
    marked = torch.cat([marker.mark(part, key) for part in clean.split(BATCH)])
    kinds = {CLEAN: clean, DRAWN: drawn_by(options.model, count, options.seed)}
    cut = options.images
    real = Pictures(marked[:cut], marked[cut:])
    on = to_float(clean[cut:])
    marks = to_float(marked[cut:]) - on
    rows = []
    for against, pictures in kinds.items():
        fake = Pictures(pictures[:cut], pictures[cut:])
        for name, r1 in (("ours", True), ("ours", False), ("dcgan", False)):
            judge = judge_of(name, data, options.seed, r1=r1)
            found = follow(judge, real, fake, marks, reader(marker, on, key), options.lengths)
            rows += [{"discriminator": name, "r1": judge.r1, "against": against} | x for x in found]
    return {
        "digest": marker.digest,
        "generator": load_model(options.model).digest,
        "resolution": marker.config.resolution,
        "data": Path(options.data).name,
        "seed": options.seed,
        "images": options.images,
        "judged": options.judged,
        "marked": read(marker, on + marks, key),
        "clean": read(marker, on, key),
        "rows": rows,
    }


def report(results: Mapping[str, Any]) -> str:
    """All markers as Markdown."""
    parts = ["# Does a discriminator see a mark, and does it ask for it?"]
    head = ["discriminator", "R1", "marked images against", "images of each seen"]
    head += ["judged rightly", "ranked rightly", "gradient like the mark", "bits of the gradient"]
    for name, figures in results.items():
        lines = [
            [
                f"`{row['discriminator']}`", f"{row['r1']:g}", row["against"],
                f"{row['images']:,}", f"{row['accuracy']:.3f}", f"{row['ranked']:.3f}",
                f"{row['likeness']:.3f}", f"{row['bit_accuracy']:.3f}",
            ]
            for row in figures["rows"]
        ]  # fmt: skip
        parts += [
            f"## {name}",
            f"Learned from {figures['images']:,} different images of {figures['data']} at "
            f"{figures['resolution']} px, judged on {figures['judged']:,} others of each kind. "
            "Gradient like the mark: cosine between the mean gradient and the mean mark. Bits of "
            "the gradient: read from clean images on which it is laid as strong as a mark; "
            f"{figures['marked']:.3f} are read from marked images, {figures['clean']:.3f} from "
            "clean ones.",
            markdown_table(head, lines, right=range(3, 8)),
            made(figures),
        ]
    return "\n\n".join(parts) + "\n"


EXPERIMENT = Experiment(
    Path(__file__).parent / "transfer-discriminator", measure, report, named_by="marker"
)


def main() -> None:
    """Measure the discriminators, and write results and table."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--marker", default="artificial-emoji", help="bundled name or path")
    parser.add_argument("--model", default="emoji", help="whose pictures are told from marked ones")
    parser.add_argument("--data", default="emoji64", help="images to mark: name, folder or zip")
    parser.add_argument("--images", type=int, default=4096, help="different ones to learn from")
    parser.add_argument("--judged", type=int, default=256, help="of each kind")
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[1024, 4096, 8192],
        help="images of each kind seen, when it is measured",
    )  # fmt: skip
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
