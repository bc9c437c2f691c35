"""Networks as files for other runtimes: ONNX and ``torch.export`` (pt2).

The networks take one tensor whose first dimension, the batch, may have any size.
"""

import io
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from scalefp.errors import UserError
from scalefp.files import atomic_path


@dataclass(frozen=True)
class Ports:
    """Names of a network's input and outputs, and an input [2, ...] to follow through it."""

    input: str
    outputs: list[str]
    example: Tensor


def _onnx(network: nn.Module, ports: Ports, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401  torch's exporter needs it and says so less clearly
    except ImportError as error:
        raise UserError("Writing ONNX needs `pip install scalefp[onnx]`.") from error
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of operators of packages that are not installed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # raised by the exporter's own calls
            program = torch.onnx.export(
                network,
                (ports.example,),
                input_names=[ports.input],
                output_names=ports.outputs,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    finally:
        log.setLevel(level)
    assert program is not None
    with atomic_path(path) as temporary:
        program.save(os.fspath(temporary))


def _pt2(network: nn.Module, ports: Ports, path: Path) -> None:
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network, (ports.example,), dynamic_shapes=shapes)
    content = io.BytesIO()  # on a full disk torch would abort the process
    with warnings.catch_warnings():
        # Raised for every tensor that is channels-last: whole, but not in the common order.
        warnings.filterwarnings("ignore", "No complete tensor", UserWarning)
        torch.export.save(program, content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


EXPORTERS: dict[str, Callable[[nn.Module, Ports, Path], None]] = {"onnx": _onnx, "pt2": _pt2}


def export(network: nn.Module, ports: Ports, path: str | Path, *, format: str) -> None:
    """Write ``network`` to ``path`` in a format of ``EXPORTERS``. Atomic.

    Raises:
        UserError: unknown format, or the packages for ONNX are not installed.
    """
    if format not in EXPORTERS:
        raise UserError(f"Unknown export format {format!r}; choose onnx or pt2.")
    EXPORTERS[format](network, ports, Path(path))
