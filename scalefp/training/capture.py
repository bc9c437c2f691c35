"""A step as a CUDA graph: captured once, then launched whole.

A training step is some thousand small kernels, which take longer to launch one by one than to
compute. A graph repeats them with the same memory, so what differs from step to step has to lie in
tensors that stay (schedule.py, feed.py) or come from the generator that the graph was told of.
Elsewhere than on CUDA, and with several processes, which exchange gradients, the same functions are
simply called.
"""

import logging
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

Terms = dict[str, Tensor]  # name -> scalar, unweighted

# Steps of a kind that are computed as they are written, before one is captured: they make the
# optimizer's state and let cuDNN choose its algorithms. They are steps as any others.
WARM_UP = 3

_log = logging.getLogger(__name__)


class Captured:
    """Calls a step's function or, where that is possible, repeats what it did.

    Attributes:
        source: generator for all randomness of a step, seeded anew for each.
        graphs: of the kinds of steps that were captured, and their results.
    """

    def __init__(self, device: torch.device, *, wanted: bool) -> None:
        """
        Args:
            wanted: False to never capture.
        """
        self.source = torch.Generator(device)
        self.graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, Terms]] = {}
        self._counts: dict[Hashable, int] = {}
        self._wanted = wanted and device.type == "cuda"
        if self._wanted:
            stream = torch.cuda.Stream(device)
            stream.wait_stream(torch.cuda.current_stream(device))
            torch.cuda.set_stream(stream)  # a graph cannot be captured on the default one

    def __call__(self, kind: Hashable, seed: int, compute: Callable[[], Terms]) -> Terms:
        """The results of ``compute``, which does the same for every step of a ``kind``."""
        self.source.manual_seed(seed)
        if not self._wanted:
            return compute()
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if self._counts[kind] <= WARM_UP:
            return compute()
        if kind not in self.graphs:
            try:
                self.graphs[kind] = self._capture(compute)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._wanted = False
                _log.warning(
                    "the training step cannot be captured as a CUDA graph and is computed kernel "
                    "by kernel, which is slower (%s)",
                    str(error).partition("\n")[0],
                )
                self.source = torch.Generator(self.source.device).manual_seed(seed)
                return compute()
        graph, terms = self.graphs[kind]
        graph.replay()
        return terms

    def _capture(self, compute: Callable[[], Terms]) -> tuple[torch.cuda.CUDAGraph, Terms]:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.source)
        pool = next((one.pool() for one, _ in self.graphs.values()), None)
        stream = torch.cuda.current_stream(self.source.device)
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            terms = compute()
        return graph, {name: term.detach() for name, term in terms.items()}
