"""Commands that hand their arguments to Hydra: its own overrides, errors in one sentence."""

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from scalefp.cli.arguments import add_command, add_overrides
from scalefp.cli.output import OK
from scalefp.errors import UserError


def add_hydra_commands(to: Any) -> None:
    train = add_command(
        to, "train", run_train, "train a generator and its decoder; results in runs/NAME",
        "scalefp train experiment=tiny name=first seed=1\n"
        "  scalefp train -m experiment=tiny name=sweep seed=1,2,3",
    )  # fmt: skip
    evaluate = add_command(
        to, "evaluate", run_evaluate, "measure a release; results in evaluation/NAME",
        "scalefp evaluate checkpoint=runs/first/release.safetensors measure.keys=50",
    )  # fmt: skip
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    add_overrides(train)
    add_overrides(evaluate)


def hydra_sentence(error: Exception) -> str:
    """What Hydra or OmegaConf says of an override, without its hints for programmers."""
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, OverrideParseException):
        return (
            f"the override {error.override!r} cannot be read: write name=value, and quote a value "
            "with special characters (name='\"a=b\"')"
        )
    first = str(error).splitlines()[0].rstrip(".")
    if isinstance(error, MissingConfigException) and error.options:
        return f"{first}: choose one of {', '.join(error.options)}"
    cause = str(error.__cause__ or "").partition("\n")[0]
    return f"{first} ({cause})" if cause else first


def run_hydra(args: argparse.Namespace, module: str, config_name: str, overrides: list[str]) -> int:
    """Run the Hydra entry point ``module.main`` with a configuration of conf/."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from scalefp.config import conf_dir

    entry: Callable[[], None] = import_module(module).main
    flags = ["--multirun"] if args.multirun else []
    flags += ["--cfg", args.cfg] if args.cfg else []
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [args.prog, *flags, *overrides]
    # Otherwise Hydra prints errors in its own form and exits with 1; now it raises them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        if not flags:  # Check before Hydra writes anything into the run folder.
            with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
                config: Any = OmegaConf.to_object(compose(config_name, overrides=overrides))
            config.check()
        entry()
    except (HydraException, OmegaConfBaseException) as error:
        hint = f"`{args.prog} --cfg job` shows every option"
        raise UserError(f"{hydra_sentence(error)}; {hint}") from error
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
    return OK


def run_train(args: argparse.Namespace) -> int:
    return run_hydra(args, "scalefp.train", "train", args.overrides)


def quote_path(override: str) -> str:
    """Quote a checkpoint's path: Hydra would trip over a swept run's, runs/a/seed=1,model=b/..."""
    name, _, path = override.partition("=")
    plain = name == "checkpoint" and path and not set(path) & set("\"'")
    return f'checkpoint="{path}"' if plain else override


def run_evaluate(args: argparse.Namespace) -> int:
    overrides = [*args.overrides, *(["show=json"] if args.json else [])]
    if not args.multirun:  # where a comma separates values to sweep over
        overrides = [quote_path(override) for override in overrides]
    return run_hydra(args, "scalefp.evaluate", "evaluate", overrides)
