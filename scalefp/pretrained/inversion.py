"""Reading a key without a trained decoder: which latents, and which key, make this picture?

The owner has the decoder that makes the pictures, with its key modulation, and the encoder that
belongs to it. A picture of unknown origin is encoded, and latents and the signs of a key are then
changed together, step by step, until decoding them gives the picture (*inversion*, as of GANs: Xia
et al., 2022). What latents cannot explain of a picture is explained by the key that made it. No
key is looked at, so p-values stay exact.

Since a change of weights changes every picture in another way, what a key adds to one picture means
nothing in another.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scalefp.data.images import to_pil
from scalefp.options import RESOLUTIONS, check_options, one_of, within
from scalefp.pretrained.encoder import PictureEncoder, continued, theirs
from scalefp.pretrained.grid import Place, grid_of
from scalefp.pretrained.history import BLOCK, Histories, jpeg_quality
from scalefp.pretrained.modulation import Parent
from scalefp.pretrained.source import Pictures
from scalefp.pretrained.turned import inside, turn_of, turned

LATENT_RATE, SIGN_RATE = 0.04, 0.2  # of Adam; key signs are -1 and 1, latents mostly within 3
LARGEST = 512  # pixels a side that are inverted; the time goes with their number
TURN_RATE = math.radians(0.03)  # of a picture's turn
BETAS = (0.8, 0.95)  # of Adam: few steps have to do


@dataclass
class InversionSizes:
    """Sizes of key and pictures, and for how long is inverted. Stored in the release."""

    resolution: int = one_of(256, *RESOLUTIONS)  # of the pictures that it was fitted to
    n_bits: int = within(128, 8, 512)
    steps: int = within(20, 1, 10_000)
    factor: int = within(8, 1, 256)  # pixels of a picture to a place of the latents, a side
    # Where latents are drawn, see drawn.py: how many are tried, and rounds after the steps.
    starts: int = within(0, 0, 1024, absent_was=0)
    rounds: int = within(0, 0, 1000, absent_was=0)

    latent_dim = 0  # what is read besides the key: nothing

    def check(self) -> None:
        """Raise :class:`UserError` unless they can be used."""
        check_options(self)


@dataclass(frozen=True)
class Inverter:
    """What reads by inversion: the parent, what encodes, and how its output becomes pictures."""

    parent: Parent
    encoder: PictureEncoder
    pictures: Pictures
    sizes: InversionSizes
    side = None  # it reads pictures of any size

    @property
    def ticks(self) -> int:
        """Steps that a picture takes."""
        return self.sizes.steps

    def search(self, picture: Tensor) -> tuple[Place, float]:
        """Where in a picture [1, 3, H, W], which may be a crop, the blocks of its decoder begin,
        and the degrees by which it was turned.

        Of one with more than 512 pixels a side the middle is taken.

        Raises:
            UserError: as :meth:`signs`.
        """
        picture, factor = middle(picture, LARGEST, self.sizes.factor), self.sizes.factor

        def again(parts: Tensor) -> Tensor:
            return self._made(self.parent.original, self.encoder(parts))

        place = grid_of(again, picture, factor)
        degrees = turn_of(again, picture, place, factor)
        return (0, 0) if degrees else place, degrees

    def _made(self, network: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
        """Pictures of latents [b, ...]."""
        height, width = (side * self.sizes.factor for side in latents.shape[2:])
        with theirs(f"the generator does not decode pictures of {width}x{height}"):
            return self.pictures.of(network(latents))

    def signs(
        self,
        picture: Tensor,
        tick: Callable[[], Any] = lambda: None,
        *,
        place: Place = (0, 0),
        degrees: float = 0,
    ) -> Tensor:
        """The signs [1, n] of a key, of any size, that explain a picture [1, 3, H, W] in [-1, 1].

        Of one with more than 512 pixels a side the middle is read.

        Args:
            tick: called after every step.
            place: where the blocks of its decoder begin.
            degrees: by which it was turned about its middle, roughly: this is found out, too. What
                is made is turned, so that the picture stays as sharp as it is.

        Raises:
            UserError: the networks do not take it, as those of others may not.
        """
        picture = middle(picture, LARGEST, self.sizes.factor)
        with torch.inference_mode(False), torch.enable_grad():
            part = picture[:, :, place[0] :, place[1] :].clone()
            angle = torch.tensor(math.radians(degrees), device=part.device, requires_grad=True)
            straight, counts = part, torch.ones_like(part[:, :1])
            if degrees:
                straight, counts = turned(part, -angle.detach()), inside(part, angle.detach())
            latents = self.encoder(continued(straight, self.sizes.factor))
            latents = latents.clone().requires_grad_()
            signs = torch.zeros(1, self.sizes.n_bits, device=latents.device, requires_grad=True)

            def made() -> Tensor:
                whole = self._made(partial(self.parent.under, signs), latents)
                whole = whole[:, :, : part.shape[2], : part.shape[3]]
                return (turned(whole, angle) if degrees else whole) * counts

            with torch.no_grad():
                nearly = made()
            apart = comparing(picture, place, part * counts, nearly)
            unknown = {latents: LATENT_RATE, signs: SIGN_RATE} | (
                {angle: TURN_RATE} if degrees else {}
            )
            groups = [{"params": [tensor], "lr": rate} for tensor, rate in unknown.items()]
            optimizer = torch.optim.Adam(groups, betas=BETAS)
            for _ in range(self.sizes.steps):
                left = apart(made()).square().mean()
                for tensor, slope in zip(
                    unknown, torch.autograd.grad(left, list(unknown)), strict=True
                ):
                    tensor.grad = slope
                optimizer.step()
                tick()
        return signs.detach()


def comparing(
    picture: Tensor, place: Place, part: Tensor, nearly: Tensor
) -> Callable[[Tensor], Tensor]:
    """How far what is made [1, 3, h, w] is from a part of a file's picture, number by number.

    Of a file that was a JPEG one, the numbers are those of its blocks, each by how much of it comes
    through that quality: see history.py. How much does is told by ``nearly`` itself, as pictures
    differ in it.

    Args:
        picture: the file's [1, 3, H, W], which shows whether it was a JPEG one.
        place: where in it the part begins.
        part: of the picture, [1, 3, h, w].
        nearly: what is made to begin with, [1, 3, h, w].
    """
    (file,), (top, left) = to_pil(picture), (-at % BLOCK for at in place)
    rows, columns = (
        (size - start) // BLOCK * BLOCK
        for size, start in zip(part.shape[2:], (top, left), strict=True)
    )
    quality = jpeg_quality(file) if rows and columns else None
    if quality is None:
        return lambda made: made - part

    def blocks(pictures: Tensor) -> Tensor:
        return pictures[:, :, top : top + rows, left : left + columns]

    passage = Histories.of(blocks(nearly).cpu()).passage(("jpeg", quality)).to(part.device)
    seen = passage.found(blocks(part))
    return lambda made: passage.expected(blocks(made)) - seen


def middle(picture: Tensor, largest: int, factor: int) -> Tensor:
    """Of a picture [1, 3, H, W] the middle of at most so many pixels a side, on the decoder's grid.

    Its corner lies at multiples of ``factor``, as a decoder makes pictures of blocks of that size.
    """
    for dimension in (2, 3):
        side = picture.shape[dimension]
        if side > largest:
            start = (side - largest) // 2 // factor * factor
            picture = picture.narrow(dimension, start, largest)
    return picture
