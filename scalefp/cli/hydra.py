"""Commands whose options Hydra composes: training and evaluation, one job or a sweep of jobs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from scalefp.cli.arguments import Parser, add_command, add_list
from scalefp.cli.output import OK
from scalefp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalefp.cli.launch import Application
    from scalefp.training.distributed import World
    from scalefp.training.loop import Training

INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def add_hydra_commands(to: Any) -> None:
    train = add_command(
        to, "train", run_train, "train a generator and its decoder; results in runs/NAME",
        "scalefp train experiment=tiny name=first seed=1\n"
        "  scalefp train -m experiment=tiny name=sweep seed=1,2,3\n"
        "  scalefp train -m hydra/launcher=joblib name=sweep model.n_bits=32,64 seed=1,2\n"
        "  scalefp train --config-dir mine experiment=faces256    (mine/experiment/faces256.yaml)\n"
        "  scalefp train experiment=tiny --cfg job --package loss --resolve\n"
        "  scalefp train experiment=tiny --info defaults-tree\n"
        "  scalefp train experiment=published run.device=cuda --dry-run\n"
        '  eval "$(scalefp train --shell-completion install=bash)"',
    )  # fmt: skip
    evaluate = add_command(
        to, "evaluate", run_evaluate, "measure a release; results in evaluation/NAME",
        "scalefp evaluate checkpoint=runs/first/release.safetensors measure.keys=50\n"
        "  scalefp evaluate -m checkpoint=emoji,runs/first/release.safetensors measure=quick\n"
        "  scalefp evaluate --config-dir experiments/other-method method=spread_spectrum",
    )  # fmt: skip
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    add_dry_run(train)
    for parser in (train, evaluate):
        add_overrides(parser)
        parser.set_defaults(commands=to)


def add_dry_run(parser: Parser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true",
        help="three steps on made pictures: say memory, images/s and hours, and stop",
    )  # fmt: skip


def add_overrides(parser: Parser) -> None:
    """What a command takes whose options Hydra composes."""
    parser.add_argument("-m", "--multirun", action="store_true", help="sweep over value lists")
    parser.add_argument(
        "-cd", "--config-dir", metavar="DIR",
        help="folder of your own experiment files, beside those that come along",
    )  # fmt: skip
    parser.add_argument(
        "-c", "--cfg", choices=("job", "hydra", "all"),
        help="print the configuration (with -m, of every job) and stop",
    )  # fmt: skip
    parser.add_argument("-p", "--package", help="with --cfg: only this part, for example model")
    parser.add_argument(
        "--resolve", action="store_true", help="with --cfg: values instead of interpolations"
    )
    parser.add_argument(
        "-i", "--info", nargs="?", const="all", choices=INFO,
        help="print where options come from, and stop",
    )  # fmt: skip
    parser.add_argument(
        "-sc", "--shell-completion", action="store_true",
        help="print what completes commands and options, and stop: install=bash or install=zsh",
    )  # fmt: skip
    add_list(parser, "overrides", "NAME=VALUE", "*", "options; --cfg job shows them all")


def applications() -> dict[str, Application]:
    """What Hydra composes the options of, by command."""
    from scalefp.cli import jobs
    from scalefp.cli.launch import Application
    from scalefp.evaluation.options import EvaluateOptions

    how = ("checkpoint", "out", "show", "threads")
    return {
        "train": Application(
            "scalefp train", "train", jobs.train_job, ("name",), jobs.check_training
        ),
        "artificial train": Application(
            "scalefp artificial train",
            "artificial",
            jobs.marker_job,
            ("name",),
            jobs.check_training,
        ),
        "evaluate": Application(
            "scalefp evaluate", "evaluate", jobs.evaluate_job, how, EvaluateOptions.check
        ),
    }


def kinds() -> dict[str, Callable[[Any, World], Training]]:
    """What makes a training, by command."""
    from scalefp.artificial.train import MarkerTraining
    from scalefp.training.generator import GeneratorTraining

    return {"train": GeneratorTraining, "artificial train": MarkerTraining}


def check_flags(args: argparse.Namespace) -> None:
    """Raise UserError for flags that do not go together."""
    if args.cfg is None and (args.package is not None or args.resolve):
        raise UserError("--package and --resolve say how --cfg prints: give --cfg job, too")
    looks = [args.cfg is not None, args.info is not None, args.shell_completion]
    if sum(looks) > 1:
        raise UserError("--cfg, --info and --shell-completion each print and stop: give one")
    if args.info is not None and args.multirun:
        raise UserError("--info is for one job: leave -m out")
    if getattr(args, "dry_run", False) and (args.multirun or any(looks)):
        raise UserError("--dry-run is for one training, and alone: leave the other flags out")


def run_hydra(args: argparse.Namespace, command: str, overrides: list[str]) -> int:
    """Do with the composed options of a command what the flags say."""
    check_flags(args)
    from scalefp.cli import launch

    known = applications()
    app, folder = known[command], args.config_dir
    if args.shell_completion:
        from scalefp.cli.completion import complete

        complete(args.overrides, args.commands.choices, known)
        return OK
    if args.cfg is not None:
        return launch.show_config(
            app, overrides, which=args.cfg, package=args.package, resolve=args.resolve,
            multirun=args.multirun, config_dir=folder,
        )  # fmt: skip
    if args.info is not None:
        return launch.show_info(app, overrides, what=args.info, config_dir=folder)
    if getattr(args, "dry_run", False):
        from scalefp.cli.rehearsal import show_rehearsal

        return show_rehearsal(app, kinds()[command], overrides, folder)
    return launch.launch(app, overrides, multirun=args.multirun, config_dir=folder)


def run_train(args: argparse.Namespace) -> int:
    return run_hydra(args, "train", args.overrides)


def run_evaluate(args: argparse.Namespace) -> int:
    return run_hydra(args, "evaluate", [*args.overrides, *(["show=json"] if args.json else [])])
