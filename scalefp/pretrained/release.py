"""The release of an adopted generator: what a key changes, and the decoder that reads it.

The generator's own weights are not in it. It names their file and its digest, so what may not be
passed on stays where it is; reading pictures takes nothing but the release. Only one that reads by
inversion has no decoder, and takes the generator and what encodes for it instead.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.attribution.reading import Reading
from scalefp.config import TrainConfig
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.networks.decoder import Decoder
from scalefp.pretrained.drawn import DrawnInverter
from scalefp.pretrained.encoder import encoder_of
from scalefp.pretrained.inputs import Inputs, known_inputs
from scalefp.pretrained.instance import PretrainedInstance
from scalefp.pretrained.inversion import InversionSizes, Inverter
from scalefp.pretrained.modulation import Parent, modulate
from scalefp.pretrained.source import (
    Pictures,
    check_digest,
    digest_of,
    load_network,
    make,
    weights_path,
)
from scalefp.pretrained.state import ReaderSizes
from scalefp.release import inputs as given
from scalefp.release.container import (
    check_strictly,
    load_header,
    load_weights,
    save_tensors,
    shapes_of,
)
from scalefp.release.header import load_release_header
from scalefp.release.inputs import Images
from scalefp.release.reader import Reader

KIND = "pretrained"
DECODER, KEYED = "decoder.", "keyed."  # how names of tensors begin


class PretrainedModel(Reader):
    """A release of a generator that others trained. Attributes as of ``Reader``.

    What instantiates needs the class and the weights of the generator, and is prepared on first
    use.
    """

    config: ReaderSizes | InversionSizes

    def __init__(
        self,
        config: ReaderSizes | InversionSizes,
        decoder: Decoder | None,
        keyed: dict[str, Tensor],
        origin: dict[str, Any],
        *,
        training: dict[str, Any],
        digest: str,
    ) -> None:
        super().__init__(decoder, training=training, digest=digest)
        self.config, self.keyed, self.origin = config, keyed, origin
        self.resolution, self.n_bits = config.resolution, config.n_bits

    @cached_property
    @torch.inference_mode(False)  # whoever asks for it first: gradients may have to pass later
    def parent(self) -> Parent:
        """The generator with key modulation.

        Raises:
            UserError: its class is not installed, or its weights are missing or others.
        """
        options, how = self.origin["generator"], self.origin["modulation"]
        path = weights_path(str(options.get("weights")))
        digest = self.origin["weights_digest"]
        check_digest(path, digest, "the weights that this release was trained on")
        parent = modulate(
            load_network(options), self.config.n_bits, how["layers"], deltas=how["deltas"],
            key_gain=how["key_gain"], delta_gain=how["delta_gain"], method=how["method"],
            factored=how.get("factored", False),
        )  # fmt: skip
        check_strictly(shapes_of(parent.keyed.state_dict()), shapes_of(self.keyed), "the release")
        parent.keyed.load_state_dict(self.keyed)
        return parent.requires_grad_(False)

    @cached_property
    def inputs(self) -> Inputs:
        """What feeds its instances, one for all of them: it may hold an encoder and pictures.

        Raises:
            UserError: it cannot be made here.
        """
        inputs: Inputs = make(self.origin["inputs"], "inputs")
        return inputs

    @cached_property
    def original(self) -> PretrainedInstance:
        """The generator as others trained it, without any key, in the form of an instance.

        Raises:
            UserError: as :attr:`parent`.
        """
        side = self.config.resolution
        return PretrainedInstance(self.parent.network, self.origin, side, lambda: self.inputs)

    def instantiate(self, key: Key) -> PretrainedInstance:
        """The recipient's network for ``key``: the generator's own class, with other weights.

        Raises:
            UserError: the key's length is not the release's, or as :attr:`parent`.
        """
        network, side = self.parent.fold(key), self.config.resolution
        instance = PretrainedInstance(network, self.origin, side, lambda: self.inputs)
        instance.release_digest = self.digest
        return instance

    def instantiate_many(self, keys: Iterable[Key]) -> Iterator[PretrainedInstance]:
        """The instances of ``keys`` in their order, each made when it is asked for."""
        return map(self.instantiate, keys)


class InvertingModel(PretrainedModel):
    """A release that reads by inversion: see inversion.py and, where latents are drawn, drawn.py.

    It takes the generator to read, and its encoder where it has one, and half a minute for a
    picture of 256 pixels, or for one of 64 whose latents were drawn, on one core of a CPU.
    """

    config: InversionSizes

    @property
    def device(self) -> torch.device:
        """Where it reads: where :attr:`parent` was before the first picture, if it was moved."""
        return next(self.parent.network.parameters()).device

    @cached_property
    @torch.inference_mode(False)
    def inverter(self) -> Inverter | DrawnInverter:
        """What reads.

        Raises:
            UserError: class or weights of the generator or of its encoder are missing here.
        """
        low, high = self.origin["modulation"]["range"]
        # As convolutions on CPUs want it; the types of torch lack this form.
        self.parent.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.config.starts:
            return DrawnInverter(self.parent, self.inputs, Pictures(low, high), self.config)
        encoder = encoder_of(self.origin["inputs"]).to(self.device)
        return Inverter(self.parent, encoder, Pictures(low, high), self.config)

    def reconstruct(self, pictures: Tensor) -> Tensor:
        """Pictures [b, 3, H, W] in [-1, 1] as the generator without a key makes them again."""
        plain = PretrainedInstance(self.parent.network, self.origin, self.resolution)
        return plain.reconstruct(pictures)

    # Crops and small turns are searched for; other sizes of encoded pictures are not.
    searches = True

    def decode(
        self, images: Images, *, batch_size: int = 32, search: bool = True, progress: bool = True
    ) -> Reading:
        """Read the fingerprint of images one after another.

        Those of an encoder are read in their own size, of large ones the middle. Whether they are
        crops or were turned is looked for first (see grid.py and turned.py), which takes a third of
        the time. Others are brought to the size of the generator's; where they lie is found with
        their latents (laid.py).

        Args:
            images: one image or any number of them: paths, PIL images, 8-bit arrays and tensors
                [3, H, W] or [H, W, 3] or batches of them; or floats in [-1, 1].
            batch_size: as of other releases; it changes nothing here.
            search: look for crops and turns; else all are read as they are.
            progress: show a bar on standard error.

        Returns:
            Reading of b images; logits are the signs that were found.

        Raises:
            UserError: no image, one that cannot be read, or floats of another range; or as
                :attr:`inverter`.
        """
        inverter = self.inverter
        pictures = given.Pictures(images, inverter.side)
        steps, hidden = len(pictures) * inverter.ticks, not progress
        with tqdm(total=steps, unit="step", desc="decode", leave=False, disable=hidden) as bar:
            signs = []
            for picture in pictures.batches(1):
                picture = picture.to(self.device)
                if isinstance(inverter, DrawnInverter):
                    signs.append(inverter.signs(picture, bar.update, search=search))
                    continue
                place, degrees = inverter.search(picture) if search else ((0, 0), 0.0)
                signs.append(inverter.signs(picture, bar.update, place=place, degrees=degrees))
        logits = torch.cat(signs).double().cpu().numpy()
        return Reading(logits=logits, model_digest=self.digest)


def save_pretrained(
    path: str | Path,
    sizes: ReaderSizes | InversionSizes,
    config: TrainConfig,
    parent: Parent,
    decoder: Decoder | None,
    training: dict[str, Any],
) -> None:
    """Write a release file: both networks, and where the generator comes from. Atomic.

    Weights are kept in half precision, as those of every release.

    Args:
        decoder: None for one that reads by inversion.
    """
    networks = nn.ModuleDict({"keyed": parent.keyed})
    if decoder is not None:
        networks["decoder"] = decoder
    pairs = zip(parent.names, parent.layers(), strict=True)
    deltas = [name for name, (keyed, _) in pairs if keyed.changes_weights]
    origin = {
        "generator": config.generator,
        "inputs": known_inputs(config.inputs),
        "weights_digest": digest_of(weights_path(str(config.generator["weights"]))),
        "modulation": {
            "layers": parent.names,
            "deltas": deltas,
            "key_gain": config.modulation.key_gain,
            "delta_gain": config.modulation.delta_gain,
            "method": parent.method,
            "range": list(config.modulation.range),
            "factored": config.modulation.reader == "inversion",
        },
    }
    shapes = {n: list(t.shape) for n, t in parent.keyed.state_dict().items()}
    header = {"model": asdict(sizes), "training": training, "origin": origin, "keyed": shapes}
    save_tensors(path, KIND, networks.state_dict(), header, half=True)


HOW = ("layers", "deltas", "key_gain", "delta_gain", "method", "range")  # of the modulation


def _shapes(header: Any, path: Path) -> dict[str, list[int]]:
    """Shapes of what a key changes, as a header says them, which has to be whole."""
    found = header.get("keyed")
    whole = isinstance(found, dict) and all(
        isinstance(shape, list) and all(type(side) is int and side > 0 for side in shape)
        for shape in found.values()
    )
    origin = header.get("origin")
    parts = ("generator", "inputs", "modulation")
    known = isinstance(origin, dict) and all(isinstance(origin.get(n), dict) for n in parts)
    if not (
        whole
        and known
        and "weights_digest" in origin
        and all(n in origin["modulation"] for n in HOW)
    ):
        raise UserError(f"{path} is not a whole release: its header is damaged")
    return dict(found)


def read_pretrained(path: Path) -> PretrainedModel:
    """Read a file of :func:`save_pretrained`. Nothing that it names is imported yet.

    Raises:
        UserError: missing, damaged, or of another kind.
    """
    header = load_header(path, KIND)
    sizes = header.get("model") if isinstance(header, dict) else None
    inverts = isinstance(sizes, dict) and "steps" in sizes
    schema: type[ReaderSizes | InversionSizes] = InversionSizes if inverts else ReaderSizes
    config, training = load_release_header(path, KIND, schema)
    decoder, shapes = None, {KEYED + n: tuple(shape) for n, shape in _shapes(header, path).items()}
    if isinstance(config, ReaderSizes):
        with torch.device("meta"):
            decoder = Decoder(config)
        shapes |= {DECODER + n: tuple(t.shape) for n, t in decoder.state_dict().items()}
    weights = load_weights(path, shapes)
    if decoder is not None:
        decoder.load_state_dict(_part(weights, DECODER), assign=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    kind = InvertingModel if inverts else PretrainedModel
    return kind(
        config, decoder, _part(weights, KEYED), header["origin"], training=training, digest=digest
    )


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin so, by what follows."""
    return {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
