"""The published mixers as their papers write them: one token at a time, one head at a time, float64.

Nothing here uses archdsl. A definition takes weights by name and inputs ``[T, D]``; where the layer of
the language differs from the paper on purpose, the docstring says so. In all of them ``k`` and ``q``
have ``K`` channels a head and ``v`` has ``V``; ``S`` is ``[K, V]``, written by ``k vᵀ``, read by ``Sᵀ q``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Weights = dict[str, Tensor]
Definition = Callable[..., Tensor]


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def silu(x: Tensor) -> Tensor:
    return x * sigmoid(x)


def softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(-x.abs())) + x.clamp(min=0)


def rms(x: Tensor, gain: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean() + 1e-6) * gain


def unit(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).sum() + 1e-6)


def short_convolution(x: Tensor, taps: Tensor, bias: Tensor | None = None) -> Tensor:
    """``silu(Σ_j w_j x_{t-j})`` a channel, the last tap for the token itself: ``[T, D]``."""
    rows = []
    for t in range(len(x)):
        row = sum(taps[:, -1 - j] * x[t - j] for j in range(taps.shape[1]) if t >= j)
        rows.append(silu(row if bias is None else row + bias))
    return torch.stack(rows)


def rotate(x: Tensor, position: int, base: float = 10_000.0, share: float = 1.0) -> Tensor:
    """RoPE: channels ``i`` and ``i + D/2`` are one complex number, turned by ``t·base^(-2i/D)``.

    With a ``share`` only so many of the channels are turned, the first ones (``D`` is theirs then).
    """
    if share < 1:
        turned = round(share * len(x))
        return torch.cat([rotate(x[:turned], position, base), x[turned:]])
    half = len(x) // 2
    angle = torch.tensor([position * base ** (-i / half) for i in range(half)], dtype=x.dtype)
    turned = torch.complex(x[:half], x[half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag])


def branch(w: Weights, x: Tensor, name: str, active: bool = False) -> Tensor:
    """A projection and, where the weights have one, its short convolution; else SiLU where ``active``.

    The public layers of the delta family are active without their convolutions, those of GLA are not.
    """
    y = x @ w[f"{name}.weight"].T
    if f"{name}_conv.weight" in w:
        return short_convolution(y, w[f"{name}_conv.weight"], w.get(f"{name}_conv.bias"))
    return silu(y) if active else y


def heads_of(x: Tensor, heads: int) -> list[Tensor]:
    """``[T, H·D]`` → a ``[T, D]`` a head."""
    return list(x.chunk(heads, -1))


def shared_heads(x: Tensor, groups: int, heads: int) -> list[Tensor]:
    """``[T, G·D]`` → a ``[T, D]`` a head; heads that follow one another share a group's."""
    return [group for group in heads_of(x, groups) for _ in range(heads // groups)]


def memory(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor | None, scale: float, rate: Tensor | None = None
) -> Tensor:
    """What one head reads, ``[T, V]``; decay ``[T, K]`` or ``[T, 1]``, rate ``[T]`` the delta rule's."""
    state = q.new_zeros(q.shape[1], v.shape[1])
    read = []
    for t in range(len(q)):
        if decay is not None:
            state = decay[t][:, None] * state
        error = v[t] if rate is None else rate[t] * (v[t] - state.T @ k[t])
        state = state + torch.outer(k[t], error)
        read.append(scale * (state.T @ q[t]))
    return torch.stack(read)


def head_norm(read: list[Tensor], gain: Tensor) -> Tensor:
    """An RMS norm over each head, its gain shared by the heads: ``[T, H·V]``."""
    return torch.cat([torch.stack([rms(row, gain) for row in head]) for head in read], -1)


def width_norm(x: Tensor, gain: Tensor) -> Tensor:
    """An RMS norm over all channels."""
    return torch.stack([rms(row, gain) for row in x])


def gla(w: Weights, x: Tensor, heads: int) -> Tensor:
    """GLA, arXiv 2312.06635 eq. 4-6: ``α = σ(W₂ W₁ x + b)^(1/16)`` a key channel."""
    q, k, v = (heads_of(branch(w, x, name), heads) for name in ("query", "key", "value"))
    logits = x @ w["decay_down.weight"].T @ w["decay.weight"].T + w["decay.bias"]
    decay = heads_of(sigmoid(logits) ** (1 / 16), heads)
    scale = q[0].shape[1] ** -0.5
    read = [memory(q[h], k[h], v[h], decay[h], scale) for h in range(heads)]
    gated = head_norm(read, w["norm.weight"]) * silu(x @ w["gate.weight"].T)
    return gated @ w["out.weight"].T


def retnet(w: Weights, x: Tensor, heads: int) -> Tensor:
    """RetNet, arXiv 2307.08621 eq. 5-8, with ``γ_h = 1 - 2^(-5-h)``.

    Deviations: queries and keys are turned by plain RoPE, where the paper's xPos also scales them; the
    norm a head is RMS with a learned gain, where the paper's GroupNorm centres and has none (the public
    implementations have ours).
    """
    q, k, v = (heads_of(branch(w, x, name), heads) for name in ("query", "key", "value"))
    read = []
    for h in range(heads):
        turned_q, turned_k = (
            torch.stack([rotate(row, t) for t, row in enumerate(part[h])]) for part in (q, k)
        )
        decay = torch.full((len(x), 1), 1 - 2.0 ** (-5 - h), dtype=x.dtype)
        read.append(memory(turned_q, turned_k, v[h], decay, q[h].shape[1] ** -0.5))
    gated = head_norm(read, w["norm.weight"]) * silu(x @ w["gate.weight"].T)
    return gated @ w["out.weight"].T


def mamba2(w: Weights, x: Tensor, heads: int, groups: int = 1) -> Tensor:
    """Mamba-2, arXiv 2405.21060 §7: ``C, B, x`` are our query, key and value, ``Δ`` the step size.

    Heads of a group share ``C`` and ``B`` and are normalised together. Deviation: the norm's epsilon is
    1e-6, not 1e-5.
    """
    c, b = (shared_heads(branch(w, x, name), groups, heads) for name in ("query", "key"))
    values = heads_of(branch(w, x, "value"), heads)
    step = softplus(x @ w["decay.weight"].T + w["decay_gate.bias"])
    decay = torch.exp(-torch.exp(w["decay_gate.A_log"]) * step)
    read = []
    for h in range(heads):
        written = step[:, h : h + 1] * values[h]
        y = memory(c[h], b[h], written, decay[:, h : h + 1], 1.0)
        read.append(y + w["skip.weight"][h] * values[h])
    gated = (torch.cat(read, -1) * silu(x @ w["gate.weight"].T)).chunk(groups, -1)
    gains = w["norm.weight"].chunk(groups)
    y = torch.cat([width_norm(part, gain) for part, gain in zip(gated, gains, strict=True)], -1)
    return y @ w["out.weight"].T


def hgrn(w: Weights, x: Tensor, lower: float = 0.0) -> Tensor:
    """HGRN, arXiv 2311.04823, its real form as published in code: ``h = f h + (1 - f) silu(W x)``.

    Deviations: the lower bound of the forget gate is learned for each layer apart, where the paper
    shares a softmax out over the layers and sums it up the depth; no complex phase.
    """
    lower = sigmoid(w["decay_gate.bound"]) if "decay_gate.bound" in w else lower
    forget = lower + (1 - lower) * sigmoid(x @ w["decay.weight"].T)
    inputs = silu(branch(w, x, "value")) * (1 - forget)
    state, rows = x.new_zeros(inputs.shape[1]), []
    for t in range(len(x)):
        state = forget[t] * state + inputs[t]
        rows.append(state)
    gated = width_norm(torch.stack(rows), w["norm.weight"]) * silu(x @ w["gate.weight"].T)
    return gated @ w["out.weight"].T


def hgrn2(w: Weights, x: Tensor, heads: int, lower: float = 0.0) -> Tensor:
    """HGRN2, arXiv 2404.07904 eq. 5-7: keys are ``1 - f``.

    Deviations: the lower bound as in ``hgrn``; what is read is scaled by ``K^(-1/2)``, as the public
    kernels do, which the norm behind takes out again up to its epsilon.
    """
    q, v = heads_of(silu(branch(w, x, "query")), heads), heads_of(branch(w, x, "value"), heads)
    lower = sigmoid(w["decay_gate.bound"]) if "decay_gate.bound" in w else lower
    forget = heads_of(lower + (1 - lower) * sigmoid(x @ w["decay.weight"].T), heads)
    scale = q[0].shape[1] ** -0.5
    read = [memory(q[h], 1 - forget[h], v[h], forget[h], scale) for h in range(heads)]
    return width_norm(torch.cat(read, -1), w["norm.weight"]) @ w["out.weight"].T


def linear_attention(w: Weights, x: Tensor, heads: int) -> Tensor:
    """Linear attention, arXiv 2006.16236 eq. 9-12, with ``φ = elu + 1``.

    Deviation: sums and normaliser are both scaled by ``K^(-1/2)``, so the denominator's 1e-6 weighs
    ``√K`` times what it does in the paper's code.
    """

    def feature(x: Tensor) -> Tensor:
        return torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0)))

    q, k = (heads_of(feature(branch(w, x, name)), heads) for name in ("query", "key"))
    v = heads_of(branch(w, x, "value"), heads)
    scale, read = q[0].shape[1] ** -0.5, []
    for h in range(heads):
        top = memory(q[h], k[h], v[h], None, scale)
        bottom = memory(q[h], k[h], torch.ones_like(v[h][:, :1]), None, scale)
        read.append(top / (bottom + 1e-6))
    return torch.cat(read, -1) @ w["out.weight"].T


