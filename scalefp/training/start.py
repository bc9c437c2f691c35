"""Networks of one training handed to another, or made a release of; see release/networks.py."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from scalefp.config import ModelConfig, TrainConfig, flat_options
from scalefp.errors import UserError
from scalefp.networks.decoder import Decoder
from scalefp.networks.generator import Generator
from scalefp.release.container import load_state, load_weights, shapes_of
from scalefp.release.networks import Origin, network_file, read_origin, save_networks
from scalefp.training.schedule import Progress
from scalefp.training.state import TrainingState, check_binding


def read_progress(origin: Origin, path: Path) -> Progress | None:
    """Where the training of some networks stood; None if their files do not say it.

    Raises:
        UserError: what they say is no such thing.
    """
    if origin.progress is None:
        return None
    try:
        return Progress(**origin.progress)
    except TypeError as error:
        raise UserError(f"{path} does not say where its training stood: it is damaged") from error


def fill(folder: Path, networks: Mapping[str, nn.Module]) -> None:
    """Copy the weights of a folder's files into networks, by name.

    Raises:
        UserError: a file is missing, damaged, or of other shapes.
    """
    for name, network in networks.items():
        weights = load_weights(network_file(folder, name), shapes_of(network.state_dict()))
        network.load_state_dict(weights)


def start_from_networks(folder: Path, state: TrainingState, config: TrainConfig) -> None:
    """Go on from the networks of another training, whose optimizers are left behind.

    Where their files do not say how far it was, all key bits count as readable from now on.

    Raises:
        UserError: files that are damaged, or of a model with other sizes.
    """
    networks = {
        "generator": state.generator,
        "decoder": state.decoder,
        "discriminator": state.discriminator,
    }
    for name in networks:
        path = network_file(folder, name)
        origin = read_origin(path)
        before = {f"model.{size}": value for size, value in asdict(origin.config).items()}
        check_binding(path, before, flat_options(config), binding="model.")
    fill(folder, networks)
    for average, network in state.averages():
        average.load_state_dict(network.state_dict())
    progress = read_progress(origin, path) or Progress(
        images=origin.images,
        n_active=config.model.n_bits,
        readable_at=origin.images,
        consistency_weight=config.loss.consistency,
    )
    progress.precision = None  # as this training computes
    state.progress = progress


def write_networks(state_file: Path, folder: Path) -> list[Path]:
    """Write the networks of a training's state: those that are averaged as their averages.

    Raises:
        UserError: no state of such a training, or the folder cannot be written to.
    """
    saved = load_state(state_file)
    names = {
        "generator": "average_generator",
        "decoder": "average_decoder",
        "discriminator": "discriminator",
    }
    try:
        networks = {name: saved[part] for name, part in names.items()}
        sizes = {
            name.removeprefix("model."): value
            for name, value in saved["config"].items()
            if name.startswith("model.")
        }
        progress = dict(saved["progress"])
        progress.pop("unread", None)  # means of a few steps, on the device
        origin = Origin(ModelConfig(**sizes), saved["images"], progress)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{state_file} is no state of a generator's training, or of another version of scalefp"
        ) from error
    return save_networks(folder, networks, origin)


def read_parts(folder: Path) -> tuple[Generator, Decoder, dict[str, Any]]:
    """What a release is made of, from a folder of networks: both, and a note on the training.

    Raises:
        UserError: files that are damaged or of different sizes.
    """
    origin, other = (read_origin(network_file(folder, name)) for name in ("generator", "decoder"))
    if origin.config != other.config:
        raise UserError(f"generator and decoder in {folder} are of trainings with other sizes")
    generator, decoder = Generator(origin.config), Decoder(origin.config)
    fill(folder, {"generator": generator, "decoder": decoder})
    note: dict[str, Any] = {"images": origin.images}
    if (progress := read_progress(origin, folder)) is not None:
        note["reached"] = {
            "active_bits": progress.n_active,
            "bit_accuracy": progress.bit_accuracy,
            "evidence": progress.evidence,
        }
    return generator, decoder, note
