"""Networks as files for other runtimes: ONNX and ``torch.export`` (pt2).

The networks take one tensor whose first dimension, the batch, may have any size, and others if that
is said. The files say what goes in and comes out: ONNX in the metadata entry ``scalefp``, pt2 in
the extra file ``scalefp.json``, as JSON.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scalefp.errors import UserError
from scalefp.files import atomic_path
from scalefp.release.container import METADATA


@dataclass(frozen=True)
class Ports:
    """Names of a network's input and outputs, and an input [2, ...] to follow through it.

    ``about`` is what the file says of them to whoever opens it; for JSON, and without secrets.
    ``free`` names the dimensions of the input that may have any size.
    """

    input: str
    outputs: list[str]
    example: Tensor
    about: dict[str, Any]
    free: dict[int, str] = field(default_factory=lambda: {0: "batch"})

    @property
    def text(self) -> str:
        """``about`` as it is written: beside the network, under the name of ``METADATA``."""
        return json.dumps(self.about, sort_keys=True)


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Within this, a logger of torch reports errors alone."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _traced(network: nn.Module, ports: Ports) -> torch.export.ExportedProgram:
    """The network's operations, without the paths of source files that torch notes beside them:
    the names of folders on its owner's machine are no business of a recipient."""
    # Of any size, but a network may have a limit, as of 63 inputs at once.
    shapes = (dict.fromkeys(ports.free, torch.export.Dim.DYNAMIC),)
    # It logs and prints the whole network where it cannot follow one, beside raising an error.
    with quiet("torch.fx.experimental.symbolic_shapes"), redirect_stderr(io.StringIO()):
        program = torch.export.export(network, (ports.example,), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _onnx(network: nn.Module, ports: Ports) -> bytes:
    try:
        import onnxscript  # noqa: F401  torch's exporter needs it and says so less clearly
    except ImportError as error:
        raise UserError("Writing ONNX needs `pip install scalefp[onnx]`.") from error
    # It warns of operators of packages that are not installed.
    with quiet("torch.onnx"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # raised by the exporter's own calls
        program = torch.onnx.export(
            _traced(network, ports),
            input_names=[ports.input],
            output_names=ports.outputs,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props[METADATA] = ports.text
    content: bytes = program.model_proto.SerializeToString()
    return content


def _pt2(network: nn.Module, ports: Ports) -> bytes:
    program = _traced(network, ports)
    content = io.BytesIO()  # on a full disk torch would abort the process
    with warnings.catch_warnings():
        # Raised for every tensor that is channels-last: whole, but not in the common order.
        warnings.filterwarnings("ignore", "No complete tensor", UserWarning)
        torch.export.save(program, content, extra_files={f"{METADATA}.json": ports.text})
    return content.getvalue()


EXPORTERS: dict[str, Callable[[nn.Module, Ports], bytes]] = {"onnx": _onnx, "pt2": _pt2}


def export(
    network: nn.Module, ports: Ports, path: str | Path, *, format: str, secret: bool = False
) -> None:
    """Write ``network`` to ``path`` in a format of ``EXPORTERS``. Atomic.

    Args:
        secret: only the owner may read the file.

    Raises:
        UserError: unknown format, or the packages for ONNX are not installed.
    """
    if format not in EXPORTERS:
        raise UserError(f"Unknown export format {format!r}; choose onnx or pt2.")
    content = EXPORTERS[format](network, ports)
    with atomic_path(path, secret=secret) as temporary:
        temporary.write_bytes(content)
