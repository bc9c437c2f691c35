"""The experiment kit: from options to measured figures, a page with tables, and plots.

Used by evaluation, benchmarks and every script of ``experiments/``. Imports neither torch nor
matplotlib before something is drawn.
"""

from scalefp.experiment.figures import error_bars, has_matplotlib, new_figure, save_figure
from scalefp.experiment.intervals import student, wilson
from scalefp.experiment.making import code_version, hardware, made, making
from scalefp.experiment.parts import Parts, content_digest
from scalefp.experiment.readings import accuracy_rows, accuracy_table
from scalefp.experiment.results import Plots, load_results, make_folder, write_json, write_page
from scalefp.experiment.script import Experiment
from scalefp.experiment.tables import csv_table, markdown_table

__all__ = [
    "accuracy_rows",
    "accuracy_table",
    "Experiment",
    "Parts",
    "Plots",
    "code_version",
    "content_digest",
    "csv_table",
    "error_bars",
    "hardware",
    "has_matplotlib",
    "load_results",
    "made",
    "make_folder",
    "making",
    "markdown_table",
    "new_figure",
    "save_figure",
    "student",
    "wilson",
    "write_page",
    "write_json",
]
