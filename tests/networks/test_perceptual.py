"""LPIPS with a backbone from a file: the package's own arithmetic, and never its random weights."""

from pathlib import Path

import pytest
import torch
from torch import nn

from scalefp.errors import UserError
from scalefp.networks import perceptual
from scalefp.networks.perceptual import Lpips, distances


def installed() -> bool:
    try:
        perceptual._import_lpips()
    except UserError:
        return False
    return True


pytestmark = pytest.mark.skipif(not installed(), reason="lpips and torchvision are not installed")


def random_backbone(path: Path, kind: str) -> dict[str, torch.Tensor]:
    """Weights by torchvision's names; a file of torchvision also holds a classifier."""
    from torchvision import models

    torch.manual_seed(0)
    network: nn.Module = getattr(models, kind)(weights=None)
    state = {n: t for n, t in network.state_dict().items() if n.startswith("features.")}
    state["classifier.1.bias"] = torch.zeros(1000)
    torch.save(state, path)
    return state


def pairs(n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = torch.rand(2, n, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return a, b


def test_the_backbone_is_that_of_the_file(tmp_path: Path) -> None:
    state = random_backbone(tmp_path / "weights.pth", "squeezenet1_1")
    metric = Lpips(tmp_path / "weights.pth")
    assert metric.name.startswith("LPIPS (squeeze, v0.1, weights ")
    loaded = metric.metric.get_submodule("net").state_dict()
    assert loaded and all(
        torch.equal(tensor, state["features." + own.split(".", 1)[1]])
        for own, tensor in loaded.items()
    )
    a, b = pairs()
    found = distances(metric, a, b)
    assert found.shape == (2,) and (found > 0).all()
    assert distances(metric, a, a).tolist() == [0, 0]
    assert distances(Lpips(tmp_path / "weights.pth"), a, b).tolist() == found.tolist()


def test_the_distance_is_the_published_formula(tmp_path: Path) -> None:
    state = random_backbone(tmp_path / "weights.pth", "alexnet")
    metric = Lpips(tmp_path / "weights.pth")
    assert metric.name.startswith("LPIPS (alex, v0.1, weights ")
    a, b = pairs(1)
    heads = [metric.metric.get_submodule(f"lin{i}.model.1").weight.flatten() for i in range(5)]
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)

    def layers(x: torch.Tensor) -> list[torch.Tensor]:
        # AlexNet: convolutions 0, 3, 6, 8, 10; maxima before the second and third.
        x, found = (x - shift) / scale, []
        for index, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
            if index in (3, 6):
                x = nn.functional.max_pool2d(x, 3, 2)
            weight, bias = (state[f"features.{index}.{part}"] for part in ("weight", "bias"))
            x = nn.functional.conv2d(x, weight, bias, stride, padding).relu()
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    expected = sum(
        float((head.view(1, -1, 1, 1) * (x - y).square()).sum(1).mean())
        for head, x, y in zip(heads, layers(a), layers(b), strict=True)
    )
    assert distances(metric, a, b)[0] == pytest.approx(expected, rel=1e-4)


def test_files_that_are_no_backbone(tmp_path: Path) -> None:
    first = {"features.0.weight": torch.zeros(64, 3, 11, 11)}
    torch.save(first, tmp_path / "short.pth")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("not weights")
    for name in ("short", "other", "list", "text", "absent"):
        with pytest.raises(UserError, match=f"{name}.pth"):
            Lpips(tmp_path / f"{name}.pth")
