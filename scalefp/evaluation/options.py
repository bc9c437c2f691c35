"""Everything ``scalefp evaluate`` knows, and where its results go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalefp.errors import FolderTakenError, UserError
from scalefp.evaluation.method import Measured, as_measured, load_method
from scalefp.evaluation.run import PARTS, open_inputs
from scalefp.evaluation.samples import EvaluateConfig
from scalefp.loading import bundled_names, load_generating

# What Hydra, a lock and a failure leave in a folder before anything is measured.
BESIDE = {".hydra", "evaluate.log", ".lock", "error.txt"}


@dataclass
class EvaluateOptions:
    """Everything ``scalefp evaluate`` knows."""

    checkpoint: str = ""  # the release: a bundled name or the path of a release file
    # Instead of a release another method: `_target_`, the class, and its arguments. See method.py.
    method: dict[str, Any] = field(default_factory=dict)
    out: str | None = None  # folder of the results; null = evaluation/NAME; of a sweep: OUT/NAME
    show: str = "markdown"  # what goes to standard output: markdown or json
    threads: int = 1  # CPU threads
    # Of its own, since `data=` on the command line would choose from conf/data.
    measure: EvaluateConfig = field(default_factory=EvaluateConfig)

    def check_words(self) -> None:
        """Raise :class:`UserError` for options that cannot work, whatever files they name."""
        if not self.checkpoint and not self.method:
            raise UserError("say which release to evaluate: checkpoint=NAME or checkpoint=PATH.")
        if self.checkpoint and self.method:
            raise UserError("evaluate one thing: a release (checkpoint=) or another method.")
        if self.show not in ("markdown", "json"):
            raise UserError(f"show must be markdown or json, not {self.show!r}.")
        if self.threads < 1:
            raise UserError(f"threads must be at least 1, not {self.threads}.")
        self.measure.check("measure.")

    def check(self) -> None:
        """Raise :class:`UserError` for options that cannot work, the release included."""
        self.check_words()
        self.check_place(Path(results_folder(self.checkpoint, self.method, self.out)))
        open_inputs(self.measure)
        self.open()

    def check_place(self, folder: Path) -> None:
        """Raise :class:`UserError` if ``folder`` holds what no evaluation wrote.

        What was evaluated there before, whole or not, is replaced part by part.
        """
        try:
            names = {entry.name for entry in folder.iterdir()} - BESIDE
        except FileNotFoundError:
            return
        except OSError as error:
            why = error.strerror or error
            raise UserError(f"cannot write into {folder} ({why}): choose another out=") from error
        if names and not (folder / PARTS).is_dir():
            raise FolderTakenError(
                f"{folder} holds other files: choose an empty or a new folder as out="
            )

    def open(self) -> Measured:
        """What is to be measured."""
        if self.method:
            return load_method(self.method)
        return as_measured(load_generating(self.checkpoint))


def results_name(checkpoint: str, method: Mapping[str, Any]) -> str:
    """A folder's name for a release, its own: ``emoji``, ``first``, ``sweep/seed=1``.

    A run is named by its folder below runs/; any other file by its stem and a digest of where it
    lies, since files elsewhere may have the same name; another method by its class and a digest of
    all its options.
    """
    if not checkpoint and method:
        options = json.dumps({str(key): str(value) for key, value in method.items()})
        target = str(method.get("_target_", "")).rpartition(".")[2]
        return f"{target}-{hashlib.sha256(options.encode()).hexdigest()[:6]}"
    if checkpoint in bundled_names():
        return checkpoint
    path = Path(checkpoint).absolute()
    run, runs = path.parent, Path("runs").absolute()
    name = run.name if path.stem == "release" else path.stem
    if path.stem == "release" and runs in run.parents:
        name = str(run.relative_to(runs))
        if name not in bundled_names():
            return name
    return f"{name}-{hashlib.sha256(bytes(path)).hexdigest()[:6]}"


def results_folder(checkpoint: str, method: Mapping[str, Any], out: str | None) -> str:
    """The absolute folder of the results."""
    return str(Path(out or f"evaluation/{results_name(checkpoint, method)}").absolute())


def results_root(out: str | None) -> str:
    """The absolute folder of a sweep's results."""
    return str(Path(out or "evaluation").absolute())
