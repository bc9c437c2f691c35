"""Reading without a trained decoder where latents are drawn: which latents, and which key, make
this picture?

No encoder says where to begin, so latents are drawn and changed until the original generator draws
nearly the picture; the nearest goes on. From there on latents and the signs of the key are found
together by the Levenberg-Marquardt method (Marquardt, 1963), from the derivatives of the picture by
each of these few hundred numbers. Signs are known to be of size 1: where the picture says little of
one, it stays small. Pictures are compared by what is left in a file of what it has been through
(history.py); of crops and turned ones it is found out where they lie, too (laid.py).
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
from scalefp.pretrained.laid import NUMBERS, STILL, STILL_BLURRED, drawn_places, inside, laid
from scalefp.pretrained.modulation import Parent
from scalefp.pretrained.source import Pictures

RATE, PLACE_RATE = 0.1, 0.02  # of Adam on latents, and on where a picture lies
# Of a latent or a sign, and of where it lies: differences of which derivatives are made.
DIFFERENCE, SHIFT = 0.02, 0.002
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
    """Latents, place and signs in one vector, and how near their picture is."""

    values: Tensor  # [d + 4 + n]
    made: Tensor  # their picture, as it would show in the file, flat
    left: Tensor  # what it lacks
    error: float  # sum of squares of that


@dataclass(frozen=True)
class View:
    """How pictures show in a file."""

    passage: Passage
    shown: Tensor  # 1 for the pixels that count [1, 1, R, R]
    still: bool  # they lie as they were made

    def of(self, made: Tensor, places: Tensor) -> Tensor:
        """Made pictures [b, 3, R, R] at places [b, 4], or one of either for all: [b, 3 R R]."""
        return self.passage.expected((made if self.still else laid(made, places)) * self.shown)


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

    def signs(
        self, picture: Tensor, tick: Callable[[], Any] = lambda: None, *, search: bool = False
    ) -> Tensor:
        """The signs [1, n] of a key, of any size, that explain a picture [1, 3, R, R] in [-1, 1].

        Args:
            tick: called after every step.
            search: it may be a crop, or was turned: see laid.py.
        """
        with torch.inference_mode(False):
            picture = picture.clone()
            start = self._start(picture, search, tick)
            with torch.no_grad():
                return self._explain(picture, *start, tick)

    def _start(
        self, picture: Tensor, search: bool, tick: Callable[[], Any]
    ) -> tuple[Tensor, Tensor]:
        """Latents [1, ...] of which the original generator draws nearly the picture, and the place
        [1, 4] at which it lies.

        The worse half of those that were drawn is given up again and again, so that many cost
        little more than a few (successive halving, Jamieson and Talwalkar, 2016).
        """
        source, starts = torch.Generator().manual_seed(0), self.sizes.starts
        count = 2 * starts if search else starts
        latents = self.inputs.draw(count, source).to(picture.device)
        places = torch.zeros(starts, NUMBERS)
        if search:  # as many at other places
            places = torch.cat([places, drawn_places(starts, source)])
        at, levels = (latents, places.to(latents)), max(1, (count - 1).bit_length())
        ends = [self.sizes.steps * level // levels for level in range(levels + 1)]
        for begin, end in pairwise(ends):
            order, at = self._nearer(picture, *at, search, end - begin, tick)
            best = order[: (len(order) + 1) // 2]
            at = (at[0][best], at[1][best])
        return at[0][:1], at[1][:1]

    def _nearer(
        self, picture: Tensor, latents: Tensor, places: Tensor, search: bool, steps: int,
        tick: Callable[[], Any],
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # fmt: skip
        """Latents [b, ...] and places [b, 4] after some steps towards a picture, and their order,
        the nearest first."""
        rates = {latents.clone(): RATE} | ({places.clone(): PLACE_RATE} if search else {})
        optimizer = torch.optim.Adam(
            [{"params": [one.requires_grad_()], "lr": rate} for one, rate in rates.items()]
        )
        latents, places = (*rates, places)[:2]
        left = latents.new_zeros(len(latents))
        for _ in range(steps):
            with torch.enable_grad():
                made = self.pictures.of(self.parent.original(latents))
                apart = (made - picture).square()
                if search:
                    shown = inside(places.detach(), self.side)
                    apart = (laid(made, places) - picture).square() * shown / shown.mean()
                left = apart.mean((1, 2, 3))
                slopes = torch.autograd.grad(left.sum(), list(rates))
            for one, slope in zip(rates, slopes, strict=True):
                one.grad = slope
            optimizer.step()
            tick()
        return left.detach().argsort(), (latents.detach(), places.detach())

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
        self, view: View, made: Tensor, latents: Tensor, places: Tensor, signs: Tensor
    ) -> Tensor:
        """Of what shows in the file by latents [1, ...], places [1, 4] and signs [1, n], of which
        ``made`` does: [3 R R, d + 4 + n]."""

        def steps(of: Tensor, difference: float) -> Iterator[Tensor]:
            each = difference * torch.eye(of.numel(), device=of.device)
            return (some.view(-1, *of.shape[1:]) for some in each.split(AT_ONCE))

        columns = [
            (view.of(self._made(latents + some, signs), places) - made) / DIFFERENCE
            for some in steps(latents, DIFFERENCE)
        ]
        here = self._made(latents, signs)
        columns += [
            (view.of(here, places + some) - made).expand(NUMBERS, -1) / SHIFT
            for some in steps(places, SHIFT)
        ]
        for some in steps(signs, DIFFERENCE):
            shown = latents if self._shares else latents.expand(len(some), *latents.shape[1:])
            columns.append((view.of(self._made(shown, signs + some), places) - made) / DIFFERENCE)
        return torch.cat(columns).T

    def _view(self, picture: Tensor, places: Tensor) -> View:
        """How pictures at places [1, 4] show in the file of a picture [1, 3, R, R]."""
        change = self._histories.told(picture.cpu())
        resized = change is not None and change[0] == "resize"
        still = bool(places.abs().max() < (STILL_BLURRED if resized else STILL))
        # What is zoomed or turned is blurred by that, which its place accounts for.
        passage = self._histories.passage(None if resized and not still else change)
        shown = inside(torch.zeros_like(places) if still else places, self.side)
        return View(passage.to(picture.device), shown, still)

    def _explain(
        self, picture: Tensor, latents: Tensor, places: Tensor, tick: Callable[[], Any]
    ) -> Tensor:
        """The signs [1, n] that belong to a picture [1, 3, R, R], from nearby latents [1, ...] and
        places [1, 4] on."""
        n_bits, shape, view = self.sizes.n_bits, latents.shape, self._view(picture, places)
        (seen,) = view.passage.found(picture * view.shown)

        def apart(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            z, place, signs = values.split([latents.numel(), NUMBERS, n_bits])
            return z.view(shape), place[None], signs[None]

        def found(values: Tensor) -> Found:
            z, place, signs = apart(values)
            made = view.of(self._made(z, signs), place)[0]
            left = seen - made
            return Found(values, made, left, float(left.square().sum()))

        at = found(torch.cat([latents.flatten(), places[0], latents.new_zeros(n_bits)]))
        # What each number is held to 0 by, beside the error of one pixel: latents by nothing.
        known = torch.zeros_like(at.values)
        known[-n_bits:] = 1 / float(3 * view.shown.sum())
        damping = DAMPING
        for rounds in range(self.sizes.rounds):
            derivatives = self._derivatives(view, at.made, *apart(at.values))
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
        return apart(at.values)[2]


def check_unknown(latents: Tensor, n_bits: int) -> None:
    """Raise UserError where latents [1, ...] are too many to be found."""
    if latents.numel() + n_bits > MOST_UNKNOWN:
        raise UserError(
            f"modulation.reader=inversion finds at most {MOST_UNKNOWN} numbers of a picture, key "
            f"bits among them: inputs.draw gives {latents.numel()}, and model.n_bits={n_bits}"
        )
