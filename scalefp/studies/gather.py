"""The jobs that lie in a folder: what each was asked for, how it stands, and what it reached."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from scalefp.errors import UserError
from scalefp.studies.results import read_results

NOTE, FAILURES, LOCK = "error.txt", "failures.txt", ".sweep.lock"  # what sweeps leave
STUDY = "study.json"
# Of a job, as Hydra keeps them.
OPTIONS, OVERRIDES = Path(".hydra", "config.yaml"), Path(".hydra", "overrides.yaml")
FINISHED, FAILED, UNFINISHED = "finished", "failed", "unfinished"

# What an evaluation reached -> where it stands in its results.
EVALUATED: dict[str, tuple[str | int, ...]] = {
    "bit_accuracy": ("reading", 0, "mean"),
    "psnr": ("hiding", "same_latent_two_keys", "psnr"),
    "ssim": ("hiding", "same_latent_two_keys", "ssim"),
    "feature_distance": ("features", "distance"),
}
EVALUATED_RELEASE = ("model", "digest")


@dataclass(frozen=True)
class StudyJob:
    """One job of a sweep.

    Attributes:
        name: of its folder, below the one that was looked through; "." for that itself.
        state: ``finished``, ``failed`` or ``unfinished``, which it is while it runs, too.
        options: by dotted name.
        overrides: what was typed, or varied by the sweep: the text behind each name.
        figures: what it reached, by name; empty unless it is finished.
        version: of the code that made the figures; "" if unknown.
        environment: when, how long (``seconds``) and on which ``hardware`` they were made.
        release: digest of the release that was trained or measured; "" if unknown.
        error: the first line of why it failed.
    """

    name: str
    state: str
    options: Mapping[str, Any]
    overrides: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    version: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    release: str = ""
    error: str = ""


@dataclass(frozen=True)
class StudyAbout:
    """What a study file says of itself; nothing for any other sweep."""

    question: str = ""
    metrics: tuple[str, ...] = ()


def flat(options: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Options by dotted name; lists stay whole."""
    for name, value in options.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _yaml(path: Path) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read: remove that job's folder and run it again"
        ) from error


def _options(folder: Path) -> dict[str, Any]:
    options = _yaml(folder / OPTIONS)
    return dict(flat(options)) if isinstance(options, dict) else {}


def _overrides(folder: Path) -> dict[str, str]:
    texts = _yaml(folder / OVERRIDES)
    pairs = [str(text).lstrip("+~").partition("=") for text in texts]
    return {name: value for name, _, value in pairs}


def _figures(results: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a training or of an evaluation."""
    if isinstance(results.get("figures"), dict):
        named = results["figures"]
    else:
        named = {name: _at(results, path) for name, path in EVALUATED.items()}
    return {name: float(x) for name, x in named.items() if isinstance(x, int | float)}


def _at(results: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        try:
            results = results[step]
        except (KeyError, IndexError, TypeError):
            return None
    return results


def read_job(root: Path, folder: Path) -> StudyJob:
    """The job in a folder.

    Raises:
        UserError: its options cannot be read.
    """
    name = str(folder.relative_to(root))
    asked = _options(folder), _overrides(folder)
    note = folder / NOTE
    if note.is_file():
        first = (note.read_text(encoding="utf-8", errors="replace").splitlines() or [""])[0]
        return StudyJob(name, FAILED, *asked, error=first)
    results = read_results(folder)
    if results is None:
        return StudyJob(name, UNFINISHED, *asked)
    version = str(results.get("version", ""))
    environment = results.get("environment")
    made = environment if isinstance(environment, dict) else {}
    release = _at(results, EVALUATED_RELEASE) or results.get("release")
    return StudyJob(name, FINISHED, *asked, _figures(results), version, made, str(release or ""))


def gather(root: Path) -> list[StudyJob]:
    """All jobs in a folder, at any depth, by name.

    Raises:
        UserError: there is no such folder, it holds no job, or a job's options cannot be read.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: give that of a sweep, as runs/NAME")
    folders = sorted(path.parent.parent for path in root.rglob(str(OPTIONS)))
    if not folders:
        raise UserError(
            f"{root} holds no job of a sweep: give the folder that `scalefp train -m` or "
            "`scalefp evaluate -m` wrote into"
        )
    return [read_job(root, folder) for folder in folders]


def about(root: Path) -> StudyAbout:
    """What the study that was run in a folder says of itself."""
    try:
        note = json.loads((root / STUDY).read_bytes())
        return StudyAbout(str(note["question"]), tuple(map(str, note["metrics"])))
    except (OSError, ValueError, KeyError, TypeError):
        return StudyAbout()


def at_work(root: Path) -> bool:
    """Whether a sweep runs in a folder now."""
    try:
        with (root / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
