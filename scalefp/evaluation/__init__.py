"""Measured figures of a release: ``run`` measures, ``report`` writes."""

from scalefp.evaluation.report import markdown, write_results
from scalefp.evaluation.run import evaluate
from scalefp.evaluation.samples import EvaluateConfig, Samples

__all__ = ["EvaluateConfig", "Samples", "evaluate", "markdown", "write_results"]
