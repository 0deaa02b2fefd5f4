"""Linear + cross-entropy without all logits at once, with the gradient found in the forward pass.

For rows `x` [N, D] and a head `W` [V, D], the loss of a row with target `y` is
`log sum exp(x W^T + b) - (x W^T + b)_y`, and its gradient to the logits is `softmax - onehot(y)`. Both
come from one block of logits, which is overwritten by its gradient and multiplied on to those of `x` and
`W` before the next block: the products of the backward pass, no sooner recomputed than a logit is kept
(the way of Liger-Kernel and of Cut Your Losses, arXiv 2411.09009). With a cap `c` logits are `c tanh(z/c)`,
and their gradient to `z` has a factor `1 - tanh(z/c)^2`.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from archdsl.kernels.common import triton_refusal
from archdsl.kernels.memory import fresh
from archdsl.kernels.shell.products import (
    add_product,
    fill_product,
    linear,
    long_product,
    spaced,
)

IGNORED = -100
"""Target of a row that does not count."""

AT_ONCE = 2**23
"""Logits held at a time, in elements."""

IN_CACHE = 2**20
"""Logits whose softmax is taken at a time on a CPU, in elements: its passes find them in cache."""


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    at_once: int = AT_ONCE,
    fused: bool | None = None,
    cap: float | None = None,
) -> Tensor:
    """Mean cross-entropy in nats over rows whose target is not -100; zero where there is none.

    x [N, D], weight [V, D], bias [V], targets [N] int64; a scalar in float32 (float64 for float64).
    At most `at_once` logits are held, where they are more than that; `fused` runs Triton's softmax.
    """
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
        logits = capped(linear(x, weight, bias), cap)
        return _mean(logits.double() if x.dtype == torch.float64 else logits.float(), targets)
    triton = not triton_refusal(x) if fused is None else fused
    if x.device.type == "cpu":
        x, targets = _counted(x, targets)
    kept = torch.is_grad_enabled()
    how = at_once, triton, kept, cap
    found: Tensor = _LinearCrossEntropy.apply(x, weight, bias, targets, *how)  # type: ignore[no-untyped-call]
    return found


def capped(x: Tensor, cap: float | None) -> Tensor:
    """`cap tanh(x / cap)`; without a cap `x` itself."""
    return x if cap is None else cap * torch.tanh(x / cap)


def _counted(x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that have a target, where most have none: a GPU would have to be waited for."""
    rows = (targets != IGNORED).nonzero()[:, 0]
    if 2 * len(rows) > len(targets):
        return x, targets
    return x.index_select(0, rows), targets[rows]


def _mean(logits: Tensor, targets: Tensor) -> Tensor:
    total = functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)


class _LinearCrossEntropy(torch.autograd.Function):
    """`linear_cross_entropy`; where no gradient is wanted none is computed."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        at_once: int,
        triton: bool,
        kept: bool,
        cap: float | None,
    ) -> Tensor:
        wanted = [kept and need for need in ctx.needs_input_grad[:3]]
        count = (targets != IGNORED).sum().clamp(min=1)
        work = _Work(x, weight, bias, triton, wanted, cap)
        for rows in _even(len(x), max(1, at_once // weight.shape[0])):
            work.block(rows, targets[rows], count)
        ctx.save_for_backward(*work.grads)
        return work.total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        one = bool(grad == 1) if grad.device.type == "cpu" else False
        found = [g if g is None or one else g * grad.to(g.dtype) for g in ctx.saved_tensors]
        return *found, None, None, None, None, None


def _even(length: int, most: int) -> list[slice]:
    """Slices of at most `most` rows, as long as one another: a buffer that fits one fits all."""
    size = -(-length // max(1, -(-length // most)))
    return [slice(start, min(start + size, length)) for start in range(0, length, max(1, size))]


class _Work:
    """What is summed over the blocks: the loss, and the wanted gradients in their tensors' dtypes."""

    def __init__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        triton: bool,
        wanted: list[bool],
        cap: float | None,
    ) -> None:
        self.x, self.weight, self.bias, self.cap = x, weight, bias, cap
        self.triton, self.differentiate = triton, any(wanted)
        self.wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.total = x.new_zeros((), dtype=self.wide)
        self.room: Tensor | None = None
        self.first = True
        self.grads = (
            torch.empty_like(x) if wanted[0] else None,
            self._unfilled(weight) if wanted[1] else None,
            torch.zeros_like(bias, dtype=self.wide) if wanted[2] and bias is not None else None,
        )

    def _unfilled(self, weight: Tensor) -> Tensor:
        """Room for a weight's gradient, which the first block fills; zeros where there is none."""
        found = fresh(torch.empty_like(weight, dtype=self.wide))
        return found if len(self.x) else found.zero_()

    def block(self, rows: slice, targets: Tensor, count: Tensor) -> None:
        """Add the loss and the gradients of some rows."""
        x = self.x[rows]
        logits = self._logits(x)
        slope = self._cap(logits)
        self.total += self._softmax(logits, targets, count)
        if not self.differentiate:
            return
        if slope is not None:
            logits *= slope
        d_logits = logits.to(x.dtype)
        d_x, d_weight, d_bias = self.grads
        if d_x is not None:
            d_x[rows] = long_product(d_logits, self.weight.t())
        if d_weight is not None:
            add_product(d_weight, d_logits.t(), x.t(), self.first)
        if d_bias is not None:
            d_bias += logits.sum(0)
        self.first = False

    def _logits(self, x: Tensor) -> Tensor:
        """The logits of a block, in the wide dtype; by the plain steps on a CPU in the first one's place."""
        alike = x.dtype == self.weight.dtype == self.wide
        if self.triton or x.device.type != "cpu" or not alike:
            return linear(x, self.weight, self.bias).to(self.wide)
        if self.room is None:
            self.room = fresh(spaced(x, len(x), len(self.weight)))
        logits = self.room[: len(x)]
        fill_product(logits, x, self.weight)
        return logits if self.bias is None else logits.add_(self.bias)

    def _cap(self, logits: Tensor) -> Tensor | None:
        """The slope of the cap, `[n, V]`; `logits` become capped."""
        if self.cap is None:
            return None
        bent = logits.div_(self.cap).tanh_()
        slope = 1 - bent.square() if self.differentiate else None
        logits *= self.cap
        return slope

    def _softmax(self, logits: Tensor, targets: Tensor, count: Tensor) -> Tensor:
        """The summed loss; `logits` [n, V] become the gradient of it divided by `count`."""
        if self.triton:
            gpu = importlib.import_module("archdsl.kernels.shell.triton_loss")
            found: Tensor = gpu.softmax_(logits, targets)
            logits /= count
            return found
        size = max(1, IN_CACHE // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
        parts = zip(logits.split(size), targets.split(size), strict=True)  # type: ignore[no-untyped-call]
        losses = [_softmax_(*part, count if self.differentiate else None) for part in parts]
        return torch.stack(losses).sum()


def _softmax_(logits: Tensor, targets: Tensor, count: Tensor | None) -> Tensor:
    """The summed loss; with a `count` logits [n, V] become the gradient of it divided by that."""
    kept = targets != IGNORED
    index = targets.masked_fill(~kept, 0)[:, None]
    logits -= logits.amax(1, keepdim=True)
    chosen = logits.gather(1, index)[:, 0]
    logits.exp_()
    mass = logits.sum(1)
    if count is not None:
        share = kept.to(logits.dtype)[:, None] / count
        logits.mul_(share / mass[:, None])
        logits.scatter_add_(1, index, -share)
    return (mass.log() - chosen).masked_fill(~kept, 0).sum()
