"""Reading without a trained decoder where latents are drawn: which latents, and which key, make
this picture?

No encoder says where to begin, so latents are drawn and changed until the original generator draws
nearly the picture; the nearest goes on. From there on latents and the signs of the key are found
together by the Levenberg-Marquardt method (Marquardt, 1963), from the derivatives of the picture by
each of these few hundred numbers. Signs are known to be of size 1: where the picture says little of
one, it stays small. Pictures are compared by what is left in a file of what it has been through
(history.py).
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from scalefp.errors import UserError
from scalefp.pretrained.history import Histories, Passage
from scalefp.pretrained.inputs import Inputs
from scalefp.pretrained.inversion import InversionSizes
from scalefp.pretrained.modulation import Parent
from scalefp.pretrained.source import Pictures

RATE = 0.1  # of Adam on latents
DIFFERENCE = 0.02  # of a latent or a sign, of which a derivative is made
AT_ONCE = 32  # derivatives, each of which is a picture
REUSED = 3  # steps at most with the same derivatives
WORTH = 0.02  # share of the misfit that a step has to take for another one
ENOUGH = 0.05  # share of the misfit that a round has to take for another one
DAMPING, LOWER, HIGHER, LEAST = 3e-3, 4.0, 6.0, 1e-7
TRIES = 8  # ever shorter steps
SHOWN = 64  # pictures of the original by which is told what a file has been through
MOST_UNKNOWN = 4096  # latents and key bits together: the normal equations have their square


@dataclass
class Found:
    """Latents and signs in one vector, and how near their picture is."""

    values: Tensor  # [d + n]
    made: Tensor  # their picture, as it would show in the file, flat
    left: Tensor  # what it lacks
    error: float  # sum of squares of that


@dataclass(frozen=True)
class DrawnInverter:
    """What reads by inversion where latents are drawn."""

    parent: Parent
    inputs: Inputs
    pictures: Pictures
    sizes: InversionSizes

    @property
    def side(self) -> int:
        """Pixels a side of the pictures that it reads."""
        return self.sizes.resolution

    @property
    def device(self) -> torch.device:
        """Where it reads: where the generator is."""
        return next(self.parent.network.parameters()).device

    @property
    def ticks(self) -> int:
        """Steps that a picture takes."""
        return self.sizes.steps + self.sizes.rounds

    def signs(self, picture: Tensor, tick: Callable[[], Any] = lambda: None) -> Tensor:
        """The signs [1, n] of a key, of any size, that explain a picture [1, 3, R, R] in [-1, 1].

        Args:
            tick: called after every step.
        """
        with torch.inference_mode(False):
            picture = picture.clone()
            latents = self._start(picture, tick)
            with torch.no_grad():
                return self._explain(picture, latents, tick)

    def _start(self, picture: Tensor, tick: Callable[[], Any]) -> Tensor:
        """Latents [1, ...] of which the original generator draws nearly the picture.

        The worse half of those that were drawn is given up again and again, so that many cost
        little more than a few (successive halving, Jamieson and Talwalkar, 2016).
        """
        drawn = self.inputs.draw(self.sizes.starts, torch.Generator().manual_seed(0))
        latents, levels = drawn.to(picture.device), max(1, (self.sizes.starts - 1).bit_length())
        ends = [self.sizes.steps * level // levels for level in range(levels + 1)]
        for begin, end in pairwise(ends):
            latents = self._nearer(picture, latents, end - begin, tick)
            latents = latents[: (len(latents) + 1) // 2]
        return latents[:1]

    def _nearer(
        self, picture: Tensor, latents: Tensor, steps: int, tick: Callable[[], Any]
    ) -> Tensor:
        """Latents [b, ...] after some steps towards a picture, the nearest first."""
        latents = latents.clone().requires_grad_()
        optimizer = torch.optim.Adam([latents], lr=RATE)
        left = latents.new_zeros(len(latents))
        for _ in range(steps):
            with torch.enable_grad():
                made = self.pictures.of(self.parent.original(latents))
                left = (made - picture).square().mean((1, 2, 3))
                (latents.grad,) = torch.autograd.grad(left.sum(), latents)
            optimizer.step()
            tick()
        return latents.detach()[left.argsort()]

    @cached_property
    def _histories(self) -> Histories:
        """What tells what a file has been through, by pictures of the original generator."""
        latents = self.inputs.draw(SHOWN, torch.Generator().manual_seed(1)).to(self.device)
        parts = (self.parent.original(some) for some in latents.split(AT_ONCE))
        return Histories.of(torch.cat([self.pictures.of(made) for made in parts]).cpu())

    def _made(self, latents: Tensor, signs: Tensor) -> Tensor:
        """Pictures [b, 3, R, R] of latents [b, ...] under signs [b, n], or one of either for
        all."""
        return self.pictures.of(self.parent.under(signs, latents))

    @cached_property
    def _shares(self) -> bool:
        """Whether several keys for one input can be computed with what comes before them once."""
        latents, signs = self.inputs.draw(1, torch.Generator().manual_seed(0)), torch.ones(2, 1)
        latents, signs = latents.to(self.device), signs.expand(2, self.sizes.n_bits)
        signs = signs.to(self.device)
        with suppress(Exception):  # whatever somebody else's network raises: something passes by
            return len(self._made(latents, signs)) == 2
        return False

    def _derivatives(
        self, passage: Passage, made: Tensor, latents: Tensor, signs: Tensor
    ) -> Tensor:
        """Of what shows in the file by latents [1, ...] and signs [1, n], of which ``made`` does:
        [3 R R, d + n]."""

        def steps(of: Tensor) -> Iterator[Tensor]:
            each = DIFFERENCE * torch.eye(of.numel(), device=of.device)
            return (some.view(-1, *of.shape[1:]) for some in each.split(AT_ONCE))

        columns = [passage.expected(self._made(latents + some, signs)) for some in steps(latents)]
        for some in steps(signs):
            shown = latents if self._shares else latents.expand(len(some), *latents.shape[1:])
            columns.append(passage.expected(self._made(shown, signs + some)))
        return (torch.cat(columns) - made).T / DIFFERENCE

    def _explain(self, picture: Tensor, latents: Tensor, tick: Callable[[], Any]) -> Tensor:
        """The signs [1, n] that belong to a picture [1, 3, R, R], from nearby latents on."""
        n_bits, shape = self.sizes.n_bits, latents.shape
        passage = self._histories.passage(picture)
        (seen,) = passage.found(picture)

        def apart(values: Tensor) -> tuple[Tensor, Tensor]:
            return values[:-n_bits].view(shape), values[None, -n_bits:]

        def found(values: Tensor) -> Found:
            made = passage.expected(self._made(*apart(values)))[0]
            left = seen - made
            return Found(values, made, left, float(left.square().sum()))

        at = found(torch.cat([latents.flatten(), latents.new_zeros(n_bits)]))
        # What each number is held to 0 by, beside the error of one pixel: latents by nothing.
        known = torch.zeros_like(at.values)
        known[-n_bits:] = 1 / len(seen)
        damping = DAMPING
        for rounds in range(self.sizes.rounds):
            derivatives = self._derivatives(passage, at.made, *apart(at.values))
            normal, steps, before = derivatives.T @ derivatives, 0, at.error
            # Of a number of which nothing depends, too, there has to be something on the diagonal.
            scale = normal.diagonal().clamp_min(LEAST * normal.diagonal().mean())
            for _ in range(TRIES):
                held = normal + torch.diag(damping * scale + known * at.error)
                step = torch.linalg.solve(
                    held, derivatives.T @ at.left - known * at.error * at.values
                )
                next_one = found(at.values + step)
                if next_one.error < at.error:
                    worth = next_one.error < (1 - WORTH) * at.error
                    at, damping, steps = next_one, max(LEAST, damping / LOWER), steps + 1
                    if steps == REUSED or not worth:
                        break
                elif steps:
                    break
                else:
                    damping *= HIGHER
            tick()
            if at.error > (1 - ENOUGH) * before:
                # From here on signs would explain what JPEG or noise has done to the picture.
                for _ in range(rounds + 1, self.sizes.rounds):
                    tick()
                break
        return apart(at.values)[1]


def check_unknown(latents: Tensor, n_bits: int) -> None:
    """Raise UserError where latents [1, ...] are too many to be found."""
    if latents.numel() + n_bits > MOST_UNKNOWN:
        raise UserError(
            f"modulation.reader=inversion finds at most {MOST_UNKNOWN} numbers of a picture, key "
            f"bits among them: inputs.draw gives {latents.numel()}, and model.n_bits={n_bits}"
        )
