"""Recipients who make a copy that draws as hers does, so that its pictures would pass as hers.

One trains all weights of his copy on her pictures. Several compare their copies first. They put
the channels in one order; then every layer of two copies differs by factors of its input channels,
which is what keys do, and one layer by more, which is what bound bits do. So they know the form of
her copy: theirs with other factors, and with another change of that layer, made up of what their
own changes have in common. They look for the numbers that give her pictures.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from scalefp.evaluation.realign import realigned
from scalefp.evaluation.redrawing import nearest_inputs
from scalefp.release.instance import Instance

REDRAWING = 100  # steps on a latent
SEARCHING = 60  # on those that are trained on with a copy
SEARCHED = 16  # pictures whose latents are looked for together
AT_ONCE = 8  # pictures in each step on a copy
LEAST_STEPS, SEEN = 200, 25  # steps on a copy: so many, or until each picture was seen so often
COMPARING_STEPS = 300
WEIGHTS_RATE, LATENTS_RATE = 1e-4, 1e-2  # with ten times the first it draws nothing any more
FACTORS_RATE = 3e-3
# A change as large as theirs has coefficients of the size 1.
COEFFICIENTS_RATE, MIXTURE_RATE = 0.03, 0.02
LEAST = 1e-8  # of what their changes have in common, beside the strongest of it

Weights = Mapping[str, Tensor]


def weights_of(network: Instance) -> dict[str, Tensor]:
    """All of them, by name."""
    return {name: weight.detach() for name, weight in network.named_parameters()}


def half_precision() -> torch.autocast:
    """Computing with bfloat16, which takes half the time where the processor knows it."""
    return torch.autocast("cpu", torch.bfloat16)


def latents_of(own: Instance, pictures: Tensor, source: torch.Generator) -> Tensor:
    """Latents [n, dz] of which a copy draws pictures [n, 3, R, R] as nearly as it comes to them."""
    found = []
    for part in tqdm(pictures.split(SEARCHED), desc="latents", unit="batch", leave=False):
        start = torch.randn(len(part), own.config.latent_dim, generator=source)
        with half_precision():
            found.append(nearest_inputs(own, part, start, steps=SEARCHING))
    return torch.cat(found)


def _imitate(
    own: Instance, build: Callable[[], Weights], learned: list[dict[str, Any]],
    pictures: Tensor, latents: Tensor, steps: int, seed: int,
) -> Instance:  # fmt: skip
    """A copy with the weights that ``build`` makes, after steps on what is learned of them."""
    network, source = copy.deepcopy(own), torch.Generator().manual_seed(seed)
    found = latents.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([*learned, {"params": [found], "lr": LATENTS_RATE}])
    # At full rate for half of the steps, then less and less.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, 2 * (1 - step / (steps + 1)))
    )
    for _ in tqdm(range(steps), desc="imitating", unit="step", leave=False):
        some = torch.randint(len(pictures), (min(AT_ONCE, len(pictures)),), generator=source)
        network._parameters.update(build())  # type: ignore[arg-type]
        with half_precision():
            made = network(found[some])
        optimizer.zero_grad()
        (made.float() - pictures[some]).square().mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        made_of = {name: torch.nn.Parameter(weight) for name, weight in build().items()}
    network._parameters.update(made_of)
    return network.requires_grad_(False)


def fitted(own: Instance, pictures: Tensor, latents: Tensor, seed: int) -> tuple[Instance, int]:
    """A copy of which all weights were trained to make pictures [n, 3, R, R] of these latents
    [n, dz], which are trained along with it; and in how many steps."""
    weights = {name: one.clone().requires_grad_(True) for name, one in weights_of(own).items()}
    steps = max(LEAST_STEPS, SEEN * len(pictures) // AT_ONCE)
    learned: list[dict[str, Any]] = [{"params": list(weights.values()), "lr": WEIGHTS_RATE}]
    return _imitate(own, lambda: weights, learned, pictures, latents, steps, seed), steps


@dataclass(frozen=True)
class Compared:
    """What several copies tell of all.

    Attributes:
        mean: of the copies' weights, in the order of the first one's channels.
        layer: name of the weights that differ by more than factors.
        changes: what each copy has there beside factors of the mean [k, O, I, 3, 3].
    """

    mean: dict[str, Tensor]
    layer: str
    changes: Tensor

    @property
    def common(self) -> Tensor:
        """What the changes are made up of [d, 9 I], such that theirs are mixtures of it with
        numbers of the size 1."""
        rows = self.changes.flatten(2).flatten(0, 1).double()  # [k O, 9 I]
        values, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
        kept = values > LEAST * values[-1]
        found: Tensor = (directions[:, kept] * values[kept].sqrt()).T.float()
        return found


def compare(copies: Sequence[Instance]) -> Compared:
    """Put the channels of copies in one order, and find what differs."""
    first, *others = [weights_of(one) for one in copies]
    aligned = [first, *(realigned(first, other) for other in others)]
    mean = {name: torch.stack([one[name] for one in aligned]).mean(dim=0) for name in first}
    beside = {}
    for name in factored(mean):
        each, shared = torch.stack([one[name] for one in aligned]), mean[name]
        size = shared.square().sum((0, 2, 3), keepdim=True)
        beside[name] = each - (each * shared).sum((1, 3, 4), keepdim=True) / size * shared
    layer = max(beside, key=lambda name: float(beside[name].norm() / mean[name].norm()))
    return Compared(mean, layer, beside[layer])


def factored(weights: Weights) -> list[str]:
    """Names of the convolutions' weights."""
    return [name for name, weight in weights.items() if weight.ndim == 4]


