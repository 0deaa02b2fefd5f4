"""The public entry of the decay family: checks, choice of form, normalisers."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from archdsl.kernels.common import (
    broadcast_decay,
    by_sequence,
    check_chunk,
    check_packed,
    check_shape,
    choose_form,
    initial,
    is_step,
    running_maximum,
    sequences,
    triton_refusal,
)
from archdsl.kernels.decay.flops import default_chunk
from archdsl.kernels.decay.operator import decay_op
from archdsl.kernels.decay.reference import reference
from archdsl.kernels.decay.step import step

EPSILON = 1e-6
"""Added to a denominator (linear attention's and mLSTM's reference code)."""

Core = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor]]


class SumState(NamedTuple):
    """State of `normalise="sum"`: memory [B, H, K, V] and the sum of keys [B, H, K]."""

    memory: Tensor
    normaliser: Tensor


class MaxState(NamedTuple):
    """State of `normalise="max"`: memory and normaliser scaled by exp(-maximum), maximum [B, H]."""

    memory: Tensor
    normaliser: Tensor
    maximum: Tensor


State = Tensor | SumState | MaxState


def choose(
    q: Tensor,
    *,
    state: Tensor | None = None,
    packed: bool = False,
    backend: str | None = None,
) -> tuple[str, str]:
    """The form that will run for queries [B, T, H, K] and an initial state, and why."""
    length, device = q.shape[1], q.device.type
    for_step = "the recurrence itself is the cheapest form"
    for_chunked = "matrix products of whole chunks"
    refusal = triton_refusal(q, state, width=q.shape[3], asked=backend == "triton")
    return choose_form(length, device, packed, backend, for_step, for_chunked, refusal)


def decay(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None = None,
    *,
    scale: float = 1.0,
    initial_state: State | None = None,
    cu_seqlens: Tensor | None = None,
    read: Literal["after", "before"] = "after",
    bonus: Tensor | None = None,
    normalise: Literal["none", "sum", "max"] = "none",
    log_input: Tensor | None = None,
    backend: str | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, State]:
    """Run `S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_t^T`, `out_t = scale * S_t^T q_t`.

    q, k [B, T, H, K]; v [B, T, H, V]; log_decay None, [H], [B, T, H] or [B, T, H, K], all <= 0.
    `read="before"` reads S_{t-1}; `bonus` [H, K] then adds the current token weighted by it
    (RWKV-6). `normalise="sum"` divides by `scale * q_t . sum k` (linear attention); "max" adds an
    input gate `log_input` [B, T, H] and mLSTM's running maximum. `cu_seqlens` [N + 1] packs N
    sequences in a batch of one.
    Returns the output [B, T, H, V] in the dtype of v and the final state, float32 (float64 for
    float64 inputs): [B or N, H, K, V], a `SumState` or a `MaxState`.
    """
    plain = normalise == "none" and bonus is None and log_input is None
    if plain and read == "after" and is_step(initial_state, q, k, v, cu_seqlens, backend):
        return step(q, k, v, broadcast_decay(log_decay, k), initial_state, scale, False)
    log = _check(q, k, v, log_decay, read, bonus, normalise, log_input, cu_seqlens)
    memory = initial_state[0] if isinstance(initial_state, tuple) else initial_state
    name, _ = choose(q, state=memory, packed=cu_seqlens is not None, backend=backend)
    size = check_chunk(chunk or default_chunk(q.shape[1], k.shape[3], v.shape[3]))

    def core(
        q: Tensor, k: Tensor, v: Tensor, log: Tensor | None, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        before = read == "before"
        if name == "step":
            return step(q, k, v, log, state, scale, before)
        if name in ("chunked", "triton"):
            fused = name == "triton" and q.numel() > 0
            found = decay_op(q, k, v, log, state, cu_seqlens, scale, size, before, fused)
            return found[0], found[1]
        return by_sequence(
            partial(reference, scale=scale, before=before), (q, k, v, log), state, cu_seqlens
        )

    rows = sequences(cu_seqlens, q.shape[0])
    shape = (rows, q.shape[2], k.shape[3], v.shape[3])
    if normalise == "sum":
        return _sum(core, q, k, v, log, initial_state, shape)
    if normalise == "max":
        assert log_input is not None
        return _max(core, q, k, v, log, log_input, initial_state, shape, cu_seqlens)
    if isinstance(initial_state, tuple):
        raise ValueError("initial_state has a normaliser but normalise is 'none'")
    out, state = core(q, k, v, log, initial(initial_state, shape, q))
    if bonus is not None:
        out = out + (scale * (q * bonus * k).sum(-1, keepdim=True) * v).to(out.dtype)
    return out, state


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    read: str,
    bonus: Tensor | None,
    normalise: str,
    log_input: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Tensor | None:
    """Refuse shapes and options that do not fit; return the decay as [B, T, H] or [B, T, H, K]."""
    check_shape("k", k, tuple(q.shape))
    check_shape("v", v, (*q.shape[:3], v.shape[-1]))
    check_packed(cu_seqlens, q.shape[0])
    check_shape("bonus", bonus, (q.shape[2], q.shape[3]))
    check_shape("log_input", log_input, tuple(q.shape[:3]))
    if read not in ("after", "before") or normalise not in ("none", "sum", "max"):
        raise ValueError(f"unknown read {read!r} or normalise {normalise!r}")
    if read == "after" and bonus is not None:
        raise ValueError("bonus needs read='before'")
    if normalise != "none" and read == "before":
        raise ValueError("a normalised read needs read='after'")
    if (normalise == "max") != (log_input is not None):
        raise ValueError("log_input goes with normalise='max'")
    return broadcast_decay(log_decay, k)


def _augmented(
    core: Core,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log: Tensor | None,
    memory: Tensor,
    normaliser: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the core with a value channel of ones: (numerator, denominator, memory, normaliser)."""
    wide = torch.cat([v.to(memory.dtype), memory.new_ones(*v.shape[:3], 1)], -1)
    start = torch.cat([memory, normaliser.unsqueeze(-1)], -1)
    out, state = core(q, k, wide, log, start)
    return out[..., :-1], out[..., -1:], state[..., :-1], state[..., -1]


