"""Signs that are decided together: against all keys there are, and where nothing is said."""

from itertools import product

import pytest
import torch

from scalefp.pretrained.deciding import CAUTION, likely

BITS, REST, SEEN = 8, 3, 12


def seen(noise: float, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Derivatives [m, d + n] of a linear picture, the signs [n], and the picture [m]."""
    source = torch.Generator().manual_seed(seed)
    by_each = torch.randn(SEEN, REST + BITS, generator=source, dtype=torch.float64)
    signs = torch.randn(BITS, generator=source).sign().double()
    unknown = torch.cat([torch.randn(REST, generator=source).double(), signs])
    picture = by_each @ unknown + noise * torch.randn(SEEN, generator=source).double()
    return by_each, signs, picture


def found(by_each: torch.Tensor, picture: torch.Tensor, noise: float) -> torch.Tensor:
    nothing = torch.zeros(REST + BITS, dtype=torch.float64)
    return likely(by_each.T @ by_each, by_each.T @ picture, nothing, noise**2 / CAUTION, BITS)[
        REST:
    ]


def exact(by_each: torch.Tensor, picture: torch.Tensor, noise: float) -> torch.Tensor:
    """The mean of all keys, each as likely as it explains the picture with the best of the rest."""
    keys = torch.tensor(list(product([-1.0, 1.0], repeat=BITS)), dtype=torch.float64)
    left = picture - keys @ by_each[:, REST:].T
    basis = torch.linalg.qr(by_each[:, :REST])[0]
    left = left - left @ basis @ basis.T
    return (-left.square().sum(1) / (2 * noise**2)).softmax(0) @ keys


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_they_are_near_the_mean_of_all_keys(noise: float) -> None:
    apart, agreeing = [], []
    for seed in range(40):
        by_each, _, picture = seen(noise, seed)
        near, mean = found(by_each, picture, noise).double(), exact(by_each, picture, noise)
        apart.append((near - mean).abs().mean())
        agreeing.append((near.sign() == mean.sign()).double().mean())
    assert torch.stack(apart).mean() < 0.05
    assert torch.stack(agreeing).mean() > 0.98


def test_more_are_right_than_of_least_squares_that_knows_their_size() -> None:
    together, alone = [], []
    for seed in range(100):
        by_each, signs, picture = seen(0.7, seed)
        together.append((found(by_each, picture, 0.7).sign() == signs).double().mean())
        held = torch.diag(torch.cat([torch.zeros(REST), 0.7**2 * torch.ones(BITS)])).double()
        squares = torch.linalg.solve(by_each.T @ by_each + held, by_each.T @ picture)[REST:]
        alone.append((squares.sign() == signs).double().mean())
    assert torch.stack(together).mean() > torch.stack(alone).mean() + 0.01


def test_what_nothing_is_known_of_stays_nothing() -> None:
    by_each, _, picture = seen(0.1, 0)
    by_each[:, -1] = 0  # a sign
    by_each[:, 0] = 0  # and something else
    signs = found(by_each, picture, 0.1)
    assert torch.isfinite(signs).all()
    assert abs(float(signs[-1])) < 1e-3


def test_the_rest_belongs_to_them_wherever_they_were_linearized() -> None:
    by_each, _, picture = seen(0.5, 3)
    values = torch.randn(REST + BITS, generator=torch.Generator().manual_seed(0)).double()
    normal, slope = by_each.T @ by_each, by_each.T @ (picture - by_each @ values)
    moved = likely(normal, slope, values, 0.25 / CAUTION, BITS)
    rest = torch.linalg.lstsq(
        by_each[:, :REST], (picture - by_each[:, REST:] @ moved[REST:].double())[:, None]
    ).solution[:, 0]
    torch.testing.assert_close(moved[:REST].double(), rest, atol=1e-4, rtol=0)
    moved = moved[REST:]
    torch.testing.assert_close(moved, found(by_each, picture, 0.5), atol=1e-4, rtol=0)
