"""Releases and instances by name: loading one, whatever kind it is.

A *release of a generator* (:class:`scalefp.Model`, or ``PretrainedModel`` where others trained the
generator) makes and reads fingerprinted images, a *marker* (:class:`scalefp.Marker`) marks images
and reads the marks. All read, so registries, attribution and the service take any.
"""

import warnings
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from scalefp.artificial.marker import Marker, read_marker
from scalefp.errors import UserError
from scalefp.pretrained.instance import PretrainedInstance, load_pretrained_instance
from scalefp.pretrained.release import KIND as PRETRAINED
from scalefp.pretrained.release import InvertingModel, PretrainedModel, read_pretrained
from scalefp.release.container import PRETRAINED_INSTANCE, kind_of
from scalefp.release.instance import Instance
from scalefp.release.instance import load_instance as load_own_instance
from scalefp.release.model import Model, read_release
from scalefp.release.readable import UnreadableRelease

BUNDLED = Path(str(files("scalefp") / "assets"))
MARKER = "marker"  # the kind written in a marker's file
R = TypeVar("R", Model, PretrainedModel, Marker, Model | PretrainedModel | Marker)


def bundled_names() -> list[str]:
    """The releases that come with the package."""
    return sorted(file.stem for file in BUNDLED.glob("*.safetensors"))


def _locate(name_or_path: str | Path) -> Path:
    """The file of a bundled name or of a path."""
    bundled = bundled_names()
    if str(name_or_path) in bundled:
        return BUNDLED / f"{name_or_path}.safetensors"
    path = Path(name_or_path)
    if not path.is_file():
        raise UserError(
            f"There is no release {str(name_or_path)!r}: give the path of a release file "
            f"or a bundled name ({', '.join(bundled) or 'none is bundled'})."
        )
    return path


def _warned(release: R, path: Path) -> R:
    """The release, with a warning if its images will be attributed to nobody."""
    if release.unreadable is not None:
        warnings.warn(f"{path}: {release.unreadable}", UnreadableRelease, stacklevel=3)
    return release


def load(name_or_path: str | Path) -> Model | PretrainedModel | Marker:
    """Load a release of any kind: a bundled name (``emoji``) or the path of a release file.

    Raises:
        UserError: neither, or the file is damaged or no release.
    """
    path = _locate(name_or_path)
    readers: dict[str, Callable[[Path], Model | PretrainedModel | Marker]] = {
        MARKER: read_marker,
        PRETRAINED: read_pretrained,
    }
    return _warned(readers.get(kind_of(path) or "", read_release)(path), path)


def load_serving(name_or_path: str | Path) -> Model | PretrainedModel | Marker:
    """As :func:`load`, for what cannot let people wait for each picture.

    Raises:
        UserError: as :func:`load`, or it reads by inversion.
    """
    release = load(name_or_path)
    if isinstance(release, InvertingModel):
        raise UserError(
            f"{name_or_path} reads by inversion, which takes half a minute a picture and more: "
            "use `scalefp attribute` or `scalefp scan`"
        )
    return release


def load_model(name_or_path: str | Path) -> Model:
    """As :func:`load`, for what needs a generator.

    Raises:
        UserError: as :func:`load`, or it is a marker.
    """
    path = _locate(name_or_path)
    if kind_of(path) == MARKER:
        raise UserError(
            f"{name_or_path} is a marker, which marks images and generates none: "
            "give the release of a generator, as `scalefp train` writes it"
        )
    if kind_of(path) == PRETRAINED:
        raise UserError(
            f"{name_or_path} is the release of a generator that others trained: this is for "
            "generators of this project"
        )
    return _warned(read_release(path), path)


def load_generating(name_or_path: str | Path) -> Model | PretrainedModel:
    """As :func:`load`, for what makes instances, of whatever generator.

    Raises:
        UserError: as :func:`load`, or it is a marker.
    """
    if kind_of(_locate(name_or_path)) == PRETRAINED:
        return _warned(read_pretrained(_locate(name_or_path)), _locate(name_or_path))
    return load_model(name_or_path)


def load_instance(path: str | Path) -> Instance | PretrainedInstance:
    """A recipient's network, of this project's generator or of somebody else's.

    Raises:
        UserError: missing, truncated, foreign, or not an instance.
    """
    return (
        load_pretrained_instance(path)
        if kind_of(path) == PRETRAINED_INSTANCE
        else load_own_instance(path)
    )


def load_marker(name_or_path: str | Path) -> Marker:
    """As :func:`load`, for what marks images or reads the marks.

    Raises:
        UserError: as :func:`load`, or it is the release of a generator.
    """
    path = _locate(name_or_path)
    if kind_of(path) in ("release", PRETRAINED):
        raise UserError(
            f"{name_or_path} is the release of a generator, which marks no images: "
            "give a marker, as `scalefp artificial train` writes it"
        )
    return _warned(read_marker(path), path)
