"""experiments/artificial-fingerprints/transfer_discriminator.py: what discriminators ask for."""

from pathlib import Path

import pytest
import torch

import transfer_discriminator
from experiment_scripts import write_pictures
from scalefp.data.dataset import ImageSet

SIZE = 16


@pytest.mark.parametrize("name", ["ours", "dcgan"])
def test_what_a_discriminator_asks_for_is_what_tells_the_images_apart(
    name: str, tmp_path: Path
) -> None:
    """One strong pattern on grey images of any brightness: it is found, and the gradient is it."""
    data = ImageSet(write_pictures(tmp_path, 4), SIZE, progress=False)
    chance = torch.Generator().manual_seed(0)
    grey = torch.randint(60, 196, (96, 3, 1, 1), generator=chance).expand(96, 3, SIZE, SIZE)
    pattern = 40 * torch.randn(3, SIZE, SIZE, generator=chance).sign()
    marked = (grey + pattern).to(torch.uint8)
    pictures = [
        transfer_discriminator.Pictures(x[:64], x[64:]) for x in (marked, grey.to(torch.uint8))
    ]
    judge = transfer_discriminator.judge_of(name, data, 0, r1=False)
    seen: list[torch.Tensor] = []

    def reads(laid_on: torch.Tensor) -> float:
        seen.append(laid_on)
        return 0.5

    marks = pattern.expand(8, 3, SIZE, SIZE) / 127.5
    first, last = transfer_discriminator.follow(judge, *pictures, marks, reads, [32, 320])
    assert (first["images"], last["images"], last["bit_accuracy"]) == (32, 320, 0.5)
    # Directions of so many numbers that have nothing to do with one another: 0.036.
    assert last["accuracy"] > 0.9 and last["likeness"] > 0.12
    # As strong as the mark, whatever the gradient's own size.
    assert seen[-1].square().mean() == pytest.approx(float(marks.square().mean()), rel=1e-4)


def test_no_penalty_means_none_is_counted(tmp_path: Path) -> None:
    data = ImageSet(write_pictures(tmp_path, 4), SIZE, progress=False)
    with_r1 = transfer_discriminator.judge_of("ours", data, 0)
    without = transfer_discriminator.judge_of("ours", data, 0, r1=False)
    assert with_r1.r1 > 0 and without.r1 == 0
    real, fake = torch.zeros(32, 3, SIZE, SIZE), torch.ones(32, 3, SIZE, SIZE)
    for judge in (with_r1, without):
        judge.learn(real, fake, 0)
    weights = [list(judge.network.parameters())[0] for judge in (with_r1, without)]
    assert not torch.equal(*weights)
