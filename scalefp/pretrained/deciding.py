"""Which signs of a key are likely, when a picture says something of all of them together?

Inversion ends with what least squares says: signs of any size, whose errors go together. But the
signs of a key are -1 and 1, and those that are certain say something of those that are not. This is
the detection of such signs by expectation propagation (Minka, 2001; of signs sent by several
antennas: Céspedes et al., 2014, IEEE Transactions on Communications 62). No key is looked at, and
all are as likely before, so p-values stay exact.
"""

import torch
from torch import Tensor

# What is left of a picture is no white noise, so less can be trusted than its power says.
CAUTION = 3.0  # times that power
ROUNDS, DAMPING = 20, 0.3
SURE = 1e-4  # least variance of a sign
LEAST = 1e-9  # of the mean curvature: of what a picture says nothing


def likely(normal: Tensor, gradient: Tensor, values: Tensor, noise: float, n_bits: int) -> Tensor:
    """What has been nearly found, with expected signs between -1 and 1: [d + n].

    What else is unknown besides the signs is anything, as far as is known beforehand; it is
    returned as it belongs to these signs.

    Args:
        normal: derivatives of what shows of a picture by the unknown numbers, with themselves
            [d + n, d + n]; the signs come last.
        gradient: these derivatives with what is left of the picture, [d + n].
        values: where they were taken, [d + n].
        noise: mean square of what is left.
        n_bits: n.
    """
    normal, gradient, values = normal.double(), gradient.double(), values.double()
    curvature = normal.diagonal()
    normal = normal + LEAST * curvature.mean() * torch.eye(len(normal)).to(normal)
    says = normal @ values + gradient
    rest, across = normal[:-n_bits, :-n_bits], normal[:-n_bits, -n_bits:]
    by_rest = torch.linalg.solve(rest, torch.cat([across, says[:-n_bits, None]], dim=1))
    # Precision of the signs, and precision times mean, whatever the rest is.
    precision = (normal[-n_bits:, -n_bits:] - across.T @ by_rest[:, :-1]) / (CAUTION * noise)
    weighed = (says[-n_bits:] - across.T @ by_rest[:, -1]) / (CAUTION * noise)
    # Each sign is held to what the others leave likely: the natural numbers of a normal one.
    holds, pulls = torch.ones_like(weighed), torch.zeros_like(weighed)
    expected = torch.zeros_like(weighed)
    for _ in range(ROUNDS):
        together = torch.linalg.inv(precision + torch.diag(holds))
        mean, variance = together @ (weighed + pulls), together.diagonal()
        without, drawn = 1 / variance - holds, mean / variance - pulls
        expected = drawn.tanh()
        spread = (1 - expected.square()).clamp_min(SURE)
        tighter = 1 / spread > without  # else a normal one cannot say it
        aims = torch.where(tighter, 1 / spread - without, holds)
        at = torch.where(tighter, expected / spread - drawn, pulls)
        holds, pulls = holds + DAMPING * (aims - holds), pulls + DAMPING * (at - pulls)
    return torch.cat([by_rest[:, -1] - by_rest[:, :-1] @ expected, expected]).to(torch.float32)
