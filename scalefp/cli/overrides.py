"""Overrides as people type them: paths taken as they are, jobs of sweeps named by what differs."""

import hashlib
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

SAFE = re.compile(r"[\w.,=+~-]*", re.ASCII)  # needs no quotes in a shell, and is one folder
UNSAFE = re.compile(r"[^\w.=+~-]+", re.ASCII)
LONGEST = 100  # characters of a folder's name; file systems allow 255 bytes


def parsed(override: str) -> Override | None:
    """An override as Hydra reads it, None if it cannot."""
    try:
        return OverridesParser.create().parse_overrides([override])[0]
    except HydraException:
        return None


# Paths.


def quoted(text: str) -> str:
    """The text as a value that Hydra takes as it is (but for interpolations, ``${...}``)."""
    # Backslashes count as such only before a quote and at the end.
    text = re.sub(r"(\\*)'", r"\1\1\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"


def split_paths(text: str) -> list[str]:
    """The paths in a list with commas, which existing paths may hold themselves."""
    pieces = text.split(",")
    paths = []
    while pieces:
        joined = (",".join(pieces[:length]) for length in range(len(pieces), 1, -1))
        path = next((path for path in joined if Path(path).exists()), pieces[0])
        paths.append(path)
        pieces = pieces[path.count(",") + 1 :]
    return paths


def literal(override: str, *, multirun: bool) -> str:
    """Quote a value that Hydra could not read, as the paths of swept runs: ``runs/a/seed=1/...``.

    In a sweep commas separate values, unless such a path exists.
    """
    name, equals, value = override.partition("=")
    if not equals or value[:1] in ("", "'", '"', "[", "{"):
        return override
    found = parsed(override)
    if found is not None and not (found.is_sweep_override() and "/" in value and "(" not in value):
        return override
    paths = split_paths(value) if multirun else [value]
    return f"{name}={','.join(map(quoted, paths))}"


# Names of jobs.


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def unnamed(
    overrides: Sequence[str], never: Collection[str], grid: Collection[str] = ()
) -> list[str]:
    """Names of the overrides that do not name the jobs of a sweep.

    Its jobs are named by what is swept over. A sweep of one job is named by all that it sets, so
    that it can stand beside others, but for how and where it runs (``run.``).

    Args:
        never: options that name no job, like ``name``.
        grid: options that a file has the sweeper vary, as they are typed there (``+ablation``):
            swept over, be it one value.
    """
    found = [override for text in overrides if (override := parsed(text)) is not None]
    swept = {override.key_or_group for override in found if override.is_sweep_override()}
    swept = (swept | {name.lstrip("+~") for name in grid}) - {*never}
    fixed = {override.key_or_group for override in found} - swept
    if not swept:
        fixed = {key for key in fixed if key.startswith("run.")}
    return sorted({*never, *fixed})


def job_name(overrides: Sequence[str], excluded: Collection[str]) -> str:
    """A job's folder: ``model.n_bits=64,seed=1``; short, safe for shells, and its own.

    Of a path the last part stands; where anything is left out a digest of the whole follows.
    """
    parts = []
    for text in overrides:
        override = parsed(text)
        if override is None or override.key_or_group in excluded:
            continue
        value = override.value()
        shown = value.text if isinstance(value, QuotedString) else text.partition("=")[2]
        part = f"{text.partition('=')[0]}={shown}" if "=" in text else text
        if not SAFE.fullmatch(part) or "," in part:
            key, _, last = part.partition("=")
            short = f"{key}={Path(last).name}"
            part = f"{UNSAFE.sub('_', short).strip('_')}-{digest(part)}"
        parts.append(part)
    name = ",".join(sorted(parts))
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 7]}-{digest(name)}"
