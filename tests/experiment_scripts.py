"""What the tests of experiments/ share: pictures, and calls of scripts."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from scalefp.data.images import to_pil

SIZE = 32


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    """Smooth pictures with some noise, uint8 [count, 3, SIZE, SIZE]."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    noise = 4 * torch.randn(count, 3, SIZE, SIZE, generator=draw)
    return (40 + 170 * smooth + noise).clamp(0, 255).to(torch.uint8)


def write_pictures(folder: Path, count: int) -> Path:
    """A folder of so many of them."""
    for i, image in enumerate(to_pil(pictures(count))):
        image.save(folder / f"{i:04d}.png")
    return folder


def call(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """Run a script as the command line would, with these arguments."""
    monkeypatch.setattr(sys, "argv", [f"artificial/{module.__name__}.py", *map(str, words)])
    module.main()


def refused(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """The same for a mistake of the user's, which ends the script with status 2."""
    with pytest.raises(SystemExit) as end:
        call(module, monkeypatch, *words)
    assert end.value.code == 2