def deltanet(w: Weights, x: Tensor, heads: int, beta_max: float = 1.0) -> Tensor:
    """DeltaNet, arXiv 2406.06484 eq. 5; ``beta_max = 2`` is arXiv 2411.12537."""
    return delta(w, x, heads, None, beta_max) @ w["out.weight"].T


def gated_deltanet(
    w: Weights, x: Tensor, heads: int, beta_max: float = 1.0, key_heads: int | None = None
) -> Tensor:
    """Gated DeltaNet, arXiv 2412.06464 eq. 10, with Mamba-2's decay; Qwen3-Next's shares keys."""
    step = softplus(x @ w["decay.weight"].T + w["decay_gate.bias"])
    decay = heads_of(torch.exp(-torch.exp(w["decay_gate.A_log"]) * step), heads)
    gate = silu(x @ w["gate.weight"].T)
    return (delta(w, x, heads, decay, beta_max, key_heads) * gate) @ w["out.weight"].T


def kda(w: Weights, x: Tensor, heads: int, beta_max: float = 1.0) -> Tensor:
    """Kimi Delta Attention, arXiv 2510.26692 eq. 1: a decay a key channel, one rate ``A`` a head."""
    logits = x @ w["decay_down.weight"].T @ w["decay.weight"].T + w["decay_gate.bias"]
    rates = torch.exp(w["decay_gate.A_log"])
    decay = [
        torch.exp(-rate * part)
        for rate, part in zip(rates, heads_of(softplus(logits), heads), strict=True)
    ]
    gate = sigmoid(x @ w["gate_down.weight"].T @ w["gate.weight"].T + w.get("gate.bias", 0.0))
    return (delta(w, x, heads, decay, beta_max) * gate) @ w["out.weight"].T


