"""The public function of the learner family."""

from torch import Tensor

from archdsl.kernels.common import compute_dtype
from archdsl.kernels.learner import biases, chunked, closed
from archdsl.kernels.learner.lanes import (
    Gates,
    Learned,
    State,
    memory_of,
    named,
    norm_of,
    share_of,
    streams_of,
    sums_of,
)
from archdsl.kernels.learner.memories import split
from archdsl.kernels.learner.parts import Rules
from archdsl.kernels.learner.reference import reference
from archdsl.kernels.learner.rule import Rule


def choose(rule: Rule, length: int) -> tuple[str, str]:
    """The form that runs `length` tokens, and why."""
    if rule.learn.form == "closed":
        return "closed", "sums of products, and a linear system a token"
    how = "read through coefficients" if rule.dual else "every token's weights formed"
    return "chunked", f"gradients at the start of every {rule.learn.chunk} writes, {how}"


def learn(
    rule: Rule, q: Tensor, k: Tensor, v: Tensor, gates: Gates, learned: Learned, *,
    state: State | None = None, position: int = 0,
    bias: tuple[biases.Bias, biases.Bias] | None = None, backend: str = "chunked",
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Write and read a memory that learns: out [B, T, H, V], and its state.

    Args:
        rule: the point.
        q: [B, T, H, K]; with several writes a token, one for each write, of which the last is read.
        k: [B, T, H, K].
        v: [B, T, H, V].
        gates: the token's sizes and decays.
        learned: what the memory begins with, and its norm.
        state: what `state_shapes` names; a fresh start where not given.
        position: writes that came before, which tells where in its chunk the first one stands.
        bias: gradient and value of a loss that `biases` does not have.
        backend: `chunked`, or `reference` (a write at a time by autograd).
    """
    batch, _, heads, _ = k.shape
    dtype = compute_dtype(q, k, v)
    x = streams_of(q, k, v, gates, dtype)
    if rule.learn.form == "closed":
        out, after = closed.run(rule, x, sums_of(rule, state, batch * heads, x.key))
    else:
        gradient, value = bias or biases.pair(rule.loss)
        rules = Rules(rule, norm_of(learned, batch, dtype), share_of(learned, dtype), gradient)
        memory = memory_of(rule, learned, state, batch, dtype)
        offset = position % rule.learn.chunk
        if backend == "reference":
            out, found = reference(rules, x, memory, value, offset)
        else:
            out, found = chunked.run(rules, x, memory, offset)
        after = named(rule, found)
    out = biases.read(rule.loss, out)
    return (
        split(out, 0, (batch, heads)).transpose(1, 2),
        {name: split(s, 0, (batch, heads)) for name, s in after.items()},
    )
