"""Results as files: JSON for machines, and the page and plots that are made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalefp.errors import UserError
from scalefp.experiment.figures import save_figure
from scalefp.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Plots = Mapping[str, "Figure"]  # by the names of their files


def load_results(path: Path) -> dict[str, Any]:
    """The results of earlier runs, or none.

    Raises:
        UserError: the file holds something else.
    """
    if not path.is_file():
        return {}
    try:
        results = json.loads(path.read_bytes())
    except ValueError:
        results = None
    if not isinstance(results, dict):
        raise UserError(f"{path} holds no results of a run: remove it, or choose another --out")
    return results


def make_folder(folder: Path) -> None:
    """Make a folder for results, if it is missing.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"cannot write into {folder} ({why}): choose another place") from error


def _write(path: Path, text: str) -> None:
    make_folder(path.parent)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, results: Mapping[str, Any]) -> None:
    """Write results as JSON, whole; the folder is made.

    Raises:
        UserError: they cannot be written.
        ValueError: a figure is not a finite number.
    """
    _write(path, json.dumps(results, indent=1, allow_nan=False) + "\n")


def write_page(path: Path, page: str, plots: Plots | None = None) -> None:
    """Write a page and the plots that lie beside it, each file whole; the folder is made.

    Raises:
        UserError: they cannot be written.
    """
    _write(path, page)
    for name, figure in (plots or {}).items():
        save_figure(figure, path.parent / name)
