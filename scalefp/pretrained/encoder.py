"""What turns pictures into the inputs of a decoder: the encoder that belongs to it, as options name
it. Its weights, too, stay where they are; they are known by their digest."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.errors import UserError
from scalefp.options import check_one_of
from scalefp.pretrained.source import check_digest, load_network, weights_path
from scalefp.training.run import memory_ran_out

RANGES = ([-1, 1], [0, 1])
AT_ONCE = 16 * 256 * 256  # pixels that are encoded in one batch
SLOW = 10  # seconds of encoding from which its progress is shown


@contextmanager
def theirs(fails: str) -> Iterator[None]:
    """Around a call of somebody else's network: whatever it raises becomes one sentence.

    Too little memory is no fault of the network and is passed on.

    Args:
        fails: what the sentence says before the network's own words.

    Raises:
        UserError: the network failed.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or memory_ran_out(error):
            raise
        raise UserError(f"{fails}: {error}") from error


def latents_of(out: Any) -> Tensor:
    """Latents [b, ...] in what an encoder returns: a tensor, or what classes of diffusers return.

    Raises:
        UserError: there are none in it.
    """
    found: Any = out[0] if isinstance(out, tuple) else out
    found = getattr(found, "latents", found)
    if hasattr(found, "latent_dist"):  # what is decoded is usually drawn from it; its mean is best
        found = found.latent_dist.mean
    if not isinstance(found, Tensor):
        raise UserError(f"an encoder must return latents as a tensor, not {type(found).__name__}")
    return found


def continued(pictures: Tensor, factor: int) -> Tensor:
    """Pictures [b, 3, H, W] of any size, with sides that are multiples of a factor.

    They go on to the right and below as their own reflection, to and fro if they are small.
    """
    for dimension in (2, 3):
        side = pictures.shape[dimension]
        places = torch.arange(-(-side // factor) * factor, device=pictures.device)
        places = places.remainder(max(1, 2 * (side - 1)))
        places = torch.where(places < side, places, 2 * (side - 1) - places)
        pictures = pictures.index_select(dimension, places)
    return pictures


class PictureEncoder(nn.Module):
    """An encoder that others trained.

    Args:
        options: class, ``weights`` and arguments, as those of a generator.
        method: of the network, what encodes.
        range: what black and white are in the pictures that it takes.
        digest: SHA-256 of its weights, if it has to be the one that is meant.
        what: the name of the options in messages.

    Raises:
        UserError: class, arguments or weights that do not work.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        method: str = "forward",
        range: Sequence[float] = (-1.0, 1.0),
        digest: str | None = None,
        what: str = "inputs.encoder",
    ) -> None:
        super().__init__()
        check_one_of("inputs.range", list(range), RANGES)
        if digest is not None:
            path = weights_path(str(options.get("weights")), what)
            check_digest(path, digest, "the weights of the encoder that is meant")
        self.network = load_network(options, what)
        # As convolutions on CPUs want it; the types of torch lack this form.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if not callable(getattr(self.network, method, None)):
            raise UserError(f"inputs.method: {type(self.network).__name__} has no {method}")
        self.method, (self.low, self.high) = method, range

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Latents [b, ...] of pictures [b, 3, H, W] in [-1, 1], few at a time."""
        height, width = pictures.shape[2:]
        scaled = (pictures + 1) * ((self.high - self.low) / 2) + self.low
        encode = getattr(self.network, self.method)
        batches = scaled.split(max(1, AT_ONCE // (height * width)))
        single = len(batches) == 1
        bar = tqdm(batches, desc="encode", unit="batch", delay=SLOW, leave=False, disable=single)
        with theirs(f"{type(self.network).__name__} does not encode pictures of {width}x{height}"):
            return torch.cat([latents_of(encode(batch)) for batch in bar])


def encoder_of(how: Mapping[str, Any], folder: Path | None = None) -> PictureEncoder:
    """The encoder that the ``inputs`` of a release or an instance name.

    Args:
        folder: where its weights may lie if they are not where the file says.

    Raises:
        UserError: class or weights are missing, or it is not said how pictures are encoded.
    """
    try:
        options, named = dict(how["encoder"]), str(how["encoder"]["weights"])
        if folder is not None and not weights_path(named, "inputs.encoder").is_file():
            beside = folder / Path(named).name
            options["weights"] = str(beside) if beside.is_file() else named
        more = {name: how[name] for name in ("method", "range", "digest") if name in how}
        return PictureEncoder(options, **more)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("the file does not say how its pictures are encoded") from error
