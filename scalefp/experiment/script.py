"""What every script of ``experiments/`` does: measure, keep the figures, report them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalefp.errors import UserError
from scalefp.experiment.making import code_version, making
from scalefp.experiment.parts import Parts
from scalefp.experiment.results import Plots, load_results, make_folder, write_json, write_page

Figures = dict[str, Any]


def no_plots(results: Any) -> Plots:
    """For an experiment without plots."""
    return {}


def beside_earlier(earlier: Figures, name: str, figures: Figures) -> Figures:
    """Figures measured again take the place of earlier ones of that name; the others stay."""
    return earlier | {name: figures}


@dataclass(frozen=True)
class Experiment:
    """A script that measures something and reports it.

    ``measure`` gives figures, which are kept as JSON with their date, hardware, processor time and
    command. Page and plots are made of that file alone, so that ``--report`` can make them again.

    Attributes:
        folder: where the files lie, unless ``--out`` names another.
        measure: options -> figures, ready for JSON.
        page: results, as the file holds them -> Markdown.
        plots: results -> plots, by the names of their files.
        named_by: the option after whose value the figures of a run are named, which then stand
            beside those of earlier runs; None if results are of one run.
        merge: (earlier results, name, figures) -> results; only where ``named_by`` is given.
        results_file, page_file: names of the files.
    """

    folder: Path
    measure: Callable[[argparse.Namespace], Mapping[str, Any]]
    page: Callable[[Any], str]
    plots: Callable[[Any], Plots] = no_plots
    named_by: str | None = None
    merge: Callable[[Figures, str, Figures], Figures] = beside_earlier
    results_file: str = "results.json"
    page_file: str = "table.md"

    def parser(
        self, about: str | None, *, seeded: bool = True, in_parts: bool = False
    ) -> argparse.ArgumentParser:
        """The options of all experiments, to which a script adds its own.

        Args:
            about: the script's docstring, whose first line ``--help`` shows.
            seeded: whether the script draws random numbers, by ``options.seed``.
            in_parts: whether it keeps finished parts, by :meth:`parts`.
        """
        parser = argparse.ArgumentParser(
            description=(about or "").strip().split("\n")[0],
            parents=[self._reporting()],
            allow_abbrev=False,
        )
        if self.named_by is not None:
            parser.add_argument("--name", help=f"in the results (default: as --{self.named_by})")
        if seeded:
            parser.add_argument("--seed", type=int, default=0)
        if in_parts:
            place = Path("runs", "parts", self.folder.parent.name, self.folder.name)
            parser.add_argument(
                "--parts", type=Path, default=place,
                help=f"folder of finished parts, from which a stopped run goes on ({place})",
            )  # fmt: skip
        return parser

    def parts(self, options: argparse.Namespace, settings: Mapping[str, Any]) -> Parts:
        """Finished parts of a stopped run, of these settings and this version of the package.

        Raises:
            UserError: the folder cannot be made or read.
        """
        folder = options.parts if self.named_by is None else options.parts / options.name
        return Parts(folder, {**settings, "code": code_version()})

    def run(
        self, parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None
    ) -> Figures:
        """Measure, write the results, page and plots, and print the page; the results.

        Raises:
            SystemExit: with status 2 after a user's mistake, which is said in one sentence.
        """
        # Known before the others, since no option of the measurement is needed for a report.
        early = self._reporting().parse_known_args(arguments)[0]
        try:
            if not early.report:
                self._measure(parser.parse_args(arguments))
            return self.report(early.out)
        except UserError as error:
            parser.exit(2, f"{parser.prog}: {error}\n")

    def report(self, folder: Path) -> Figures:
        """Write page and plots of the results in a folder, and print the page; the results.

        Raises:
            UserError: there are no results, or the files cannot be written.
        """
        path = folder / self.results_file
        results = load_results(path)
        if not results:
            raise UserError(f"there is no {path}: measure first (without --report)")
        page = self.page(results)
        write_page(folder / self.page_file, page, self.plots(results))
        print(page, end="")
        return results

    def _reporting(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument(
            "--out", type=Path, default=self.folder, help="folder (default: this experiment's own)"
        )
        parser.add_argument(
            "--report", action="store_true",
            help=f"measure nothing: write {self.page_file} and plots anew from {self.results_file}",
        )  # fmt: skip
        return parser

    def _measure(self, options: argparse.Namespace) -> None:
        path = options.out / self.results_file
        # Whatever cannot be used is found before hours of measuring.
        make_folder(options.out)
        results = load_results(path)
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(1)  # as figures of processor time are compared
        if self.named_by is not None:
            options.name = options.name or Path(getattr(options, self.named_by)).stem
        started = time.process_time()
        figures = {**self.measure(options)}
        figures |= making(time.process_time() - started)
        if self.named_by is not None:
            figures = self.merge(results, options.name, figures)
        write_json(path, figures)
