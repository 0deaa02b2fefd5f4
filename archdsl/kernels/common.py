"""Helpers every recurrence family shares: dtypes, chunk windows, packed sequences, checks.

Letters: B batch, T tokens, H heads, K key width, V value width, C tokens in a chunk, L lanes
(chunks of a window x batch x heads), W width of a gate (1 or K).
"""

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.nn import functional

LANES = 32
"""Chunk matrices processed together: they fill a batched product, and each of a window's many
intermediates (512 KiB at 64 x 64) stays in the second-level cache until it is read."""

TRITON_WIDTH = 256
"""Widest heads of keys the Triton kernels take."""

TRITON_FOUND = importlib.util.find_spec("triton") is not None
"""Whether triton is installed; it is imported when a kernel first runs."""


def compute_dtype(*tensors: Tensor | None) -> torch.dtype:
    """The dtype of states and accumulations: float64 if any input is float64, else float32."""
    for x in tensors:
        if x is not None and x.dtype == torch.float64:
            return torch.float64
    return torch.float32


@dataclass(frozen=True)
class Window:
    """A run of `chunks` consecutive chunks of `chunk` tokens; the last may end early at `stop`."""

    first: int
    chunks: int
    chunk: int
    stop: int

    @property
    def start(self) -> int:
        """The first token."""
        return self.first * self.chunk

    @property
    def missing(self) -> int:
        """Tokens of padding after `stop`."""
        return self.start + self.chunks * self.chunk - self.stop


