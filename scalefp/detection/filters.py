"""The high-pass filters of steganalysis, which take most of a picture away and leave a mark."""

import torch
from torch import Tensor


def high_pass_filters() -> Tensor:
    """Seven residual filters [7, 5, 5] of the spatial rich model (Fridrich & Kodovsky 2012).

    First, second and third order along both axes for the first two, the 3x3 square and the 5x5
    square ("KV"), each divided by its largest weight.
    """
    filters = torch.zeros(7, 5, 5, dtype=torch.float64)
    filters[0, 2, 2:4] = torch.tensor([-1.0, 1.0])
    filters[1] = filters[0].T
    filters[2, 2, 1:4] = torch.tensor([1.0, -2.0, 1.0])
    filters[3] = filters[2].T
    filters[4, 2, 1:5] = torch.tensor([1.0, -3.0, 3.0, -1.0])
    square = torch.tensor([[-1.0, 2.0, -1.0], [2.0, -4.0, 2.0], [-1.0, 2.0, -1.0]])
    filters[5, 1:4, 1:4] = square
    filters[6] = torch.tensor(
        [
            [-1.0, 2.0, -2.0, 2.0, -1.0],
            [2.0, -6.0, 8.0, -6.0, 2.0],
            [-2.0, 8.0, -12.0, 8.0, -2.0],
            [2.0, -6.0, 8.0, -6.0, 2.0],
            [-1.0, 2.0, -2.0, 2.0, -1.0],
        ]
    )
    return (filters / filters.flatten(1).abs().amax(dim=1)[:, None, None]).float()
