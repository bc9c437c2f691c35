"""Files: the training state (exact resume) and the safetensors container of releases, instances.

Both are there whole or not at all, and neither can run code when it is read.
"""

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from scalefp.errors import UserError
from scalefp.files import atomic_path, check_regular, open_regular

FORMAT_VERSION = 1
# The kinds of files that are not secret: what recipients get, of our own generators and of others.
INSTANCE, PRETRAINED_INSTANCE = "instance", "pretrained instance"
METADATA = "scalefp"  # the entry of a safetensors file's metadata that is ours
MAX_HEADER_BYTES = 4 * 2**20  # a hundred times what any release needs
WEIGHT_TYPES = ("F32", "F16", "BF16")  # as safetensors names them


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
        raise UserError(f"{path} is not a training checkpoint (state.pt) of scalefp.")
    return state


@contextmanager
def open_tensors(path: str | Path) -> Iterator[Any]:
    """``safe_open`` for a file of any name; by itself it takes only names that are text."""
    with ExitStack() as stack:
        try:
            os.fspath(path).encode()
        except UnicodeEncodeError:
            link = Path(stack.enter_context(TemporaryDirectory()), "link")
            link.symlink_to(os.path.abspath(path))
            path = link
        yield stack.enter_context(safe_open(path, framework="pt"))


def halved(tensor: Tensor) -> Tensor:
    """A tensor in half precision, or as it is if it holds what half precision cannot (65,504 up).

    Half precision has eleven significant bits: weights of networks change by a 2,000th at most.
    Counts, as norms keep them, are no weights and stay as they are.
    """
    if not tensor.is_floating_point():
        return tensor
    half = tensor.to(torch.float16)
    return half if torch.isfinite(half).all() else tensor


def save_tensors(
    path: str | Path, kind: str, tensors: dict[str, Tensor], header: Any, *, half: bool = False
) -> None:
    """Write a safetensors file of one kind ("release", "instance", ...) with a JSON header.

    The same content gives the same bytes, hence the same digest. All but instances, which hold
    no key, is secret: only its owner may read the file.

    Args:
        half: in half the size, see :func:`halved`; what reads the file computes in float32 again.
    """
    # In one entry, because safetensors does not keep the order of several.
    about = {"kind": kind, "version": FORMAT_VERSION, "header": header}
    whole = {
        name: (halved(tensor) if half else tensor).detach().cpu().contiguous()
        for name, tensor in tensors.items()
    }
    content = serialize(whole, {METADATA: json.dumps(about, sort_keys=True)})
    with atomic_path(path, secret=kind not in (INSTANCE, PRETRAINED_INSTANCE)) as temporary:
        temporary.write_bytes(content)


def metadata_of(path: Path) -> dict[str, str]:
    """The entries of a safetensors file beside the tensors.

    Raises:
        SafetensorError, OSError, ValueError: damaged, or of another format.
    """
    with open_regular(path) as file:
        if int.from_bytes(file.read(8), "little") > MAX_HEADER_BYTES:
            raise ValueError("a header of that size")
    with open_tensors(path) as opened:
        return dict(opened.metadata() or {})


def _about(path: Path) -> dict[str, Any] | None:
    """What :func:`save_tensors` wrote beside the tensors; None in a file of another program.

    Raises:
        SafetensorError, OSError, ValueError, RecursionError: damaged, or of another format.
    """
    text = metadata_of(path).get(METADATA)
    if text is None:
        return None
    about = json.loads(text, parse_constant=_refuse_constant)
    if not isinstance(about, dict):
        raise ValueError("a header of another type")
    return about


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


_DAMAGE = (SafetensorError, OSError, ValueError, RecursionError)


def kind_of(path: str | Path) -> str | None:
    """The kind of a file of :func:`save_tensors`; None if it is no such file, or damaged."""
    try:
        kind = (_about(Path(path)) or {}).get("kind")
    except _DAMAGE:
        return None
    return kind if isinstance(kind, str) else None


def load_header(path: str | Path, kind: str) -> Any:
    """The header of a file of :func:`save_tensors`.

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
        about = _about(path)
    except _DAMAGE as error:
        raise UserError(f"{path} is not a whole {kind} file (truncated or foreign)") from error
    if about is None or not isinstance(about.get("kind"), str):
        raise UserError(f"{path} is not {a_kind} of scalefp but a foreign safetensors file")
    if about["kind"] != kind:
        raise UserError(
            f"{path} is not {a_kind} of scalefp but a file of kind {about['kind'][:40]!r}"
        )
    if about.get("version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {str(about.get('version'))[:40]}, and this scalefp reads "
            f"version {FORMAT_VERSION}"
        )
    return about.get("header")


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], Any]:
    """Read a file of :func:`save_tensors`: its tensors as they are, and its header.

    Raises:
        UserError: as :func:`load_header`.
    """
    header = load_header(path, kind)
    with open_tensors(path) as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, header  # noqa: SIM118


def load_weights(path: str | Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """The tensors of a file that :func:`load_header` took, to compute with: float32 and finite.

    Names, shapes and types are held against the file's table of contents, before any is read.

    Raises:
        UserError: other names or shapes, weights that are no floating point numbers of 16 or 32
            bits, or that are not finite.
    """
    with open_tensors(path) as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        check_strictly(shapes, {name: one.get_shape() for name, one in slices.items()}, path)
        for name, one in slices.items():
            if one.get_dtype() not in WEIGHT_TYPES:
                raise UserError(
                    f"{path} holds weights of type {one.get_dtype()}, first {name!r}: convert them "
                    f"to one of {', '.join(WEIGHT_TYPES)}"
                )
        # Copies, because what is read may be a view of the file.
        weights = {name: opened.get_tensor(name).to(torch.float32, copy=True) for name in slices}
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise UserError(
                f"{path} holds weights that are not finite, first in {name!r}: it is damaged, "
                "or its training failed"
            )
    return weights


def check_strictly(
    expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]], source: str | Path
) -> None:
    """Raise :class:`UserError` unless the names and shapes of tensors are as expected.

    The message names what is missing, unexpected or of another shape.
    """
    reshaped = sorted(
        name
        for name in expected.keys() & found.keys()
        if tuple(expected[name]) != tuple(found[name])
    )
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    for fault, names in (("lacks", missing), ("holds unknown", unexpected), ("misfits", reshaped)):
        if names:
            raise UserError(f"{source} {fault} {len(names)} tensors, first {names[0][:80]!r}")


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, Sequence[int]]:
    """Name and shape of each tensor."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """PretrainedInstance ``tensors`` into ``module``; every name and shape must agree.

    Raises:
        UserError: as :func:`check_strictly`; nothing is copied then.
    """
    check_strictly(shapes_of(module.state_dict()), shapes_of(tensors), source)
    module.load_state_dict(dict(tensors))
