"""More published mixers as their papers write them, one token at a time; see ``published_mixers``.

``w`` are the weights of one layer by name, ``x`` its inputs ``[T, D]``. Complex states are complex here.
"""

from __future__ import annotations

import torch
from blocks.published_mixers import (
    Weights,
    branch,
    head_norm,
    heads_of,
    rms,
    short_convolution,
    sigmoid,
    silu,
    softplus,
    unit,
    width_norm,
)
from torch import Tensor


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def within(w: Weights, prefix: str) -> Weights:
    """The weights below a name."""
    return {name.removeprefix(prefix): v for name, v in w.items() if name.startswith(prefix)}


def group_norm(read: list[Tensor], w: Weights, eps: float) -> Tensor:
    """A layer norm over each head with a gain (and bias) a channel: ``[T, H·V]``."""
    centred = [head - head.mean(-1, keepdim=True) for head in read]
    normed = [c / torch.sqrt((c * c).mean(-1, keepdim=True) + eps) for c in centred]
    y = torch.cat(normed, -1) * w["norm.weight"]
    return y + w["norm.bias"] if "norm.bias" in w else y


# --- one number a channel ---------------------------------------------------------------------------


def min_lstm(w: Weights, x: Tensor) -> Tensor:
    """minLSTM, arXiv 2410.01201 §3.2.3: gates are divided by their sum."""
    h, rows = x.new_zeros(w["h_x"].shape[0]), []
    for row in x:
        f = sigmoid(w["forget_x"] @ row + w["forget_bias"])
        i = sigmoid(w["input_x"] @ row + w["input_bias"])
        h = f / (f + i) * h + i / (f + i) * (w["h_x"] @ row + w["h_bias"])
        rows.append(h)
    return torch.stack(rows)


def rg_lru(w: Weights, x: Tensor) -> Tensor:
    """Griffin's recurrent block, arXiv 2402.19427 eq. 1-4 and §2.3, ``c = 8``.

    Biases are those of the authors' code. Deviations: ``a = σ(-rate)``, so the sign of the learned
    number is turned; the first token is scaled like every other one, where that code writes it whole.
    """
    cell = within(w, "layers.0.cell.")
    inputs = convolved(x @ w["in.weight"].T + w["in.bias"], w["conv.weight"], w["conv.bias"])
    h, rows = x.new_zeros(inputs.shape[1]), []
    for row in inputs:
        r = sigmoid(torch.block_diag(*cell["r_x"]) @ row + cell["r_bias"])
        i = sigmoid(torch.block_diag(*cell["i_x"]) @ row + cell["i_bias"])
        a = sigmoid(-cell["rate"]) ** (8 * r)
        h = a * h + torch.sqrt(1 - a * a) * (i * row)
        rows.append(h)
    gate = gelu(x @ w["gate.weight"].T + w["gate.bias"])
    return (torch.stack(rows) * gate) @ w["out.weight"].T + w["out.bias"]


