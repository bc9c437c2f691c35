"""LPIPS (Zhang et al., CVPR 2018) through the ``lpips`` package, with a backbone from a file.

The package brings the calibrated heads; the backbones are ImageNet networks of torchvision whose
weights it would download. Here they come from a file of the user's, and without one there is no
LPIPS: the package's random backbones give numbers that are not it.
"""

import hashlib
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scalefp.errors import UserError
from scalefp.metrics import FloatArray
from scalefp.networks.torchvision import mend_torchvision

WANTED = (
    "torchvision's AlexNet, VGG-16 or SqueezeNet 1.1 weights (for example alexnet-owt-7be5be79.pth)"
)
# Files of torchvision that belong to each backbone, told by one tensor's shape.
MARKS = {
    "alex": ("features.0.weight", (64, 3, 11, 11)),
    "vgg": ("features.28.weight", (512, 512, 3, 3)),
    "squeeze": ("features.12.squeeze.weight", (64, 512, 1, 1)),
}


def _import_lpips() -> Any:
    """The package, also beside a build of torch that torchvision's operators do not fit."""
    try:
        mend_torchvision()
        import lpips
    except ImportError as error:
        raise UserError("LPIPS needs `pip install scalefp[lpips]`.") from error
    return lpips


def _read_backbone(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Which backbone a weights file holds, and its tensors."""
    if not path.is_file():
        raise UserError(f"there is no LPIPS backbone at {path}: give {WANTED}.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a PyTorch weights file: give {WANTED}.") from error
    for kind, (name, shape) in MARKS.items():
        if isinstance(state, dict) and tuple(getattr(state.get(name), "shape", ())) == shape:
            return kind, state
    raise UserError(f"{path} holds no backbone that LPIPS knows: give {WANTED}.")


class Lpips(nn.Module):
    """(a, b), images [b, 3, H, W] in [-1, 1] -> distances [b]. ``name`` tells backbone and file."""

    def __init__(self, backbone_path: str | Path) -> None:
        """Build the metric.

        Raises:
            UserError: the package is not installed, or the file holds no backbone that it knows.
        """
        super().__init__()
        path = Path(backbone_path)
        kind, state = _read_backbone(path)
        package = _import_lpips()
        with warnings.catch_warnings():  # of torchvision, on how the package calls it
            warnings.simplefilter("ignore")
            # Random until the next lines, instead of downloaded.
            self.metric: nn.Module = package.LPIPS(net=kind, pnet_rand=True, verbose=False)
        backbone = self.metric.get_submodule("net")
        # "slice3.6.weight" of the package is "features.6.weight" of torchvision.
        names = {own: re.sub(r"^slice\d+\.", "features.", own) for own in backbone.state_dict()}
        try:
            backbone.load_state_dict({own: state[theirs] for own, theirs in names.items()})
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{path} does not hold all of the backbone: give {WANTED}.") from error
        self.metric.eval().requires_grad_(False)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        self.name = f"LPIPS ({kind}, v0.1, weights {digest})"

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        distances: Tensor = self.metric(a, b)
        return distances.flatten()


@torch.inference_mode()
def distances(metric: nn.Module, a: Tensor, b: Tensor) -> FloatArray:
    """LPIPS of pairs of images [b, 3, H, W] in [-1, 1], float64 [b]."""
    result: FloatArray = metric(a, b).double().cpu().numpy()
    return result
