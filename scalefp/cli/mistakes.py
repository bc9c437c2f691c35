"""What Hydra and OmegaConf say of a mistake, in one sentence without hints for programmers."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import MarkedYAMLError

from scalefp.errors import UserError

# What is not installed with Hydra: the choice, and what provides it.
PLUGINS = {
    "hydra/launcher/joblib": "scalefp[launchers]",
    "hydra/launcher/submitit_local": "scalefp[launchers]",
    "hydra/launcher/submitit_slurm": "scalefp[launchers]",
    "hydra/launcher/ray": "hydra-ray-launcher",
    "hydra/sweeper/optuna": "scalefp[sweepers]",
    "hydra/sweeper/nevergrad": "hydra-nevergrad-sweeper",
    "hydra/sweeper/ax": "hydra-ax-sweeper",
}
ADD = re.compile(r"To append to your default list use (\+\S+)")  # Hydra, of a group as study/


def first_line(error: BaseException) -> str:
    """The first line of a message, and the second where it announces one."""
    lines = [line.strip() for line in str(error).strip().split("\n")]
    return " ".join(lines[: 1 + lines[0].endswith(":")]).rstrip(".")


def no_option(name: str, known: Iterable[str]) -> str:
    """Says that an option does not exist, and which of those beside it may be meant."""
    prefix, dot, last = name.rpartition(".")
    near = get_close_matches(last, known, n=1)
    return f"there is no option {name}" + (
        f": did you mean {prefix}{dot}{near[0]}?" if near else ""
    )


def check_known(options: Any, prefix: str = "") -> None:
    """Raise UserError for what ``+name=value`` added to a dataclass that has no such field."""
    known = [field.name for field in fields(options)]
    for name, value in vars(options).items():
        if name not in known:
            raise UserError(no_option(prefix + name, known))
        if is_dataclass(value):
            check_known(value, f"{prefix}{name}.")


def missing_key(error: BaseException) -> str | None:
    """What to do about an option that does not exist, if that is what went wrong."""
    cause = error.__cause__
    if not isinstance(cause, OmegaConfBaseException) or "Could not override" not in str(error):
        return None
    parent, key = cause.parent_node, cause.key
    if not isinstance(parent, DictConfig) or key is None or key in parent:
        return None
    name = cause.full_key or key
    if OmegaConf.get_type(parent) is dict:
        return f"there is no {name} yet: write +{name}=... to add it"
    return no_option(name, map(str, parent))


def sentence(error: BaseException) -> str:
    """One sentence for anything that stops options from being composed."""
    if isinstance(error, OverrideParseException):
        return (
            f"the override {error.override!r} cannot be read: write name=value, and quote a value "
            "with special characters (name='\"a=b\"')"
        )
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}, is no YAML: {error.problem}"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has to be given: write {error.full_key}=..."
    if (missing := missing_key(error)) is not None:
        return missing
    cause = error.__cause__
    first = first_line(error)
    if (added := ADD.search(str(error))) is not None:
        return f"{first}: write {added[1]} to add it"
    if first.startswith("Ambiguous value"):
        return f"{first}: several values are a sweep, which needs -m; a list is name=[a,b]"
    if isinstance(error, MissingConfigException):
        if (package := PLUGINS.get(str(error.missing_cfg_file))) is not None:
            return f"{error.missing_cfg_file} is not installed: `pip install '{package}'`"
        if error.options:
            return f"{first}: choose one of {', '.join(error.options)}"
    further = first_line(cause) if cause is not None else ""
    if not first:
        return further or type(error).__name__
    return f"{first} ({further})" if further else first


@contextmanager
def explained(prog: str) -> Iterator[None]:
    """Within this, whatever stops options from being composed is a mistake in them.

    Raises:
        UserError: instead of anything but itself and the system's errors.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, MissingConfigException):
            raise
        hint = f"`{prog} --cfg job` shows every option"
        raise UserError(f"{sentence(error)}; {hint}") from error
