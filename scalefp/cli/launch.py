"""Hydra behind ``scalefp``'s own door: options composed and checked, then one job or a sweep.

Of Hydra itself only its front is left out, which reads ``sys.argv`` and ends the process.
"""

import contextlib
import copy
import logging
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import Container, DictConfig, OmegaConf, open_dict, read_write

from scalefp.cli.mistakes import check_known, explained
from scalefp.cli.output import MISTAKE, OK
from scalefp.cli.overrides import job_name, literal, quoted, unnamed
from scalefp.config import conf_dir
from scalefp.errors import FolderTakenError, UserError
from scalefp.experiment import make_folder
from scalefp.files import append_line, atomic_path, counted, held
from scalefp.studies.gather import FAILURES, LOCK, NOTE, about
from scalefp.studies.report import PAGE, make_report, write_report

log = logging.getLogger("scalefp")

OmegaConf.register_new_resolver("job_name", job_name, replace=True)


@dataclass(frozen=True)
class Application:
    """A command that Hydra composes the options of."""

    prog: str  # as its user calls it
    config_name: str  # conf/NAME.yaml
    job: Callable[[DictConfig], float]
    unnamed: Sequence[str]  # options that name no job of a sweep
    check: Callable[[Any], None]  # raises UserError for options that cannot work


class Job:
    """A job that leaves word of its failure in its folder, and in a sweep ends nothing else.

    The word is gone after a success. In a folder of other work none is left, nor taken away.

    Args:
        failures: a sweep's list of them; None for a job by itself, whose error goes on.
    """

    def __init__(self, job: Callable[[DictConfig], float], failures: Path | None) -> None:
        self.job, self.failures = job, failures

    def __call__(self, options: DictConfig) -> float:
        folder = Path(HydraConfig.get().runtime.output_dir)
        note = folder / NOTE
        try:
            figure = self.job(options)
            note.unlink(missing_ok=True)
            return figure
        except Exception as error:
            sentence = " ".join(str(error).split()) or type(error).__name__
            text = sentence + "\n"
            if not isinstance(error, UserError):
                sentence = f"{type(error).__name__}: {sentence}"
                text = f"{sentence}\n\n{traceback.format_exc()}"
            if not isinstance(error, FolderTakenError):
                with contextlib.suppress(UserError), atomic_path(note) as temporary:
                    temporary.write_text(text, encoding="utf-8")
            if self.failures is None:
                raise
            log.error(sentence)
            append_line(self.failures, f"{folder}: {sentence}")
            return math.nan  # a sweeper's worst


@contextlib.contextmanager
def opened(app: Application) -> Iterator[Hydra]:
    """Hydra with the tree conf/; one that a calling program has set up stays as it was."""
    with initialize_config_dir(
        version_base="1.3", config_dir=str(conf_dir()), job_name=app.config_name
    ):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield hydra


def own_folder(config_dir: str | None) -> list[str]:
    """The override that lets Hydra look into a folder of the user's own, too.

    Raises:
        UserError: there is none, or it has a file that would never be read, as one of the
            package's own has its name.
    """
    if config_dir is None:
        return []
    folder, shipped = Path(config_dir), conf_dir()
    if not folder.is_dir():
        raise UserError(f"--config-dir {config_dir} is no folder")
    for first in sorted(shipped.rglob("*.yaml")):
        second = folder / first.relative_to(shipped)
        if second.is_file() and second.read_bytes() != first.read_bytes():
            raise UserError(
                f"{second} would never be read, as scalefp has a "
                f"{first.relative_to(shipped).with_suffix('')} of its own: give it another name"
            )
    return [f"hydra.searchpath=[{quoted(f'file://{folder.absolute()}')}]"]


def task_options(config: DictConfig) -> Any:
    """The options of a composed configuration as the application's dataclass."""
    HydraConfig.instance().set_config(config)
    task = copy.deepcopy(config)
    with read_write(task), open_dict(task):
        del task["hydra"]
    options = OmegaConf.to_object(task)
    check_known(options)
    return options


def launch(
    app: Application, overrides: Sequence[str], *, multirun: bool, config_dir: str | None = None
) -> int:
    """Run one job or, with ``multirun``, a job for each combination of the values given.

    Returns:
        The exit code.

    Raises:
        UserError: options that cannot be composed or, for one job, cannot work; in a sweep such a
            job is a failed one.
    """
    texts = [*own_folder(config_dir), *(literal(text, multirun=multirun) for text in overrides)]
    try:
        with opened(app) as hydra:
            return (run_sweep if multirun else run_once)(app, hydra, texts)
    except SystemExit as stop:  # a training that was stopped by a signal
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))


def run_once(app: Application, hydra: Hydra, overrides: list[str]) -> int:
    with explained(app.prog):
        config = hydra.compose_config(app.config_name, overrides, run_mode=RunMode.RUN)
        if config.hydra.mode is RunMode.MULTIRUN:  # as an experiment file may ask for
            return run_sweep(app, hydra, overrides)
        options = task_options(config)
        callbacks = Callbacks(config)
    app.check(options)  # before Hydra writes anything
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    callbacks.on_run_start(config=config, config_name=app.config_name)
    with explained(app.prog):
        done = run_job(Job(app.job, None), config, "hydra.run.dir", None, context)
    callbacks.on_run_end(config=config, config_name=app.config_name, job_return=done)
    if done.status is JobStatus.FAILED:
        raise done._return_value  # its property would print besides
    return OK


