"""Where the time of a training step goes: torch.profiler's events, sorted by network.

A forward operation belongs to the network that was running. A backward operation carries the
sequence number of the forward operation that it undoes, and so belongs to the same network.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from scalefp.bench.timing import Task

LABEL = "part: "
BACKWARD = "autograd::engine::evaluate_function"
OPTIMIZER = "Optimizer."
REST = "losses, data and averages"


@contextmanager
def labelled(name: str, module: nn.Module) -> Iterator[None]:
    """Within, the profiler sees the calls of ``module`` under ``name``."""
    open_scopes: list[Any] = []

    def enter(*_: object) -> None:
        open_scopes.append(record_function(LABEL + name))
        open_scopes[-1].__enter__()

    def leave(*_: object) -> None:
        open_scopes.pop().__exit__(None, None, None)

    hooks = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _ancestors(event: Any) -> Iterator[Any]:
    while event is not None:
        yield event
        event = event.cpu_parent


def _forward_part(event: Any) -> str | None:
    """The network in whose forward pass an event lies."""
    names = (e.name for e in _ancestors(event))
    return next((name.removeprefix(LABEL) for name in names if name.startswith(LABEL)), None)


def shares(task: Task, networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Share of a task's time spent in each of ``networks``, in the optimizers and in the rest."""
    with ExitStack() as stack:
        for name, module in networks.items():
            stack.enter_context(labelled(name, module))
        # Events of the task's thread alone: there is no other with one thread, and with several
        # the others only share the work of its operations.
        profiler = stack.enter_context(profile(activities=[ProfilerActivity.CPU], acc_events=True))
        task()
    events = profiler.events()
    assert events is not None
    owner: dict[int, str] = {}  # sequence number -> network
    for event in events:
        part = _forward_part(event)
        if part is not None and event.sequence_nr >= 0:
            owner.setdefault(event.sequence_nr, part)

    seconds = dict.fromkeys([*networks, "optimizer", REST], 0.0)
    for event in events:
        part = _forward_part(event) or REST
        for above in _ancestors(event):
            if above.name.startswith(BACKWARD):
                part = owner.get(above.sequence_nr, REST)
            elif above.name.startswith(OPTIMIZER):
                part = "optimizer"
        seconds[part] += event.self_cpu_time_total
    whole = sum(seconds.values())
    return {name: part / whole for name, part in seconds.items()}
