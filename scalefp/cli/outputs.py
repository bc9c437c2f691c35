"""Where commands write: one rule for every ``--out``.

What exists is written over only with ``--force``, and only if it is of the very kind that is
written; a file of another kind is never touched, whichever way it was named.
"""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scalefp.cli.arguments import new_name
from scalefp.errors import UserError
from scalefp.files import check_regular

PNG = b"\x89PNG\r\n\x1a\n"
EXPORT_FIELD = "model_digest"  # in the first line of every export of a registry
Kind = Callable[[Path], bool]  # whether a file is of that kind


def add_out(parser: Any, metavar: str, text: str) -> None:
    """``--out``, and ``--force``."""
    parser.add_argument("--out", required=True, type=new_name, metavar=metavar, help=text)
    parser.add_argument("--force", action="store_true", help="overwrite what the same command made")


def check_out(out: str | Path, what: str, is_one: Kind, *, force: bool) -> Path:
    """The path of a file to be written.

    Args:
        what: the file's kind in words, with its article.
        is_one: tells that kind.

    Raises:
        UserError: something of another kind has that name; or one of its own kind, without
            ``force``.
    """
    path = Path(out)
    if path.is_dir():
        raise UserError(f"--out {out} is a folder: name a file in it")
    try:
        if not path.exists():
            return path
        check_regular(path, "new")
        own = is_one(path)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}): choose another place") from error
    if not own:
        raise UserError(
            f"{out} exists and is not {what}: it is not overwritten, choose another --out"
        )
    if not force:
        raise UserError(f"{out} exists already: choose another --out, or overwrite it by --force")
    return path


def _begins(path: Path, bytes_wanted: int) -> bytes:
    with path.open("rb") as file:
        return file.read(bytes_wanted)


def is_instance(path: Path) -> bool:
    from scalefp.release.container import INSTANCE, PRETRAINED_INSTANCE, kind_of

    return kind_of(path) in (INSTANCE, PRETRAINED_INSTANCE)


def is_release(path: Path) -> bool:
    from scalefp.release.container import kind_of

    return kind_of(path) == "release"


def is_network(path: Path) -> bool:
    from scalefp.release.networks import read_origin

    try:
        read_origin(path)
    except UserError:
        return False
    return True


def is_onnx(path: Path) -> bool:
    """An ONNX file by torch: its version, then its producer."""
    head = _begins(path, 16)
    return head.startswith(b"\x08") and b"\x12\x07pytorch" in head


def _zip_members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def is_pt2(path: Path) -> bool:
    return any(name.split("/")[-1] == "archive_format" for name in _zip_members(path))


def is_png(path: Path) -> bool:
    return _begins(path, len(PNG)) == PNG


def is_registry_export(path: Path) -> bool:
    """JSON Lines or CSV, by its first line; an empty registry has an empty file."""
    first = _begins(path, 8192).partition(b"\n")[0]
    return not first or EXPORT_FIELD.encode() in first


def is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


RELEASE: tuple[str, Kind] = ("a release of a generator", is_release)
NETWORK: tuple[str, Kind] = ("a network of a training", is_network)
INSTANCES: dict[str, tuple[str, Kind]] = {
    "safetensors": ("an instance file", is_instance),
    "onnx": ("an ONNX file of an instance", is_onnx),
    "pt2": ("a pt2 file of an instance", is_pt2),
}
