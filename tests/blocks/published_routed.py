"""Mixtures as their papers write them: one token, one memory or expert at a time, in float64.

Nothing here uses archdsl. A mixer is three functions: what a memory is given for each token ``[T, …]``
(from the memory's own projections), one step of one memory, and what stands behind all memories.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from blocks.published_mixers import (
    Weights,
    branch,
    rms,
    sigmoid,
    silu,
    softplus,
    unit,
    width_norm,
)
from torch import Tensor


@dataclass(frozen=True)
class Plain:
    """A mixer whose memory can be one of several.

    Args:
        writes: weights and inputs ``[T, D]`` → what a step takes, each with a row a token.
        step: weights, state (``None`` before the first), a row of each → state, what is read.
        finish: weights, inputs ``[T, D]``, what was read from all memories ``[T, W]`` → outputs.
        idle: a state and a row of each of a token that went elsewhere → the state, where it decays.
    """

    writes: Callable[[Weights, Tensor], list[Tensor]]
    step: Callable[..., tuple[Tensor, Tensor]]
    finish: Callable[[Weights, Tensor, Tensor], Tensor]
    idle: Callable[..., Tensor] | None = None


def split(w: Weights, x: Tensor) -> Tensor:
    """``[…, H·D]`` → ``[…, H, D]``."""
    if "decay_gate.A_log" in w:
        return x.reshape(*x.shape[:-1], len(w["decay_gate.A_log"]), -1)
    return x.reshape(*x.shape[:-1], w["out.weight"].shape[1] // len(w["norm.weight"]), -1)


def matrix_step(
    w: Weights, state: Tensor | None, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, *rate: Tensor
) -> tuple[Tensor, Tensor]:
    """One write of ``[H, K]`` keys and ``[H, V]`` values, decayed ``[H, K]``; Hebbian without a rate."""
    state = q.new_zeros(*k.shape, v.shape[1]) if state is None else state
    state = decay[..., None] * state
    if rate:
        v = rate[0][:, None] * (v - torch.einsum("hkv,hk->hv", state, k))
    state = state + torch.einsum("hk,hv->hkv", k, v)
    return state, torch.einsum("hkv,hk->hv", state, q).flatten() * q.shape[1] ** -0.5


def matrix_idle(
    w: Weights, state: Tensor, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, *_: Tensor
) -> Tensor:
    return decay[..., None] * state


def head_normed(w: Weights, x: Tensor, read: Tensor) -> Tensor:
    """A norm a head, a gate, a projection."""
    rows = torch.stack(
        [torch.cat([rms(h, w["norm.weight"]) for h in split(w, row)]) for row in read]
    )
    return (rows * silu(x @ w["gate.weight"].T)) @ w["out.weight"].T


def gla_writes(w: Weights, x: Tensor) -> list[Tensor]:
    logits = x @ w["decay_down.weight"].T @ w["decay.weight"].T + w["decay.bias"]
    decay = sigmoid(logits) ** (1 / 16)
    return [split(w, y) for y in (*(branch(w, x, n) for n in ("query", "key", "value")), decay)]


def delta_writes(w: Weights, x: Tensor) -> list[Tensor]:
    q, k, v = (split(w, branch(w, x, name)) for name in ("query", "key", "value"))
    step = softplus(x @ w["decay.weight"].T + w["decay_gate.bias"])
    decay = torch.exp(-torch.exp(w["decay_gate.A_log"]) * step)[..., None].expand(k.shape)
    q, k = (torch.stack([torch.stack([unit(h) for h in row]) for row in y]) for y in (q, k))
    return [q, k, v, decay, sigmoid(x @ w["rate.weight"].T)]


def mamba2_writes(w: Weights, x: Tensor) -> list[Tensor]:
    heads = len(w["skip.weight"])
    c, b = (branch(w, x, n)[:, None].expand(-1, heads, -1) for n in ("query", "key"))
    step = softplus(x @ w["decay.weight"].T + w["decay_gate.bias"])
    decay = torch.exp(-torch.exp(w["decay_gate.A_log"]) * step)[..., None].expand(b.shape)
    return [c * c.shape[-1] ** 0.5, b, split(w, branch(w, x, "value")), decay, step]


def mamba2_step(
    w: Weights, state: Tensor | None, c: Tensor, b: Tensor, v: Tensor, decay: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    state, y = matrix_step(w, state, c, b, step[:, None] * v, decay)
    return state, y + (w["skip.weight"][:, None] * v).flatten()


def mamba2_finish(w: Weights, x: Tensor, read: Tensor) -> Tensor:
    gated = read * silu(x @ w["gate.weight"].T)
    return width_norm(gated, w["norm.weight"]) @ w["out.weight"].T


def hgrn_writes(w: Weights, x: Tensor) -> list[Tensor]:
    lower = sigmoid(w["decay_gate.bound"])
    forget = lower + (1 - lower) * sigmoid(x @ w["decay.weight"].T)
    return [forget, silu(branch(w, x, "value")) * (1 - forget)]


def hgrn_step(
    w: Weights, state: Tensor | None, forget: Tensor, given: Tensor
) -> tuple[Tensor, Tensor]:
    state = given if state is None else forget * state + given
    return state, state


def hgrn_finish(w: Weights, x: Tensor, read: Tensor) -> Tensor:
    gated = width_norm(read, w["norm.weight"]) * silu(x @ w["gate.weight"].T)
    return gated @ w["out.weight"].T


def min_gru_step(w: Weights, state: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    state = torch.zeros_like(x) if state is None else state
    z = sigmoid(w["z_x"] @ x + w["z_bias"])
    state = (1 - z) * state + z * (w["h_x"] @ x + w["h_bias"])
    return state, state


def gru_step(w: Weights, state: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.zeros_like(x) if state is None else state
    wide = {name: torch.block_diag(*w[name]) for name in ("z_h", "r_h", "c1_h")}
    z = sigmoid(w["z_x"] @ x + wide["z_h"] @ h + w["z_bias"])
    r = sigmoid(w["r_x"] @ x + wide["r_h"] @ h + w["r_bias"])
    c = torch.tanh(w["c_x"] @ x + w["c_bias"] + r * (wide["c1_h"] @ h + w["c1_bias"]))
    h = z * h + (1 - z) * c
    return h, h


def as_read(w: Weights, x: Tensor, read: Tensor) -> Tensor:
    return read


MIXERS = {
    "gla(heads = 2, rank = 3)": Plain(gla_writes, matrix_step, head_normed, matrix_idle),
    "gla(heads = 2, rank = 3, conv = 3)": Plain(gla_writes, matrix_step, head_normed, matrix_idle),
    "mamba2(heads = 2, state = 5)": Plain(mamba2_writes, mamba2_step, mamba2_finish),
    "gated_deltanet(heads = 2, expand_k = 1)": Plain(
        delta_writes, matrix_step, head_normed, matrix_idle
    ),
    "hgrn": Plain(
        hgrn_writes, hgrn_step, hgrn_finish, lambda w, state, forget, given: forget * state
    ),
    "min_gru": Plain(lambda w, x: [x], min_gru_step, as_read),
    "gru": Plain(lambda w, x: [x], gru_step, as_read),
}


def of_copy(w: Weights, copy: int, copies: int) -> Weights:
    """The weights of one memory or expert: its own where the matrix has a slice for each."""
    own = {
        name.rpartition(".")[0]
        for name, value in w.items()
        if name.endswith(".weight") and value.dim() == 3 and len(value) == copies
    }
    return {n: v[copy] if n.rpartition(".")[0] in own else v for n, v in w.items()}


def chosen(logits: Tensor, top: int, weights: str = "renormalised") -> dict[int, Tensor]:
    """The copies one token goes to, each with its weight."""
    sizes = logits.tolist()
    best = sorted(range(len(logits)), key=lambda e: -sizes[e])[:top]
    kept = logits[best] if weights == "renormalised" else logits
    exponent = torch.exp(kept - kept.max())
    share = exponent / exponent.sum()
    places = range(top) if weights == "renormalised" else best
    return {e: share[place] for e, place in zip(best, places, strict=True)}


def memories(
    w: Weights,
    x: Tensor,
    plain: Plain,
    top: int,
    shared: bool,
    *,
    neighbours: str = "text",
    idle: str = "keep",
    weights: str = "renormalised",
    capacity: float | None = None,
    logits: Tensor | None = None,
) -> Tensor:
    """Mixture of memories, arXiv 2502.13685 §3: ``[T, D]`` → ``[T, D']``.

    Only the chosen memories of a token are written; what is read from them is summed with the router's
    weights, and what the shared memory gives is added.
    """
    router = w["router.weight"]
    count = len(router)
    logits = x @ router.T if logits is None else logits
    inner = {n.split(".", 2)[2]: v for n, v in w.items() if n.startswith("memories.")}
    goes = [chosen(row, top, weights) for row in logits]
    if capacity is not None:
        goes = within(goes, capacity * top / count)
    if shared:
        goes = [{**places, count: x.new_ones(())} for places in goes]
    total: list[Tensor | float] = [0.0] * len(x)
    for e in range(count + shared):
        own = of_copy(inner, e, count + shared)
        taken = [t for t, places in enumerate(goes) if e in places]
        seen = x[taken] if neighbours == "routed" else x
        writes = plain.writes(own, seen) if len(seen) else []
        state = None
        for t in range(len(x)):
            place = taken.index(t) if neighbours == "routed" and t in taken else t
            if t in taken:
                state, read = plain.step(own, state, *(part[place] for part in writes))
                total[t] = total[t] + goes[t][e] * read
            elif idle == "decay" and state is not None:
                assert plain.idle is not None
                state = plain.idle(own, state, *(part[place] for part in writes))
    width = next(len(row) for row in total if isinstance(row, Tensor))
    rows = [row if isinstance(row, Tensor) else x.new_zeros(width) for row in total]
    return plain.finish(inner, x, torch.stack(rows))


def within(goes: list[dict[int, Tensor]], share: float) -> list[dict[int, Tensor]]:
    """Without what is above a capacity: earlier tokens that asked are fewer than a share of all."""
    asked: dict[int, int] = {}
    kept = []
    for t, places in enumerate(goes):
        kept.append({e: p for e, p in places.items() if asked.get(e, 0) < (t + 1) * share})
        for e in places:
            asked[e] = asked.get(e, 0) + 1
    return kept


def swiglu(w: Weights, x: Tensor) -> Tensor:
    return w["down.weight"] @ (silu(w["gate.weight"] @ x) * (w["up.weight"] @ x))


def scored(
    logits: Tensor, bias: Tensor, top: int, weights: str = "renormalised", scale: float = 1.0
) -> dict[int, Tensor]:
    """The experts one token goes to by DeepSeek-V3's router, arXiv 2412.19437 eq. 13-16.

    The bias says who is chosen, and is in no weight.
    """
    score = sigmoid(logits)
    wanted = (score + bias).tolist()
    best = sorted(range(len(score)), key=lambda e: -wanted[e])[:top]
    total = torch.stack([score[e] for e in best]).sum() if weights == "renormalised" else 1.0
    return {e: scale * score[e] / total for e in best}


def experts(
    w: Weights,
    x: Tensor,
    top: int,
    shared: int,
    logits: Tensor | None = None,
    weights: str = "renormalised",
    score: str = "softmax",
    scale: float = 1.0,
    shared_gate: bool = False,
) -> Tensor:
    """A mixture of SwiGLU experts, arXiv 2401.06066 eq. 3-5 (one token at a time): ``[T, D]``.

    With ``shared_gate`` the last rows of the router are those of the shared experts' gates.
    """
    inner = {n.split(".", 2)[2]: v for n, v in w.items() if n.count(".") > 1}
    logits = x @ w["router.weight"].T if logits is None else logits
    count = logits.shape[1] - shared * shared_gate
    bias = w.get("experts.balance_bias", x.new_zeros(count))
    rows = []
    for t in range(len(x)):
        row, gates = logits[t, :count], logits[t, count:]
        if score == "sigmoid":
            goes = scored(row, bias, top, weights, scale)
        else:
            goes = {e: scale * p for e, p in chosen(row, top, weights).items()}
        opened = sigmoid(gates) if shared_gate else x.new_ones(shared)
        goes |= {count + e: opened[e] for e in range(shared)}
        parts = [p * swiglu(of_copy(inner, e, count + shared), x[t]) for e, p in goes.items()]
        rows.append(torch.stack(parts).sum(0))
    return torch.stack(rows)


def gru_cell(w: Weights, x: Tensor, h: Tensor) -> Tensor:
    """arXiv 2408.06793 eq. 4-7, one token ``[p]``; gates in the order reset, update, candidate."""
    (rx, zx, nx), (rh, zh, nh) = (
        (w[f"{part}"] @ y + w[f"{part}_bias"]).chunk(3) for part, y in (("input", x), ("state", h))
    )
    z = sigmoid(zx + zh)
    return (1 - z) * torch.tanh(nx + sigmoid(rx + rh) * nh) + z * h


def balance(logits: Tensor, top: int) -> Tensor:
    """Switch's load-balancing loss, arXiv 2101.03961 eq. 4-6: 1 where all are used alike."""
    count = logits.shape[-1]
    rows = logits.reshape(-1, count)
    places = torch.zeros(count, dtype=logits.dtype)
    for row in rows:
        for e in chosen(row, top):
            places[e] += 1 / (top * len(rows))
    return count * (places * torch.softmax(rows, -1).mean(0)).sum()
