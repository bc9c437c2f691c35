"""Changes of some images of a batch, one change after the other, in one piece of memory.

Autograd alone would copy the whole batch for every change and every gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Change(NamedTuple):
    """A change of c images of a batch."""

    rows: Tensor  # the images, int64 [c]
    kept: Tensor  # which of them are changed indeed, bool [c, 1, 1, 1]
    form: Callable[[Tensor], Tensor]  # images [c, 3, H, W] -> images, differentiable


class _InTurn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, changes: Sequence[Change]) -> Tensor:
        seen, steps = images.clone(), []
        for change in changes:
            before = seen.index_select(0, change.rows).requires_grad_(ctx.needs_input_grad[0])
            with torch.set_grad_enabled(ctx.needs_input_grad[0]):
                changed = change.form(before)
            steps.append((before, changed))
            after = torch.where(change.kept, changed.detach(), before.detach())
            seen.index_copy_(0, change.rows, after)
        ctx.changes, ctx.steps = changes, steps
        return seen

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient, steps = gradient.clone(), ctx.steps
        ctx.steps = None  # frees what a change has kept once it is undone
        for change in reversed(ctx.changes):
            before, changed = steps.pop()
            after = gradient.index_select(0, change.rows)
            (own,) = torch.autograd.grad(changed, before, after)
            gradient.index_copy_(0, change.rows, torch.where(change.kept, own, after))
        return gradient, None


def in_turn(images: Tensor, changes: Sequence[Change]) -> Tensor:
    """The images [b, 3, H, W] after all changes; differentiable once."""
    changed: Tensor = _InTurn.apply(images, changes)  # type: ignore[no-untyped-call]
    return changed
