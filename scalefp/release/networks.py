"""The networks of a training as files, one each: to go on from elsewhere, or to make a release of.

They take a tenth of what the training's state takes, which also holds the optimizers and every
network twice. Each is a safetensors file in half precision whose metadata has two entries of JSON:
``model``, the sizes, and ``images``, how many the training had seen; a third, ``progress``, says
where the training stood and may be missing.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save as serialize
from torch import Tensor

from scalefp.config import ModelConfig
from scalefp.errors import UserError
from scalefp.files import atomic_path, check_regular
from scalefp.release.container import halved, metadata_of
from scalefp.release.header import read_sizes

NETWORKS = ("generator", "decoder", "discriminator")


@dataclasses.dataclass
class Origin:
    """What the files of some networks say beside the weights."""

    config: ModelConfig
    images: int  # that their training had seen
    progress: Any  # where the training stood, for JSON; None if unknown


def network_file(folder: Path, name: str) -> Path:
    """The file of one network."""
    return folder / f"{name}.safetensors"


def holds_networks(folder: Path) -> bool:
    """Whether a folder has a file for each network."""
    return all(network_file(folder, name).is_file() for name in NETWORKS)


def save_networks(
    folder: Path, networks: Mapping[str, Mapping[str, Tensor]], origin: Origin
) -> list[Path]:
    """Write the weights of networks by name, a file each, as secret as a release.

    Raises:
        UserError: the folder cannot be written to.
    """
    about = {
        "model": json.dumps(dataclasses.asdict(origin.config), sort_keys=True),
        "images": json.dumps(origin.images),
        "progress": json.dumps(origin.progress, sort_keys=True),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write in {folder} ({error.strerror}): choose another place"
        ) from error
    paths = []
    for name, weights in networks.items():
        tensors = {
            path: halved(weight.detach()).cpu().contiguous() for path, weight in weights.items()
        }
        with atomic_path(network_file(folder, name), secret=True) as temporary:
            temporary.write_bytes(serialize(tensors, about))
        paths.append(network_file(folder, name))
    return paths


def read_origin(path: Path) -> Origin:
    """What the file of a network says beside the weights.

    Raises:
        UserError: missing, damaged, or no such file.
    """
    check_regular(path, "network")
    try:
        about = metadata_of(path)
        sizes, images = json.loads(about["model"]), json.loads(about["images"])
        progress = json.loads(about.get("progress", "null"))
    except (SafetensorError, OSError, ValueError, RecursionError, KeyError) as error:
        raise UserError(
            f"{path} is not a whole network of a training: its metadata must say the sizes (model) "
            "and the number of images, as `scalefp release networks` writes them"
        ) from error
    if not isinstance(images, int) or images < 0:
        raise UserError(f"{path} is damaged: it says that its training saw {images!r:.40} images")
    return Origin(read_sizes(sizes, ModelConfig, path), images, progress)
