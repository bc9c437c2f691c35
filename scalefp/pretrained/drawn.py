"""Reading without a trained decoder where latents are drawn: which latents, and which key, make
this picture?

No encoder says where to begin, so latents are found of which the original generator draws nearly
the picture (beginning.py). From there on latents and the signs of the key are found together by the
Levenberg-Marquardt method (Marquardt, 1963), from the derivatives of the picture by each of these
few hundred numbers. Signs are known to be of size 1: where the picture says little of one, it stays
small; at the end they are decided together (deciding.py). Pictures are compared by what is left in
a file of what it has been through (history.py); of crops and turned ones it is found out where they
lie, too (laid.py). Where a picture is not explained, it is begun again from other latents.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scalefp.errors import UserError
from scalefp.pretrained.beginning import Beginning
from scalefp.pretrained.deciding import likely
from scalefp.pretrained.history import Histories, Passage
from scalefp.pretrained.inputs import Inputs
from scalefp.pretrained.inversion import InversionSizes
from scalefp.pretrained.laid import NUMBERS, STILL, STILL_BLURRED, inside, laid
from scalefp.pretrained.modulation import Parent
from scalefp.pretrained.source import Pictures

# Of a latent or a sign, and of where it lies: differences of which derivatives are made.
DIFFERENCE, SHIFT = 0.02, 0.002
AT_ONCE = 32  # derivatives, each of which is a picture
REUSED = 3  # steps at most with the same derivatives
WORTH = 0.02  # share of the misfit that a step has to take for another one
ENOUGH = 0.05  # share of the misfit that a round has to take for another one
DECIDED = 4  # times that all signs are decided together, each with derivatives anew
FARTHER = 2.0  # times the misfit, at the most, that signs of size 1 leave
DAMPING, LOWER, HIGHER, LEAST = 3e-3, 4.0, 6.0, 1e-7
TRIES = 8  # ever shorter steps
SHOWN = 64  # pictures of the original by which is told what a file has been through
ATTEMPTS = 4  # at most, at a picture
CERTAIN = 0.98  # mean size of the signs of a picture that is explained
MOST_UNKNOWN = 4096  # latents and key bits together: the normal equations have their square


@dataclass
class Found:
    """Latents, place and signs in one vector, and how near their picture is."""

    values: Tensor  # [d + 4 + n]
    made: Tensor  # their picture, as it would show in the file, flat
    left: Tensor  # what it lacks
    error: float  # sum of squares of that


@dataclass(frozen=True)
class Explanation:
    """What an attempt at a picture came to."""

    signs: Tensor  # [1, n]
    apart: float  # mean square between the picture and its explanation
    certain: bool  # of its signs


@dataclass(frozen=True)
class View:
    """How pictures show in a file."""

    passage: Passage
    shown: Tensor  # 1 for the pixels that count [1, 1, R, R]
    still: bool  # they lie as they were made

    @property
    def count(self) -> float:
        """Of how many numbers they are told apart."""
        return float(3 * self.shown.sum() * (self.passage.scale > 0).float().mean())

    def of(self, made: Tensor, places: Tensor) -> Tensor:
        """Made pictures [b, 3, R, R] at places [b, 4], or one of either for all: [b, 3 R R]."""
        return self.passage.expected(self.at(made, places))

    def at(self, made: Tensor, places: Tensor) -> Tensor:
        """What is seen of made pictures at places, if the file had been through nothing else."""
        return (made if self.still else laid(made, places)) * self.shown


@dataclass(frozen=True)
class DrawnInverter:
    """What reads by inversion where latents are drawn."""

    parent: Parent
    inputs: Inputs
    pictures: Pictures
    sizes: InversionSizes
    attempts: int = ATTEMPTS

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
        """Steps that a picture takes at the most."""
        return self.attempts * self._steps

    @property
    def _steps(self) -> int:
        """Those of an attempt."""
        return self.sizes.steps + self.sizes.rounds

    def signs(
        self, picture: Tensor, tick: Callable[[], Any] = lambda: None, *, search: bool = False
    ) -> Tensor:
        """The signs [1, n] of a key, expected between -1 and 1, that explain a picture
        [1, 3, R, R] in [-1, 1].

        Args:
            tick: called after every step, and for those that are not needed.
            search: it may be a crop, or was turned: see laid.py.
        """
        with torch.inference_mode(False):
            picture, source = picture.clone(), torch.Generator().manual_seed(0)
            found = list[Explanation]()
            for later in reversed(range(self.attempts)):
                start = self._beginning.near(picture, search, source, tick)
                with torch.no_grad():
                    found.append(self._explain(picture, *start, tick))
                if found[-1].certain:
                    for _ in range(later * self._steps):
                        tick()
                    break
            return min(found, key=lambda one: one.apart).signs

    @cached_property
    def _beginning(self) -> Beginning:
        """What finds latents to begin from."""
        return Beginning(self._original, self.inputs, self.sizes)

    def _original(self, latents: Tensor) -> Tensor:
        """Pictures [b, 3, R, R] of latents [b, ...] without a key."""
        return self.pictures.of(self.parent.original(latents))

    @cached_property
    def _histories(self) -> Histories:
        """What tells what a file has been through, by pictures of the original generator."""
        latents = self.inputs.draw(SHOWN, torch.Generator().manual_seed(1)).to(self.device)
        parts = [self._original(some) for some in latents.split(AT_ONCE)]
        return Histories.of(torch.cat(parts).cpu())

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
    ) -> Explanation:
        """How signs explain a picture [1, 3, R, R], from nearby latents [1, ...] and places [1, 4]
        on."""
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
        # What each number is held by, beside the error of one pixel, and to what: signs to 0,
        # latents to what is usual, and where a picture lies by nothing.
        mean, variance = self._beginning.usual(latents)
        held, to = torch.zeros_like(at.values), torch.zeros_like(at.values)
        to[: mean.numel()] = mean.flatten()
        held[: mean.numel()] = 1 / (view.count * variance.flatten())
        held[-n_bits:] = 1 / view.count
        damping = DAMPING
        for rounds in range(self.sizes.rounds):
            derivatives = self._derivatives(view, at.made, *apart(at.values))
            before = at.error
            at, damping = stepped(at, found, derivatives, (held, to), damping)
            tick()
            if at.error > (1 - ENOUGH) * before:
                # From here on signs would explain what JPEG or noise has done to the picture.
                for _ in range(rounds + 1, self.sizes.rounds):
                    tick()
                break
        certain = False
        for _ in range(DECIDED):
            derivatives = self._derivatives(view, at.made, *apart(at.values))
            normal, slope = derivatives.T @ derivatives, derivatives.T @ at.left
            decided = found(likely(normal, slope, at.values, at.error / view.count, n_bits))
            if not decided.error < FARTHER * at.error:  # too far for these derivatives
                certain = False
                break
            at = decided
            certain = float(at.values[-n_bits:].abs().mean()) > CERTAIN
        z, place, signs = apart(at.values)
        pixels = view.at(self._made(z, signs), place) - picture * view.shown
        nearly = float(pixels.square().sum() / view.shown.sum())
        return Explanation(signs.clamp(-1, 1), nearly, certain)


def stepped(
    at: Found,
    found: Callable[[Tensor], Found],
    derivatives: Tensor,
    known: tuple[Tensor, Tensor],
    damping: float,
) -> tuple[Found, float]:
    """A few steps downhill by the same derivatives [3 R R, d + 4 + n], and the damping of the
    next.

    Args:
        known: what each number is held by, beside the sum of squares of what is lacking, and to
            what; each [d + 4 + n].
    """
    normal, steps, (held, to) = derivatives.T @ derivatives, 0, known
    # Of a number of which nothing depends, too, there has to be something on the diagonal.
    scale = normal.diagonal().clamp_min(LEAST * normal.diagonal().mean())
    for _ in range(TRIES):
        hold = held * at.error
        step = torch.linalg.solve(
            normal + torch.diag(damping * scale + hold),
            derivatives.T @ at.left - hold * (at.values - to),
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
    return at, damping


def check_unknown(latents: Tensor, n_bits: int) -> None:
    """Raise UserError where latents [1, ...] are too many to be found."""
    if latents.numel() + n_bits > MOST_UNKNOWN:
        raise UserError(
            f"modulation.reader=inversion finds at most {MOST_UNKNOWN} numbers of a picture, key "
            f"bits among them: inputs.draw gives {latents.numel()}, and model.n_bits={n_bits}"
        )