def delta(
    w: Weights,
    x: Tensor,
    heads: int,
    decay: list[Tensor] | None,
    beta_max: float,
    key_heads: int | None = None,
) -> Tensor:
    """The delta rule on unit queries and keys, behind a norm a head: ``[T, H·V]``."""
    q, k = (
        shared_heads(branch(w, x, n, True), key_heads or heads, heads) for n in ("query", "key")
    )
    v = heads_of(branch(w, x, "value", True), heads)
    rate = beta_max * sigmoid(x @ w["rate.weight"].T)
    read = []
    for h in range(heads):
        unit_q, unit_k = (torch.stack([unit(row) for row in part[h]]) for part in (q, k))
        kept = None if decay is None else decay[h]
        read.append(memory(unit_q, unit_k, v[h], kept, q[h].shape[1] ** -0.5, rate[:, h]))
    return head_norm(read, w["norm.weight"])


def alibi_slopes(heads: int) -> list[float]:
    """arXiv 2108.12409: ``2^(-8/H), 2^(-16/H), …``; other than powers of two as in the paper's code."""
    if math.log2(heads).is_integer():
        return [2 ** (-8 * (h + 1) / heads) for h in range(heads)]
    closest = 2 ** math.floor(math.log2(heads))
    return alibi_slopes(closest) + alibi_slopes(2 * closest)[0::2][: heads - closest]


