"""torchvision, which packages of others import, beside a build of torch that it does not fit."""

import torch

_declared: list[torch.library.Library] = []


def mend_torchvision() -> None:
    """Make ``import torchvision`` work beside a build of torch that its operators do not fit.

    torchvision is compiled for one build of torch; beside another (its wheels for CUDA beside a
    torch for CPU) its import ends with a RuntimeError, because two operators are missing, of which
    nothing here uses either. They are declared then, and only then: where torchvision works, a
    second declaration would break it.

    Raises:
        ImportError: there is no torchvision.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)  # it would be undone when the object goes