def grid_of(config: DictConfig) -> dict[str, Any]:
    """What files have the sweeper vary, by name: values as they are typed."""
    return dict(OmegaConf.select(config, "hydra.sweeper.params") or {})


def sweep_overrides(app: Application, config: DictConfig, overrides: list[str]) -> list[str]:
    """The overrides and, unless it is among them, what does not name the sweep's jobs."""
    excluded = "hydra.job.config.override_dirname.exclude_keys"
    if any(text.lstrip("+").startswith(f"{excluded}=") for text in overrides):
        return overrides
    typed = [text for text in overrides if not text.startswith("hydra")]
    names = unnamed(typed, app.unnamed, grid_of(config))
    return [*overrides, f"{excluded}=[{','.join(map(quoted, names))}]"]


def run_sweep(app: Application, hydra: Hydra, overrides: list[str]) -> int:
    def compose(overrides: list[str], *, logs: bool = False) -> DictConfig:
        return hydra.compose_config(
            app.config_name, overrides, run_mode=RunMode.MULTIRUN, with_log_configuration=logs
        )

    with explained(app.prog):
        overrides = sweep_overrides(app, compose(overrides), overrides)
        config = compose(overrides, logs=True)
        folder = Path(config.hydra.sweep.dir).absolute()
        callbacks = Callbacks(config)
    make_folder(folder)
    place = "name=" if "name" in app.unnamed else "out="
    taken = f"another sweep is at work in {folder}: wait for its end, or choose another {place}"
    with held(folder / LOCK, taken):
        failures = folder / FAILURES
        failures.unlink(missing_ok=True)
        context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
        callbacks.on_multirun_start(config=config, config_name=app.config_name)
        with explained(app.prog):
            sweeper = Plugins.instance().instantiate_sweeper(
                hydra_context=context, task_function=Job(app.job, failures), config=config
            )
            sweeper.sweep(list(config.hydra.overrides.task))
    if about(folder).question:
        write_report(folder, make_report(folder), folder)
        print(f"report in {folder / PAGE}", file=sys.stderr)
    callbacks.on_multirun_end(config=config, config_name=app.config_name)
    if not failures.exists():
        return OK
    failed = failures.read_text(encoding="utf-8").splitlines()
    print(
        f"scalefp: {counted(len(failed), 'job')} of this sweep failed; when mended, the same "
        "command runs what is missing:",
        *failed, sep="\n  ", file=sys.stderr,
    )  # fmt: skip
    return MISTAKE


# Looking at options without running.


def sweep_jobs(hydra: Hydra, overrides: list[str]) -> list[list[str]]:
    """The overrides of every job that Hydra's own sweeper would run."""
    found = OverridesParser.create(hydra.config_loader).parse_overrides(overrides)
    (jobs,) = BasicSweeper.split_arguments(found, None)
    return jobs


def show_config(
    app: Application, overrides: Sequence[str], *, which: str, package: str | None,
    resolve: bool, multirun: bool, config_dir: str | None,
) -> int:  # fmt: skip
    """Print the composed options as YAML, in a sweep a document for each job.

    Args:
        which: ``job``, ``hydra`` or ``all``.
        package: only this part of them.
        resolve: with interpolations replaced by their values.

    Raises:
        UserError: options that cannot be composed, or no such part.
    """
    own = own_folder(config_dir)
    texts = [literal(text, multirun=multirun) for text in overrides]
    with opened(app) as hydra, explained(app.prog):
        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        config = hydra.compose_config(app.config_name, [*own, *texts], run_mode=mode)
        # As an experiment file or a study may ask for.
        multirun = multirun or config.hydra.mode is RunMode.MULTIRUN
        grid = grid_of(config)
        given = [*(f"{name}={values}" for name, values in grid.items()), *texts]
        jobs, fixed = sweep_jobs(hydra, given) if multirun else [texts], unnamed(texts, (), grid)
        for number, job in enumerate(jobs, 1):
            config = hydra.compose_config(app.config_name, [*own, *job], run_mode=RunMode.RUN)
            HydraConfig.instance().set_config(config)
            OmegaConf.set_readonly(config.hydra, None)
            if resolve:
                OmegaConf.resolve(config)
            part: Any = hydra.get_sanitized_cfg(config, which)
            if package not in (None, "_global_"):
                part = OmegaConf.select(part, str(package), throw_on_missing=False)
                if part is None:
                    raise UserError(f"there is no {package} among these options")
            if multirun:
                print(f"--- # job {number} of {len(jobs)}: {job_name(job, fixed)}")
            if not isinstance(part, Container):
                print(part)
                continue
            if package not in (None, "_global_"):
                print(f"# @package {package}")
            print(OmegaConf.to_yaml(part), end="")
    return OK


def show_info(
    app: Application, overrides: Sequence[str], *, what: str, config_dir: str | None
) -> int:
    """Print what Hydra knows: ``defaults-tree``, ``searchpath``, ``plugins``, ..., or ``all``."""
    texts = [*own_folder(config_dir), *(literal(text, multirun=False) for text in overrides)]
    with opened(app) as hydra, explained(app.prog):
        hydra.show_info(what, app.config_name, texts)
    return OK