def convolved(x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """A causal convolution a channel, the last tap for the token itself, and nothing behind it."""
    rows = []
    for t in range(len(x)):
        reach = [taps[:, -1 - j] * x[t - j] for j in range(taps.shape[1]) if t >= j]
        rows.append(torch.stack(reach).sum(0) + bias)
    return torch.stack(rows)


def gateloop(w: Weights, x: Tensor) -> Tensor:
    """GateLoop, arXiv 2311.01927 eq. 5-7, a state a channel: ``a = σ(|ā|) exp(i arg ā)``.

    Deviation: the size of ``ā`` has 1e-12 under its root.
    """
    h, rows = torch.zeros(x.shape[1], dtype=torch.complex128), []
    for row in x:
        given = torch.complex(w["p_x"] @ row + w["p_bias"], w["q_x"] @ row + w["q_bias"])
        a = torch.polar(sigmoid(given.abs()), given.angle())
        h = a * h + (w["real_x"] @ row) * (w["real1_x"] @ row)
        y = ((w["out2_x"] @ row) * h).real
        rows.append(w["out_0"][0] @ (silu(w["out1_x"] @ row) * y))
    return torch.stack(rows)


def lru(w: Weights, x: Tensor) -> Tensor:
    """LRU, arXiv 2303.06349 eq. 3-7 and §3.4, with the block's GELU and gate; the gate has a bias."""
    eigenvalues = torch.exp(torch.complex(-torch.exp(w["nu"]), torch.exp(w["theta"])))
    gives = torch.complex(w["real_x"], w["w_x"])
    takes = torch.complex(w["y_u"][0], -w["y_w"][0])
    h, rows = torch.zeros(len(eigenvalues), dtype=torch.complex128), []
    for row in x:
        h = eigenvalues * h + torch.exp(w["gamma"]) * (gives @ row.to(gives.dtype))
        y = gelu((takes @ h).real + w["past"] * row)
        rows.append(y * sigmoid(w["out_y"][0] @ y + w["out_bias"]))
    return torch.stack(rows)


def held(w: Weights) -> tuple[Tensor, Tensor]:
    """Zero-order hold: ``exp(ΔA)`` and ``(exp(ΔA) - 1) / A`` of a diagonal complex ``A``."""
    a = torch.complex(-torch.exp(w["rate"]), w["turn"])
    step = torch.exp(w["step"]).reshape(-1, *[1] * (a.dim() - 1))
    kept = torch.exp(step * a)
    return kept, (kept - 1) / a


def s5(w: Weights, x: Tensor) -> Tensor:
    """S5, arXiv 2208.04933 eq. 5-6 and its layer: GELU, then ``y ⊙ σ(W y)``."""
    kept, hold = held({**w, "rate": w["rate"]})
    gives = torch.complex(w["p_x"], w["q_x"])
    takes = torch.complex(w["y_u"][0], -w["y_w"][0])
    h, rows = torch.zeros(len(kept), dtype=torch.complex128), []
    for row in x:
        h = kept * h + hold * (gives @ row.to(gives.dtype))
        y = gelu(2 * (takes @ h).real + w["past"] * row)
        rows.append(y * sigmoid(w["out_y"][0] @ y))
    return torch.stack(rows)


def s4d(w: Weights, x: Tensor) -> Tensor:
    """S4D, arXiv 2206.11893 eq. 2-4, zero-order hold, ``B = 1``: the convolution, not the recurrence."""
    kept, hold = held(w)
    c = torch.complex(w["c"], w["d"])
    kernel = torch.stack([2 * (c * hold * kept**t).sum(-1).real for t in range(len(x))])
    rows = []
    for t, row in enumerate(x):
        y = torch.stack([kernel[j] * x[t - j] for j in range(t + 1)]).sum(0)
        y = gelu(y + w["past"] * row)
        open_ = sigmoid(w["out1_y"] @ y + w["out1_bias"])
        rows.append((w["out_y"] @ y + w["out_bias"]) * open_)
    return torch.stack(rows)


def mamba(w: Weights, x: Tensor) -> Tensor:
    """Mamba, arXiv 2312.00752 algorithm 2 and §3.4: exact decays, Euler steps for the input.

    With gains of norms, Jamba's (arXiv 2403.19887 §6.4): of the narrow step size and of both maps.
    """

    def normed(y: Tensor, name: str) -> Tensor:
        return rms(y, cell[name]) if name in cell else y

    cell = within(w, "layers.0.cell.")
    inputs = short_convolution(x @ w["in.weight"].T, w["conv.weight"], w["conv.bias"])
    h, rows = x.new_zeros(cell["rate"].shape), []
    for row in inputs:
        narrow = normed(cell["step_x_down"] @ row, "step_x_norm")
        step = softplus(cell["step_x"] @ narrow + cell["start"])[:, None]
        b, c = (normed(cell[name] @ row, f"{name}_norm") for name in ("h_x", "y_x"))
        h = torch.exp(step * -torch.exp(cell["rate"])) * h + step * b * row[:, None]
        rows.append(h @ c + cell["past"] * row)
    return (torch.stack(rows) * silu(x @ w["gate.weight"].T)) @ w["out.weight"].T


# --- a matrix a head --------------------------------------------------------------------------------


def decays(w: Weights, x: Tensor, heads: int) -> list[Tensor]:
    """Mamba-2's decay a head, each ``[T]``."""
    step = softplus(x @ w["decay.weight"].T + w["decay_gate.bias"])
    return list(torch.exp(-torch.exp(w["decay_gate.A_log"]) * step).unbind(1))


def deltaproduct(w: Weights, x: Tensor, heads: int, writes: int, beta_max: float = 2.0) -> Tensor:
    """DeltaProduct, arXiv 2502.10297 eq. 4-5: the decay before the first write, the read after the last."""
    q = heads_of(branch(w, x, "query", True), heads)
    k, v = (heads_of(branch(w, x, name, True), heads * writes) for name in ("key", "value"))
    rate = beta_max * sigmoid(x @ w["rate.weight"].T)
    kept = decays(w, x, heads) if "decay.weight" in w else [x.new_ones(len(x))] * heads
    read = []
    for h in range(heads):
        state, rows = x.new_zeros(q[h].shape[1], v[h].shape[1]), []
        for t in range(len(x)):
            state = kept[h][t] * state
            for each in range(h, heads * writes, heads):
                key = unit(k[each][t])
                error = v[each][t] - state.T @ key
                state = state + rate[t, each] * torch.outer(key, error)
            rows.append(q[h].shape[1] ** -0.5 * (state.T @ unit(q[h][t])))
        read.append(torch.stack(rows))
    return (head_norm(read, w["norm.weight"]) * silu(x @ w["gate.weight"].T)) @ w["out.weight"].T


def comba(w: Weights, x: Tensor, heads: int, corrected: bool = True) -> Tensor:
    """Comba, arXiv 2506.02475 eq. 9-11: ``p = σ(d) k`` corrects, ``q - D p`` reads.

    Reading: keys and queries are brought to unit length before ``d`` and ``D`` weigh them.
    """
    q, k, v = (heads_of(branch(w, x, name, True), heads) for name in ("query", "key", "value"))
    rate, kept = sigmoid(x @ w["rate.weight"].T), decays(w, x, heads)
    read = []
    for h in range(heads):
        state, rows = x.new_zeros(q[h].shape[1], v[h].shape[1]), []
        for t in range(len(x)):
            key, query = unit(k[h][t]), unit(q[h][t])
            erase = sigmoid(w["feedback.weight"][h]) * key
            query = query - w["correction.weight"][h] * erase if corrected else query
            state = kept[h][t] * state
            state = state + torch.outer(key, rate[t, h] * (v[h][t] - state.T @ erase))
            rows.append(len(key) ** -0.5 * (state.T @ query))
        read.append(torch.stack(rows))
    gated = head_norm(read, w["norm.weight"]) * sigmoid(x @ w["gate.weight"].T)
    return gated @ w["out.weight"].T


def mlstm(w: Weights, x: Tensor, heads: int) -> Tensor:
    """mLSTM in xLSTM 7B's layer, arXiv 2503.13427 §3: gates capped at 15, a gate behind the norm."""
    q, k, v = (branch(w, x, name) for name in ("query", "key", "value"))
    log_i = 15 * torch.tanh((x @ w["rate.weight"].T + w["rate.bias"]) / 15)
    logits = 15 * torch.tanh((x @ w["decay.weight"].T + w["decay_gate.bias"]) / 15)
    read = exponential_memory(q, k, v, log_i, -softplus(-logits), heads)
    return (group_norm(read, w, 1e-6) * sigmoid(x @ w["gate.weight"].T)) @ w["out.weight"].T


def mlstm_block(w: Weights, x: Tensor, heads: int) -> Tensor:
    """mLSTM in its first block, arXiv 2405.04517 Figure 11: up, convolution, skip, gate, down.

    Queries and keys see the convolution, values do not; input and forget gates see all three.
    """
    u = x @ w["in.weight"].T
    c = short_convolution(u, w["conv.weight"], w["conv.bias"])
    q, k, v = (
        given @ torch.block_diag(*w[f"{name}.weight"]).T
        for name, given in (("query", c), ("key", c), ("value", u))
    )
    seen = torch.cat([q, k, v], -1)
    log_i, logits = (
        seen @ torch.cat([w[f"{gate}_{part}.weight"] for part in ("query", "key", "value")], -1).T
        for gate in ("rate", "decay")
    )
    log_f = -softplus(-(logits + w["decay_gate.bias"]))
    read = exponential_memory(q, k, v, log_i + w["rate_query.bias"], log_f, heads)
    h = group_norm(read, w, 1e-5) + w["skip.weight"] * c
    return (h * silu(x @ w["gate.weight"].T)) @ w["out.weight"].T


def exponential_memory(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, heads: int
) -> list[Tensor]:
    """The mLSTM, arXiv 2405.04517 eq. 19-27, with its stabiliser: what each head reads, ``[T, V]``."""
    read = []
    for h, (query, key, value) in enumerate(
        zip(*(heads_of(part, heads) for part in (q, k, v)), strict=True)
    ):
        size, m, rows = query.shape[1], 0.0, []
        memory, total = q.new_zeros(size, value.shape[1]), q.new_zeros(size)
        for t in range(len(q)):
            top = torch.maximum(log_f[t, h] + m, log_i[t, h])
            f, i = torch.exp(log_f[t, h] + m - top), torch.exp(log_i[t, h] - top)
            memory = f * memory + i * torch.outer(key[t], value[t]) * size**-0.5
            total = f * total + i * key[t] * size**-0.5
            floor = torch.maximum((total @ query[t]).abs(), torch.exp(-top))
            rows.append((memory.T @ query[t]) / (floor + 1e-6))
            m = top
        read.append(torch.stack(rows))
    return read


def lightnet(w: Weights, x: Tensor, heads: int) -> Tensor:
    """LightNet, arXiv 2405.21022 §3: a softmax of each key channel over the prefix, taken directly."""
    q, v = heads_of(silu(branch(w, x, "query")), heads), heads_of(branch(w, x, "value"), heads)
    k, read = heads_of(branch(w, x, "key"), heads), []
    for h in range(heads):
        rows = []
        for t in range(len(x)):
            state = torch.softmax(k[h][: t + 1], 0).T @ v[h][: t + 1]
            rows.append(q[h].shape[1] ** -0.5 * (state.T @ q[h][t]))
        read.append(torch.stack(rows))
    gate = silu(x @ w["gate_down.weight"].T @ w["gate.weight"].T)
    return (width_norm(torch.cat(read, -1), w["norm.weight"]) * gate) @ w["out.weight"].T


# --- RWKV -------------------------------------------------------------------------------------------


def before(x: Tensor) -> Tensor:
    """The token before each, zero before the first."""
    return torch.cat([torch.zeros_like(x[:1]), x[:-1]])


def rwkv6(w: Weights, x: Tensor, heads: int) -> Tensor:
    """RWKV-6, arXiv 2404.05892 eq. 14-20: reads ``S_{t-1} + diag(u) k vᵀ``."""
    change = before(x) - x
    inner = torch.tanh((x + change * w["shift.mix_input"]) @ w["shift.down"].T)
    mixes = [
        mix + part @ up.T
        for mix, part, up in zip(w["shift.mix"], inner.chunk(5, -1), w["shift.up"], strict=True)
    ]
    sees = dict(zip(("query", "decay", "key", "value", "gate"), mixes, strict=True))
    sees = {name: x + change * mix for name, mix in sees.items()}
    q, k, v = (
        heads_of(sees[name] @ w[f"{name}.weight"].T, heads) for name in ("query", "key", "value")
    )
    inner = torch.tanh(sees["decay"] @ w["decay_down.weight"].T)
    logits = inner @ w["decay.weight"].T + w["decay_gate.bias"]
    decay, read = heads_of(torch.exp(-torch.exp(logits)), heads), []
    for h in range(heads):
        state, rows = x.new_zeros(q[h].shape[1], v[h].shape[1]), []
        for t in range(len(x)):
            write = torch.outer(k[h][t], v[h][t])
            rows.append((state + w["memory.bonus"][h][:, None] * write).T @ q[h][t])
            state = decay[h][t][:, None] * state + write
        read.append(torch.stack(rows))
    gated = group_norm(read, w, 64e-5) * silu(sees["gate"] @ w["gate.weight"].T)
    return gated @ w["out.weight"].T


def rwkv7(w: Weights, x: Tensor, heads: int, first: list[Tensor] | None = None) -> Tensor:
    """RWKV-7, arXiv 2503.14456 eq. 3-22. ``first`` takes the first layer's values, and gives them.

    Deviation: the removal key is brought to unit length with 1e-6 under the root.
    """
    change = before(x) - x
    names = ("query", "decay", "key", "value", "rate", "gate")
    sees = {n: x + change * mix for n, mix in zip(names, w["shift.mix"], strict=True)}
    inner = torch.tanh(sees["decay"] @ w["decay_down.weight"].T)
    logits = inner @ w["decay.weight"].T + w["decay_gate.bias"]
    decay = heads_of(torch.exp(-(torch.e**-0.5) * sigmoid(logits)), heads)
    a = sigmoid(sees["rate"] @ w["rate_down.weight"].T @ w["rate.weight"].T + w["rate.bias"])
    q, k, v = (sees[name] @ w[f"{name}.weight"].T for name in ("query", "key", "value"))
    v = residual_values(w, v, sees["value"], first)
    removal = heads_of(k * w["removal.removal"], heads)
    written = heads_of(k * (1 + (a - 1) * w["removal.mix"]), heads)
    q, v, a, read = heads_of(q, heads), heads_of(v, heads), heads_of(a, heads), []
    for h in range(heads):
        state, rows = x.new_zeros(q[h].shape[1], v[h].shape[1]), []
        for t in range(len(x)):
            kappa = unit(removal[h][t])
            transition = torch.diag(decay[h][t]) - torch.outer(a[h][t] * kappa, kappa)
            state = transition @ state + torch.outer(written[h][t], v[h][t])
            rows.append(state.T @ q[h][t])
        read.append(torch.stack(rows))
    bonus = [
        (q[h] * written[h] * w["bonus.weight"][h]).sum(-1, keepdim=True) * v[h]
        for h in range(heads)
    ]
    gate = sigmoid(sees["gate"] @ w["gate_down.weight"].T) @ w["gate.weight"].T
    return ((group_norm(read, w, 64e-5) + torch.cat(bonus, -1)) * gate) @ w["out.weight"].T


def residual_values(w: Weights, v: Tensor, x: Tensor, first: list[Tensor] | None) -> Tensor:
    """The first layer's values, mixed into a later one's."""
    if first is None:
        return v
    if not first:
        first.append(v)
        return v
    logits = x @ w["value_residual.down"].T @ w["value_residual.up"].T + w["value_residual.bias"]
    return v + (first[0] - v) * sigmoid(logits)


def rwkv7_twice(w: Weights, x: Tensor, heads: int) -> Tensor:
    """Two layers, the second of which sees the first one's values."""
    first: list[Tensor] = []
    for layer in range(2):
        x = rwkv7(within(w, f"{layer}.rwkv7."), x, heads, first)
    return x
