"""The closed form: what is read is the exact minimiser of a ridge regression on all writes so far.

With weights r_s and decays, H_t = sum_s (G_t/G_s) r_s k_s k_s^T, R_t = sum_s (G_t/G_s) r_s v_s k_s^T:
W_t = argmin sum_s (G_t/G_s) r_s |W k_s - v_s|² + ridge |W|² = R_t (H_t + ridge I)^-1, and W_t q_t is read.
Recursive least squares; as a layer, the mesa layer (arXiv 2309.05858).
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archdsl.kernels.learner import learners, memories
from archdsl.kernels.learner.flops import CLOSED_SPAN as SPAN
from archdsl.kernels.learner.parts import Streams
from archdsl.kernels.learner.rule import Rule

Sums = tuple[Tensor, Tensor]


def run(rule: Rule, x: Streams, sums: Sums) -> tuple[Tensor, dict[str, Tensor]]:
    """Read [L, N, V], and the sums [L, K, K] and [L, V, K]."""
    count, outputs = x.key.shape[1], []
    for first in range(0, count, SPAN):
        out, sums = kept(rule, x.part(first, min(count, first + SPAN)), sums, count > SPAN)
        outputs.append(out)
    return torch.cat(outputs, 1), {"keys": sums[0], "values": sums[1]}


def kept(rule: Rule, x: Streams, sums: Sums, several: bool) -> tuple[Tensor, Sums]:
    """A span; in training only the sums between several are kept, the rest is computed again."""
    if several and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        found: tuple[Tensor, Sums] = checkpoint(
            _part, rule, x, sums,
            use_reentrant=False, preserve_rng_state=False, determinism_check="none",
        )  # fmt: skip
        return found
    return _part(rule, x, sums)


def _part(rule: Rule, x: Streams, sums: Sums) -> tuple[Tensor, Sums]:
    between, before = learners.pairs(x.decay, x.key.shape[1], x.key)
    weighed = x.key * x.rate[..., None]
    keys = _summed(between, before, weighed, x.key, sums[0])
    values = _summed(between, before, x.value, weighed, sums[1])
    found = torch.linalg.solve(keys + _ridge(rule, keys), x.query[..., None])
    read = torch.bmm(values.flatten(0, 1), found.flatten(0, 1)).view(x.value.shape)
    return read, (keys[:, -1], values[:, -1])


def _ridge(rule: Rule, keys: Tensor) -> Tensor:
    """The ridge on the diagonal, and what the sums may be wrong by."""
    trace = keys.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    one = torch.eye(keys.shape[-1], dtype=keys.dtype, device=keys.device)
    return one * (rule.learn.ridge + 4 * torch.finfo(keys.dtype).eps * trace)


def _summed(between: Tensor, before: Tensor, left: Tensor, right: Tensor, start: Tensor) -> Tensor:
    """Decayed sums of outer products, for every write [L, N, left, right]."""
    products = (left[..., None] * right[..., None, :]).flatten(2)
    total = memories.split(torch.bmm(between, products), 2, start.shape[1:])
    return total + start[:, None] * before[..., None, None]
