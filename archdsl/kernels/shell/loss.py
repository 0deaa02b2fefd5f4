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
from archdsl.kernels.shell.products import add_product, linear, product

IGNORED = -100
"""Target of a row that does not count."""

AT_ONCE = 2**23
"""Logits held at a time, in elements."""


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
        work = _Work(x, weight, bias, triton, wanted, cap)
        count = (targets != IGNORED).sum().clamp(min=1)
        size = max(1, at_once // weight.shape[0])
        for start in range(0, len(x), size):
            work.block(slice(start, start + size), targets[start : start + size], count)
        ctx.save_for_backward(*work.grads)
        return work.total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        one = bool(grad == 1) if grad.device.type == "cpu" else False
        found = [g if g is None or one else g * grad.to(g.dtype) for g in ctx.saved_tensors]
        return *found, None, None, None, None, None


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
        self.grads = (
            torch.empty_like(x) if wanted[0] else None,
            torch.zeros_like(weight, dtype=self.wide) if wanted[1] else None,
            torch.zeros_like(bias, dtype=self.wide) if wanted[2] and bias is not None else None,
        )

    def block(self, rows: slice, targets: Tensor, count: Tensor) -> None:
        """Add the loss and the gradients of some rows."""
        x = self.x[rows]
        logits = linear(x, self.weight, self.bias).to(self.wide)
        slope = self._cap(logits)
        self.total += self._softmax(logits, targets)
        if not self.differentiate:
            return
        logits /= count
        if slope is not None:
            logits *= slope
        d_logits = logits.to(x.dtype)
        d_x, d_weight, d_bias = self.grads
        if d_x is not None:
            d_x[rows] = product(d_logits, self.weight.t())
        if d_weight is not None:
            add_product(d_weight, d_logits.t(), x.t())
        if d_bias is not None:
            d_bias += logits.sum(0)

    def _cap(self, logits: Tensor) -> Tensor | None:
        """The slope of the cap, `[n, V]`; `logits` become capped."""
        if self.cap is None:
            return None
        bent = logits.div_(self.cap).tanh_()
        slope = 1 - bent.square() if self.differentiate else None
        logits *= self.cap
        return slope

    def _softmax(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The summed loss; `logits` [n, V] become the gradient of it."""
        if self.triton:
            gpu = importlib.import_module("archdsl.kernels.shell.triton_loss")
            found: Tensor = gpu.softmax_(logits, targets)
            return found
        kept = targets != IGNORED
        index = targets.masked_fill(~kept, 0)[:, None]
        logits -= logits.amax(1, keepdim=True)
        chosen = logits.gather(1, index)[:, 0]
        logits.exp_()
        mass = logits.sum(1)
        loss = (mass.log() - chosen).masked_fill(~kept, 0).sum()
        if self.differentiate:
            logits.mul_((kept / mass)[:, None].to(logits.dtype))
            logits.scatter_add_(1, index, -kept[:, None].to(logits.dtype))
        return loss