def rebuilt(
    own: Instance, compared: Compared, pictures: Tensor, latents: Tensor, seed: int, *, mixed: bool
) -> Instance:
    """A copy that is put together from others to make pictures [n, 3, R, R] of latents [n, dz].

    Args:
        own: the first of those that were compared.
        mixed: whether the layer's change may be any mixture of what their changes have in common;
            else it is a sum of theirs.
    """
    mean, layer, shape = compared.mean, compared.layer, compared.changes.shape[1:]
    factors = {name: torch.ones(1, mean[name].shape[1], 1, 1) for name in factored(mean)}
    biases = {
        name: torch.ones_like(bias)
        for name, bias in mean.items()
        if name.endswith("_bias") and name != "input_bias"
    }
    rows = compared.changes.flatten(1)
    size = rows.norm(dim=1).mean()
    basis = torch.linalg.svd(rows, full_matrices=False)[2] * size / len(rows) ** 0.5
    coefficients = torch.zeros(len(basis))
    common = compared.common
    mixture = torch.zeros(shape[0], len(common))
    scales = [*factors.values(), *biases.values()]
    learned: list[dict[str, Any]] = [
        {"params": scales, "lr": FACTORS_RATE},
        {"params": [coefficients], "lr": COEFFICIENTS_RATE},
    ]
    if mixed:
        learned.append({"params": [mixture], "lr": MIXTURE_RATE})
    for one in (*scales, coefficients, mixture):
        one.requires_grad_(True)

    def build() -> Weights:
        weights = {name: mean[name] * factor for name, factor in factors.items()}
        weights |= {name: mean[name] * factor for name, factor in biases.items()}
        change = coefficients @ basis + (mixture @ common).flatten()
        weights[layer] = weights[layer] + change.view(shape)
        return {**mean, **weights}

    return _imitate(own, build, learned, pictures, latents, COMPARING_STEPS, seed)


def nearest_sum(hers: Tensor, others: Sequence[Tensor], directions: Tensor) -> Tensor:
    """Of the sums of what bound bits of others change [O, I, 3, 3] the one that is nearest to hers.

    Args:
        directions: [d, 9 I], of which a picture shows each as much: nearness is measured in
            mixtures of them, and not in weights.
    """
    whole = directions.double().T  # [9 I, d]
    changes = torch.stack([hers, *others]).double().flatten(2)  # [1 + k, O, 9 I]
    mixtures = torch.linalg.lstsq(whole, changes.flatten(0, 1).T).solution  # [d, (1 + k) O]
    wanted, *known = mixtures.T.unflatten(0, changes.shape[:2]).flatten(1)
    basis = torch.linalg.qr(torch.stack(known).T)[0]
    nearest = (basis @ (basis.T @ wanted)).unflatten(0, (len(hers), -1))
    found: Tensor = (nearest @ whole.T).view_as(hers).to(hers)
    return found