def attention(
    w: Weights,
    x: Tensor,
    heads: int,
    kv_heads: int | None = None,
    position: str = "none",
    base: float = 10_000.0,
    window: int | None = None,
    causal: bool = True,
    qk_norm: bool = False,
    rotary: float = 1.0,
) -> Tensor:
    """Softmax attention, arXiv 1706.03762 eq. 1, one query and one key at a time.

    With weights of a ``gate``, ``out(a ⊙ σ(W_g x))`` (arXiv 2505.06708 §2.2).
    """
    groups = kv_heads or heads

    def projected(name: str, count: int) -> list[Tensor]:
        y = x @ w[f"{name}.weight"].T
        return heads_of(y + w[f"{name}.bias"] if f"{name}.bias" in w else y, count)

    q, k, v = projected("query", heads), projected("key", groups), projected("value", groups)

    def placed(row: Tensor, t: int, gain: str) -> Tensor:
        row = rms(row, w[gain]) if qk_norm else row
        return rotate(row, t, base, rotary) if position == "rope" else row

    columns = []
    for h in range(heads):
        g = h // (heads // groups)
        rows = []
        for t in range(len(x)):
            seen = [
                j
                for j in range(len(x))
                if (j <= t or not causal) and (window is None or abs(t - j) < window)
            ]
            query = placed(q[h][t], t, "core.query_norm")
            scores = [
                query @ placed(k[g][j], j, "core.key_norm") / math.sqrt(len(query)) for j in seen
            ]
            if position == "alibi":
                slope = alibi_slopes(heads)[h]
                scores = [s - slope * abs(t - j) for s, j in zip(scores, seen, strict=True)]
            weights = torch.exp(torch.stack(scores) - max(scores))
            rows.append(
                sum(p * v[g][j] for p, j in zip(weights, seen, strict=True)) / weights.sum()
            )
        columns.append(torch.stack(rows))
    y = torch.cat(columns, -1)
    y = y * sigmoid(x @ w["gate.weight"].T) if "gate.weight" in w else y
    y = y @ w["out.weight"].T
    return y + w["out.bias"] if "out.bias" in w else y


def latent_attention(
    w: Weights,
    x: Tensor,
    heads: int,
    sizes: tuple[int, int, int],
    base: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Multi-head latent attention, arXiv 2405.04434 eq. 9-19, every key and value made.

    ``sizes`` are a head's own channels, those of the key that all heads share, and a value's. Without a
    ``base`` nothing is turned (Kimi Linear's).
    """
    own, shared, value_dim = sizes
    inner = x
    if "query_down.weight" in w:
        inner = width_norm(x @ w["query_down.weight"].T, w["query_norm.weight"])
    queries = heads_of(inner @ w["query.weight"].T, heads)
    compressed = x @ w["latent.weight"].T
    latent = width_norm(compressed[:, :-shared], w["core.norm"])

    def placed(row: Tensor, t: int) -> Tensor:
        return row if base is None else rotate(row, t, base)

    columns = []
    for h in range(heads):
        keys = latent @ w["core.key"][h * own : (h + 1) * own].T
        values = latent @ w["core.value"][h * value_dim : (h + 1) * value_dim].T
        rows = []
        for t in range(len(x)):
            query = torch.cat([queries[h][t, :own], placed(queries[h][t, own:], t)])
            seen = range(0 if window is None else max(0, t - window + 1), t + 1)
            scores = torch.stack(
                [query @ torch.cat([keys[j], placed(compressed[j, -shared:], j)]) for j in seen]
            ) / math.sqrt(own + shared)
            weights = torch.exp(scores - scores.max())
            rows.append(
                sum(p * values[j] for p, j in zip(weights, seen, strict=True)) / weights.sum()
            )
        columns.append(torch.stack(rows))
    return torch.cat(columns, -1) @ w["out.weight"].T