def _parts(state: State | None, kind: type, shape: tuple[int, ...], like: Tensor) -> list[Tensor]:
    """The parts of a normalised state in the compute dtype, zeros where none is given."""
    if state is not None and not isinstance(state, kind):
        raise ValueError(f"initial_state must be a {kind.__name__}")
    shapes = (shape, shape[:3], shape[:2])[: len(kind._fields)]  # type: ignore[attr-defined]
    given = (None,) * len(shapes) if state is None else state
    return [initial(part, size, like) for part, size in zip(given, shapes, strict=True)]


def _sum(
    core: Core,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log: Tensor | None,
    state: State | None,
    shape: tuple[int, ...],
) -> tuple[Tensor, SumState]:
    """Linear attention with its normaliser (arXiv 2006.16236, eq. 12)."""
    memory, normaliser = _parts(state, SumState, shape, q)
    top, bottom, memory, normaliser = _augmented(core, q, k, v, log, memory, normaliser)
    return (top / (bottom + EPSILON)).to(v.dtype), SumState(memory, normaliser)


def _max(
    core: Core,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log: Tensor | None,
    log_input: Tensor,
    state: State | None,
    shape: tuple[int, ...],
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, MaxState]:
    """The mLSTM (arXiv 2405.04517, eq. 19-27): gates relative to their running maximum are <= 1.

    The maximum cancels from the output but for epsilon, so it is a constant to autograd wherever it
    cancels: its gradients would be rounding noise.
    """
    memory, normaliser, maximum = _parts(state, MaxState, shape, q)
    if log is None or log.dim() != 3:
        raise ValueError("normalise='max' needs a decay per head")
    log, log_input = log.to(memory.dtype), log_input.to(memory.dtype)
    top_gate, previous, final = running_maximum(log, log_input, maximum, cu_seqlens)
    fixed = top_gate.detach()
    key = k * (log_input - fixed).exp().unsqueeze(-1)
    relative = log + previous - fixed
    top, bottom, memory, normaliser = _augmented(core, q, key, v, relative, memory, normaliser)
    floor = torch.maximum(bottom.abs(), (-fixed).exp().unsqueeze(-1))
    epsilon = EPSILON * (top_gate - fixed).exp().unsqueeze(-1)
    drift = final.detach() - final
    if cu_seqlens is not None:  # an empty sequence keeps its state, scaled as it came
        drift = drift.masked_fill((cu_seqlens[1:] == cu_seqlens[:-1])[:, None], 0)
    rescale = drift.exp()[..., None]
    state = MaxState(memory * rescale[..., None], normaliser * rescale, final)
    return (top / (floor + epsilon)).to(v.dtype), state
