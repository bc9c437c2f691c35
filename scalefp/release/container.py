"""Files: the training state (exact resume) and the safetensors container of releases, instances.

Both are there whole or not at all, and neither can run code when it is read.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from scalefp.errors import UserError
from scalefp.files import atomic_path, check_regular, open_regular

FORMAT_VERSION = 1
INSTANCE = "instance"  # the one kind of file that is not secret
METADATA = "scalefp"  # the entry of a safetensors file's metadata that is ours


class Checkable(Protocol):
    """A dataclass of the sizes that a release's networks are built from."""

    def check(self) -> None:
        """Raise :class:`UserError` unless they can be built."""


S = TypeVar("S", bound=Checkable)


def save_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a training state: tensors, numbers, strings and containers of them. Secret."""
    content = io.BytesIO()  # torch words a full disk its own way
    torch.save(dict(state), content)
    with atomic_path(path, secret=True) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_state(path: str | Path) -> dict[str, Any]:
    """Read a training state without running any code from it.

    Raises:
        UserError: the file is not a whole training state.
    """
    check_regular(path, "training checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for one cause: not such a file
        raise UserError(
            f"{path} is not a readable training checkpoint (truncated or foreign file)."
        ) from error
    if not isinstance(state, dict) or "images" not in state:
        raise UserError(f"{path} is not a training checkpoint of scalefp.")
    return state


def save_tensors(path: str | Path, kind: str, tensors: dict[str, Tensor], header: Any) -> None:
    """Write a safetensors file of one kind ("release", "instance", ...) with a JSON header.

    The same content gives the same bytes, hence the same digest. All but an instance, which holds
    no key, is secret: only its owner may read the file.
    """
    # In one entry, because safetensors does not keep the order of several.
    about = {"kind": kind, "version": FORMAT_VERSION, "header": header}
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = serialize(whole, {METADATA: json.dumps(about, sort_keys=True)})
    with atomic_path(path, secret=kind != INSTANCE) as temporary:
        temporary.write_bytes(content)


def kind_of(path: str | Path) -> str | None:
    """The kind of a file of :func:`save_tensors`; None if it is no such file, or damaged."""
    try:
        with safe_open(path, framework="pt") as opened:
            kind = json.loads((opened.metadata() or {}).get(METADATA, "{}")).get("kind")
    except (SafetensorError, OSError, ValueError, AttributeError):
        return None
    return kind if isinstance(kind, str) else None


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], Any]:
    """Read a file of :func:`save_tensors`: its tensors and header.

    Raises:
        UserError: missing, truncated, foreign, of another kind or of another version.
    """
    path = Path(path)
    a_kind = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    check_regular(path, kind)
    with open_regular(path) as file:
        if file.read(4) == b"PK\x03\x04":
            raise UserError(
                f"{path} is a zip or a training checkpoint, not {a_kind}: "
                "a training run writes its release to release.safetensors in its run folder"
            )
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        about = json.loads(metadata.get(METADATA, "{}"))
        found, version = about.get("kind"), about.get("version")
    except (SafetensorError, OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a whole {kind} file (truncated or foreign)") from error
    if found is None:
        raise UserError(f"{path} is not {a_kind} of scalefp but a foreign safetensors file")
    if found != kind:
        raise UserError(f"{path} is not {a_kind} of scalefp but a file of kind {found!r}")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}, and this scalefp reads version {FORMAT_VERSION}"
        )
    return tensors, about.get("header")


def load_release(
    path: str | Path, kind: str, sizes: type[S]
) -> tuple[dict[str, Tensor], S, dict[str, Any]]:
    """Read a file of :func:`save_tensors` whose header is ``{"model": sizes, "training": note}``.

    Returns:
        Tensors, sizes that can be built, and the note on the training.

    Raises:
        UserError: as :func:`load_tensors`, or a header of other content.
    """
    tensors, header = load_tensors(path, kind)
    try:
        config = sizes(**header["model"])
        config.check()
        training = header["training"]
    except (TypeError, KeyError) as error:
        raise UserError(f"{path} is not a whole {kind}: its header is damaged.") from error
    return tensors, config, training


def check_strictly(
    shapes: Mapping[str, Sequence[int]], tensors: Mapping[str, Tensor], source: str | Path
) -> None:
    """Raise :class:`UserError` unless ``tensors`` has exactly these names and shapes.

    The message names what is missing, unexpected or of another shape.
    """
    reshaped = sorted(
        name
        for name in shapes.keys() & tensors.keys()
        if tuple(shapes[name]) != tuple(tensors[name].shape)
    )
    missing = sorted(shapes.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - shapes.keys())
    for fault, names in (("lacks", missing), ("holds unknown", unexpected), ("misfits", reshaped)):
        if names:
            raise UserError(f"{source} {fault} {len(names)} tensors, first {names[0]!r}")


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy ``tensors`` into ``module``; every name and shape must agree.

    Raises:
        UserError: as :func:`check_strictly`; nothing is copied then.
    """
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    check_strictly(shapes, tensors, source)
    module.load_state_dict(dict(tensors))