def windows(length: int, chunk: int, lanes: int) -> list[Window]:
    """Cut `length` tokens into windows of about `LANES` chunk matrices, `lanes` per chunk.

    An empty batch has none.
    """
    count = -(-length // chunk) if lanes else 0
    group = max(1, min(count, LANES // max(lanes, 1)))
    return [
        Window(first, min(group, count - first), chunk, min(length, (first + group) * chunk))
        for first in range(0, count, group)
    ]


def divide(x: Tensor, dim: int, *sizes: int) -> Tensor:
    """A view of `x` with dimension `dim` (>= 0) split into `sizes`, one of which may be -1."""
    return x.view(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


def pieces(x: Tensor, window: Window) -> Tensor:
    """A window of `x` [B, T, H, D] by chunks, [chunks, B, H, C, D]: a view unless it needs padding."""
    piece = x[:, window.start : window.stop]
    if window.missing:
        piece = functional.pad(piece, (0, 0, 0, 0, 0, window.missing))
    return divide(piece, 1, window.chunks, window.chunk).permute(1, 0, 3, 2, 4)


Weight = Tensor | float | None
"""What a copy is multiplied by on the way: [L, C, 1 or D], a number, or nothing."""


def _copy(source: Tensor, weight: Weight, target: Tensor) -> None:
    """Write `source` times `weight` to `target`, [chunks, B, H, C, D] in any strides: one pass."""
    if weight is None:
        target.copy_(source)
    elif isinstance(weight, Tensor):
        torch.mul(source, weight.view(*source.shape[:4], -1), out=target)
    else:
        torch.mul(source, weight, out=target)


def gather(piece: Tensor, dtype: torch.dtype, weight: Weight = None) -> Tensor:
    """Copy `piece` [chunks, B, H, C, D] to a fresh [L, C, D], times `weight`."""
    fresh = torch.empty(piece.shape, dtype=dtype, device=piece.device)
    _copy(piece, weight, fresh)
    return fresh.view(-1, *piece.shape[3:])


def load(x: Tensor, window: Window, dtype: torch.dtype) -> Tensor:
    """Copy a window of `x` [B, T, H, D] to a fresh chunk-major [L, C, D], zeros past the end."""
    return gather(pieces(x, window), dtype)


def store(x: Tensor, window: Window, value: Tensor, weight: Weight = None) -> None:
    """Write `value` [L, C, D] times `weight` into a window of `x` [B, T, H, D], dropping padding."""
    batch, _, heads, width = x.shape
    target = x[:, window.start : window.stop]
    whole = target
    if window.missing:
        whole = x.new_empty((batch, window.chunks * window.chunk, heads, width))
    inside = divide(whole, 1, window.chunks, window.chunk).permute(1, 0, 3, 2, 4)
    _copy(value.view(window.chunks, batch, heads, window.chunk, width), weight, inside)
    if window.missing:
        target.copy_(whole[:, : target.shape[1]])


@dataclass(frozen=True)
class Bucket:
    """Packed sequences of similar length, laid out as one padded batch.

    `rows` [n] are the sequences, `index` [n, T] their token positions, `padding` [n, T] is true
    past their ends.
    """

    rows: Tensor
    index: Tensor
    padding: Tensor

    def gather(self, x: Tensor) -> Tensor:
        """Take [n, T, ...] from packed `x` [1, total, ...]; zero past the end of each sequence."""
        taken = divide(x[0].index_select(0, self.index.flatten()), 0, *self.index.shape)
        shape = self.padding.shape + (1,) * (taken.dim() - 2)
        return taken.masked_fill_(self.padding.view(shape), 0)

    def gather_all(self, inputs: Sequence[Tensor | None]) -> list[Any]:
        """`gather` of every input that is given."""
        return [None if x is None else self.gather(x) for x in inputs]

    def scatter_all(
        self, targets: Sequence[Tensor | None], values: Sequence[Tensor | None]
    ) -> None:
        """`scatter` into every target that takes anything."""
        for target, value in zip(targets, values, strict=True):
            if target is not None and value is not None and target.numel():
                self.scatter(target, value)

    def scatter(self, x: Tensor, value: Tensor) -> None:
        """Write `value` [n, T, ...] back into packed `x` [1, total, ...]."""
        keep = ~self.padding
        x[0].index_copy_(0, self.index[keep], value[keep].to(x.dtype))


def buckets(cu_seqlens: Tensor, chunk: int) -> Iterator[Bucket]:
    """Group packed sequences whose lengths share a power-of-two number of chunks.

    A token of zeros is the identity of every family here (no write, log decay 0), so padding at the
    end of a sequence changes neither outputs nor the final state. Less than half is padding.
    """
    bounds = cu_seqlens.tolist()
    groups: dict[int, list[int]] = {}
    for row, (start, stop) in enumerate(pairwise(bounds)):
        if stop > start:
            key = min(-(-(stop - start) // chunk) - 1, stop - start - 1)
            groups.setdefault(key.bit_length(), []).append(row)
    for rows in groups.values():
        yield _bucket(bounds, rows, cu_seqlens.device)


def _bucket(bounds: Sequence[int], rows: list[int], device: torch.device) -> Bucket:
    starts = torch.tensor([bounds[row] for row in rows], device=device)
    lengths = torch.tensor([bounds[row + 1] - bounds[row] for row in rows], device=device)
    offsets = torch.arange(int(lengths.max()), device=device)
    padding = offsets >= lengths[:, None]
    index = torch.where(padding, starts[:, None], starts[:, None] + offsets)
    return Bucket(torch.tensor(rows, device=device), index, padding)


def sequences(cu_seqlens: Tensor | None, batch: int) -> int:
    """Rows a state has: the batch, or the number of packed sequences."""
    return batch if cu_seqlens is None else cu_seqlens.shape[0] - 1


def check_packed(cu_seqlens: Tensor | None, batch: int) -> None:
    """Refuse boundaries that are not a one-row integer list over a batch of one."""
    if cu_seqlens is None:
        return
    if cu_seqlens.dim() != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError("cu_seqlens must be a one-dimensional int32 or int64 tensor")
    if batch != 1:
        raise ValueError(f"packed sequences need batch 1, found {batch}")


def check_shape(name: str, x: Tensor | None, expected: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape, naming it."""
    if x is not None and x.shape != expected:
        raise ValueError(f"{name} must be {list(expected)}, found {list(x.shape)}")


def initial(state: Tensor | None, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """The given state in the compute dtype, or zeros of `shape`."""
    dtype = compute_dtype(like, state)
    if state is None:
        return torch.zeros(shape, dtype=dtype, device=like.device)
    check_shape("initial_state", state, shape)
    return state.to(dtype)


def broadcast_decay(log_decay: Tensor | None, key: Tensor) -> Tensor | None:
    """Bring a decay to [B, T, H] (constant or per head) or [B, T, H, K] (per channel).

    `log_decay` is None, [H], [B, T, H] or [B, T, H, K]; `key` is [B, T, H, K].
    """
    if log_decay is None:
        return None
    if log_decay.dim() == 1:
        check_shape("log_decay", log_decay, (key.shape[2],))
        return log_decay.expand(key.shape[:3])
    check_shape("log_decay", log_decay, tuple(key.shape[: log_decay.dim()]))
    if log_decay.dim() not in (3, 4):
        raise ValueError("log_decay must have 1, 3 or 4 dimensions")
    return log_decay


def check_chunk(chunk: int) -> int:
    """Refuse a chunk length that is not a power of two."""
    if chunk < 1 or chunk & (chunk - 1):
        raise ValueError(f"chunk must be a power of two, found {chunk}")
    return chunk


Inputs = tuple[Tensor | None, ...]


def by_sequence(
    core: Callable[..., tuple[Tensor, Tensor]],
    inputs: Inputs,
    state: Tensor,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run `core(*inputs, state)` on each packed sequence in turn, or once if unpacked."""
    if cu_seqlens is None:
        return core(*inputs, state)
    outputs, states, bounds = [], [], cu_seqlens.tolist()
    for row, (start, stop) in enumerate(pairwise(bounds)):
        final = state[row : row + 1]
        if stop > start:
            part = [None if x is None else x[:, start:stop] for x in inputs]
            out, final = core(*part, final)
            outputs.append(out)
        states.append(final)
    if not outputs:
        return core(*inputs, state[:1])[0], torch.cat(states)
    return torch.cat(outputs, 1), torch.cat(states)


def segments(cu_seqlens: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """For each of `length` packed tokens: its sequence [T], and whether it is the first there."""
    tokens = torch.arange(length, device=cu_seqlens.device)
    rows = torch.searchsorted(cu_seqlens[1:].contiguous(), tokens, right=True)
    return rows, tokens == cu_seqlens[rows]


def running_maximum(
    log_decay: Tensor, log_input: Tensor, start: Tensor, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`m_t = max(log_decay_t + m_{t-1}, log_input_t)` by doubling, all [B, T, H].

    `start` [B or N, H] is m before the first token. Returns m_t, m_{t-1} (constant to autograd,
    apart from `start`) and the last m of each row.
    """
    length = log_decay.shape[1]
    if not length:
        return log_input, log_input, start
    if cu_seqlens is None:
        head = (torch.arange(length, device=start.device) == 0)[:, None]
        before = start[:, None]
    else:
        rows, first = segments(cu_seqlens, length)
        head, before = first[:, None], start[rows][None]
    level = torch.where(head, torch.maximum(log_input, log_decay + before), log_input)
    top = _double(log_decay.masked_fill(head, -torch.inf), level)
    previous = torch.where(head, before, functional.pad(top.detach()[:, :-1], (0, 0, 1, 0)))
    if cu_seqlens is None:
        return top, previous, top[:, -1]
    last = top[0, (cu_seqlens[1:] - 1).clamp(min=0)]
    empty = (cu_seqlens[1:] == cu_seqlens[:-1])[:, None]
    return top, previous, torch.where(empty, start, last)


def _double(span: Tensor, level: Tensor) -> Tensor:
    """Inclusive scan along dim 1 of (span, level) under (s + s', max(level + s', level'))."""
    shift = 1
    while shift < span.shape[1]:
        carried = torch.maximum(level[:, :-shift] + span[:, shift:], level[:, shift:])
        level = torch.cat([level[:, :shift], carried], 1)
        span = torch.cat([span[:, :shift], span[:, :-shift] + span[:, shift:]], 1)
        shift *= 2
    return level


def decay_factors(log_decay: Tensor | None, key: Tensor, dtype: torch.dtype) -> Tensor:
    """exp(log_decay) in `dtype`, shaped for a state: [B, T, H, 1 or K, 1] for keys [B, T, H, K]."""
    if log_decay is None:
        return torch.ones_like(key[..., :1, None], dtype=dtype)
    factors = log_decay.to(dtype).exp()
    return factors[..., None, None] if log_decay.dim() == 3 else factors[..., None]


def lanes(x: Tensor, memory: Tensor, *sizes: int) -> Tensor:
    """One token's `x` [B, 1, H, ...] as [B H, *sizes], in the dtype of `memory` [B H, K, V]."""
    rows = x.reshape(memory.shape[0], *sizes)
    return rows if rows.dtype == memory.dtype else rows.to(memory.dtype)


def is_step(
    state: object,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    backend: str | None,
) -> TypeGuard[Tensor]:
    """Whether one token meets a `state` that is ready for it: shapes fit, no dtype to change.

    A step takes no longer than reading its state a few times: other checks would be felt.
    """
    if not isinstance(state, Tensor) or cu_seqlens is not None or backend is not None:
        return False
    batch, length, heads, width = q.shape
    value = v.shape[-1]
    return (
        length == 1
        and k.shape == q.shape
        and v.shape == (batch, 1, heads, value)
        and state.shape == (batch, heads, width, value)
        and state.dtype == compute_dtype(q, state)
    )


def decayed(memory: Tensor, log_decay: Tensor | None) -> Tensor:
    """`memory` [B H, K, V] after one token's decay [B, 1, H] or [B, 1, H, K]; itself without one."""
    if log_decay is None:
        return memory
    width = 1 if log_decay.dim() == 3 else log_decay.shape[3]
    return memory * lanes(log_decay, memory, width, 1).exp()


def write_lanes(memory: Tensor, key: Tensor, value: Tensor, fresh: bool) -> Tensor:
    """`memory + key value^T` [B H, K, V]; in place where it is `fresh` and autograd keeps nothing."""
    if fresh and not torch.is_grad_enabled():
        return memory.addcmul_(key, value)
    return torch.addcmul(memory, key, value)


def read_lanes(q: Tensor, memory: Tensor, value: Tensor, scale: float, like: Tensor) -> Tensor:
    """One token's read of `memory` [B H, K, V]: `scale * S^T q` [B, 1, H, V], in the dtype of `like`.

    Nothing but the shape of `value` [B H, 1, V] matters.
    """
    query = lanes(q, memory, 1, q.shape[3])
    if scale == 1:
        out = torch.bmm(query, memory)
    elif torch.is_grad_enabled():
        out = torch.bmm(query * scale, memory)
    else:  # the product's own factor saves a call
        out = torch.baddbmm(value, query, memory, beta=0, alpha=scale)
    out = out.view(q.shape[0], 1, q.shape[2], memory.shape[2])
    return out if out.dtype == like.dtype else out.to(like.dtype)


def in_time(outputs: list[Tensor], like: Tensor) -> Tensor:
    """Outputs of tokens stacked along time, in the dtype of `like` [B, T, ...]; T may be 0."""
    return torch.stack(outputs, 1).to(like.dtype) if outputs else like[:, :0]


def tokens(dtype: torch.dtype, *inputs: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Each token's slices of inputs [B, T, ...], in `dtype`; one backward node for all of them."""
    return zip(*(x.to(dtype).unbind(1) for x in inputs), strict=True)


def triton_refusal(x: Tensor, *others: Tensor | None, width: int = 1, asked: bool = False) -> str:
    """Why the Triton form cannot run on `x` with heads of `width` keys; empty if it can.

    `others` are the tensors whose precision the computation takes on besides. `asked` allows CPU
    tensors under Triton's interpreter (TRITON_INTERPRET=1, set before import).
    """
    given = [y for y in (x, *others) if y is not None]
    if any(y.dtype in (torch.float64, torch.complex128) for y in given):
        return "float64 has no Triton form"
    if width > TRITON_WIDTH:
        return f"the Triton form takes keys of at most {TRITON_WIDTH} channels"
    if not x.is_cuda and not (asked and os.environ.get("TRITON_INTERPRET") == "1"):
        return "Triton needs a CUDA device"
    if not TRITON_FOUND:
        return "triton is not installed"
    if x.is_cuda and torch.cuda.get_device_properties(x.device).major < 8:
        return "the Triton form needs compute capability 8.0"
    return ""


def choose_form(
    length: int,
    device: str,
    packed: bool,
    backend: str | None,
    step: str,
    chunked: str,
    refusal: str = "this family has no Triton form",
) -> tuple[str, str]:
    """The form for `length` tokens and why: `backend` if given, else by `length` for its reason.

    `refusal` is why Triton cannot run, empty if it can.
    """
    if backend is None:
        if length == 1 and not packed:
            return "step", f"one token: {step}"
        if not refusal:
            return "triton", f"{length} tokens on {device}: {chunked}, fused"
        note = f" ({refusal})" if device == "cuda" else ""
        return "chunked", f"{length} tokens on {device}: {chunked}{note}"
    if backend not in ("reference", "chunked", "step", "triton"):
        raise ValueError(f"backend must be reference, chunked, step or triton, found {backend!r}")
    if backend == "triton" and refusal:
        raise ValueError(f"backend 'triton' cannot run: {refusal}")
    if backend == "step" and (packed or length != 1):
        raise ValueError("backend 'step' takes one token of unpacked sequences")
    return backend, "asked for by `backend`"
