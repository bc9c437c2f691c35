"""Means of figures over the steps of a training, which wait on the device until somebody looks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from scalefp.training.distributed import World


@dataclass
class Means:
    """Sums of named scalars since they were last read, and of how many steps each is."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Account for a step; nothing waits for the device."""
        for name, term in terms.items():
            term, count = term.detach().float(), self.counts.get(name, 0)
            # Not in place: a term may be a tensor that the next step writes to.
            self.sums[name] = self.sums[name].to(term.device) + term if count else term.clone()
            self.counts[name] = count + 1

    def read(self, world: World) -> dict[str, float]:
        """The means over steps and processes; waits for the device."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        return world.average_terms(means) if means else {}

    def share(self, world: World) -> None:
        """Give every process the mean of what all hold."""
        if world.size > 1:
            for total in self.sums.values():
                world.average(total)

    def clear(self) -> None:
        """Begin anew."""
        self.sums, self.counts = {}, {}
