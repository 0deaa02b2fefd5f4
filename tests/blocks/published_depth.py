"""Architectures of recurrent depth and of residual streams as their papers write them: plain float64.

Nothing here uses archdsl: a definition takes weights by name and a sequence of tokens ``[T]`` and gives
logits ``[T, V]``. Layers are told apart by the first part of their names; ``part(w, "a")`` is what stands
below ``a``. Mixers within a layer are those of ``published_mixers``.
"""

from __future__ import annotations

import torch
from blocks.published_mixers import attention, rms, short_convolution, sigmoid, silu
from torch import Tensor

Weights = dict[str, Tensor]


def part(w: Weights, prefix: str) -> Weights:
    """The weights below a name."""
    return {name[len(prefix) + 1 :]: x for name, x in w.items() if name.startswith(f"{prefix}.")}


def rms_rows(x: Tensor, gain: Tensor) -> Tensor:
    return torch.stack([rms(row, gain) for row in x])


def layer_norm(x: Tensor, w: Weights) -> Tensor:
    """arXiv 1607.06450 a row, with the biased variance; the bias where there is one."""
    return torch.stack([centred(row) for row in x]) * w["weight"] + w.get("bias", 0.0)


def swiglu(w: Weights, x: Tensor) -> Tensor:
    return (silu(x @ w["gate.weight"].T) * (x @ w["up.weight"].T)) @ w["down.weight"].T


def mlp(w: Weights, x: Tensor) -> Tensor:
    inner = (x @ w["up.weight"].T + w["up.bias"]).clamp(min=0)
    return inner @ w["down.weight"].T + w["down.bias"]


def pre_norm(w: Weights, x: Tensor, base: float = 10_000.0) -> Tensor:
    """One block: attention with RoPE, then SwiGLU, each behind a norm and added."""
    first, second = part(w, "residual"), part(w, "residual_1")
    y = rms_rows(x, first["rms_norm.weight"])
    x = x + attention(part(first, "attention"), y, heads=4, position="rope", base=base)
    return x + swiglu(part(second, "swiglu"), rms_rows(x, second["rms_norm.weight"]))


def head(w: Weights, x: Tensor) -> Tensor:
    """A last norm and the table of the embedding."""
    return rms_rows(x, w["rms_norm.weight"]) @ w["embed.weight"].T


# --- recurrent depth ---------------------------------------------------------------------------------


def wave(place: int, width: int) -> Tensor:
    """Sines of all frequencies, then cosines (the paper interleaves them)."""
    half = width // 2
    angle = torch.tensor([place * 10_000 ** (-i / half) for i in range(half)], dtype=torch.float64)
    return torch.cat([torch.sin(angle), torch.cos(angle)])


def universal_transformer(
    w: Weights, tokens: Tensor, steps: int = 6, combine: str = "lerp"
) -> Tensor:
    """arXiv 1807.03819 with the ACT update of its code, a position at a time; ``mean`` as Graves has it.

    A halted position keeps its state, of which the others still see keys and values. The probability
    is of the state before the signal is added.
    """
    loop = part(w, "loop")
    block = part(loop, "body.0")
    states = w["embed.weight"][tokens]
    length, width = states.shape
    halted, out = [torch.zeros((), dtype=torch.float64)] * length, torch.zeros_like(states)
    for step in range(1, steps + 1):
        signal = torch.stack([wave(t, width) + wave(step, width) for t in range(length)])
        x = states + signal
        a = layer_norm(
            x + attention(part(block, "residual.attention"), x, heads=4), part(block, "layer_norm")
        )
        y = layer_norm(a + mlp(part(block, "residual_1.mlp"), a), part(block, "layer_norm_1"))
        moved, mixed = [], []
        for t in range(length):
            p = sigmoid(loop["halting"] @ states[t] + loop["halting_bias"][0])
            if halted[t] >= 1:
                moved.append(states[t])
                mixed.append(out[t])
                continue
            stops = halted[t] + p > 0.99 or (combine == "mean" and step == steps)
            u = 1 - halted[t] if stops else p
            halted[t] = halted[t] + u
            moved.append(y[t])
            mixed.append(out[t] + u * y[t] if combine == "mean" else u * y[t] + (1 - u) * out[t])
        states, out = torch.stack(moved), torch.stack(mixed)
    return out @ w["embed.weight"].T


def huginn_block(w: Weights, x: Tensor) -> Tensor:
    """The stream itself is normalised behind each residual: ``x ← N(x + f(N x))``."""
    first, second = part(w, "residual"), part(w, "residual_1")
    y = rms_rows(x, first["rms_norm.weight"])
    x = x + attention(part(first, "attention"), y, heads=4, position="rope", base=50_000.0)
    x = rms_rows(x, w["rms_norm.weight"])
    x = x + swiglu(part(second, "swiglu"), rms_rows(x, second["rms_norm.weight"]))
    return rms_rows(x, w["rms_norm_1.weight"])


def huginn(w: Weights, tokens: Tensor, noise: Tensor, steps: int) -> Tensor:
    """arXiv 2502.05171 §3: ``s ← core(A [s; e])`` from given noise, one norm in two places."""
    e = huginn_block(part(w, "stack.0"), 128**0.5 * w["embed.weight"][tokens])
    s = noise
    for _ in range(steps):
        s = torch.cat([s, e], -1) @ w["loop.mix"].T
        for layer in range(2):
            s = huginn_block(part(w, f"loop.body.0.stack.{layer}"), s)
    gain = w["loop_1.body.0.rms_norm.weight"]
    coda = huginn_block(part(w, "loop_1.body.1.stack.0"), rms_rows(s, gain))
    return rms_rows(coda, gain) @ w["embed.weight"].T


def intra_layer_recurrence(w: Weights, tokens: Tensor) -> Tensor:
    """arXiv 2505.01855: the reuse map 4, 2, 1, 1."""
    x = w["embed.weight"][tokens]
    for layer, times in enumerate((4, 2, 1, 1)):
        for _ in range(times):
            x = pre_norm(part(w, f"loop.body.{layer}.stack.0"), x)
    return head(w, x)


def relaxed_recursive(w: Weights, tokens: Tensor) -> Tensor:
    """arXiv 2410.20672: in loop ``b`` every matrix of layer ``l`` is ``W + U_b V_b``."""
    x = w["embed.weight"][tokens]
    for loop in range(2):
        for layer in range(3):
            tied = part(w, f"loop.body.0.stack.{layer}")
            x = pre_norm({**tied, **_relaxed(tied, loop)}, x)
    return head(w, x)


def _relaxed(tied: Weights, loop: int) -> Weights:
    names = [
        name.removesuffix(".up")
        for name, x in tied.items()
        if name.endswith(".up") and x.dim() == 3
    ]
    return {
        f"{name}.weight": tied[f"{name}.weight"]
        + tied[f"{name}.up"][loop] @ tied[f"{name}.down"][loop]
        for name in names
    }


# --- residual streams --------------------------------------------------------------------------------


def hyper_connections(w: Weights, tokens: Tensor, streams: int = 4) -> Tensor:
    """Dynamic hyper-connections, arXiv 2409.19606 eq. 10-13, a token at a time; the streams are summed."""
    h = [torch.stack([w["embed.weight"][token]] * streams) for token in tokens]
    for layer in range(4):
        for name in ("residual", "residual_1"):
            h = _hyper(part(w, f"hyper.layers.0.stack.{layer}.{name}"), h)
    return head(w, torch.stack([row.sum(0) for row in h]))


def _hyper(w: Weights, h: list[Tensor]) -> list[Tensor]:
    c = part(w, "connect")
    inputs, carried, writing = [], [], []
    for row in h:
        normed = torch.stack(
            [(s - s.mean()) / torch.sqrt(((s - s.mean()) ** 2).mean() + 1e-5) for s in row]
        )
        moved = torch.tanh(normed @ c["moving"].T)
        read = c["read"] + c["scale"][0] * moved[:, 0]
        write = c["write"] + c["scale"][1] * moved[:, 1]
        mix = c["carry"] + c["scale"][0] * moved[:, 2:]
        inputs.append(read @ row)
        carried.append(mix.T @ row)
        writing.append(write)
    y = _branch(part(w, "branch.0"), torch.stack(inputs))
    return [c + torch.outer(b, row) for c, b, row in zip(carried, writing, y, strict=True)]


def _branch(w: Weights, x: Tensor) -> Tensor:
    x = rms_rows(x, w["rms_norm.weight"])
    if any(name.startswith("attention") for name in w):
        return attention(part(w, "attention"), x, heads=4, position="rope")
    return swiglu(part(w, "swiglu"), x)


def mhc(w: Weights, tokens: Tensor, streams: int = 4) -> Tensor:
    """arXiv 2512.24880 eq. 6-9, a token at a time; the streams' mean at the end."""
    x = [torch.stack([w["embed.weight"][token]] * streams) for token in tokens]
    for layer in range(4):
        for name in ("residual", "residual_1"):
            x = _manifold(part(w, f"mhc.layers.0.stack.{layer}.{name}"), x, streams)
    return head(w, torch.stack([row.mean(0) for row in x]))


def _manifold(w: Weights, x: list[Tensor], n: int) -> list[Tensor]:
    c = part(w, "connect")
    inputs, carried, writing = [], [], []
    for row in x:
        flat = row.reshape(-1)
        flat = flat / torch.sqrt((flat**2).mean() + 1e-6)
        scale = torch.cat([a.repeat(k) for a, k in zip(c["scale"], (n, n, n * n), strict=True)])
        maps = scale * (c["moving"] @ flat) + c["bias"]
        mixing = torch.exp(maps[2 * n :].reshape(n, n))
        for _ in range(20):
            mixing = mixing / mixing.sum(0)
            mixing = mixing / mixing.sum(1, keepdim=True)
        inputs.append(sigmoid(maps[:n]) @ row)
        carried.append(mixing @ row)
        writing.append(2 * sigmoid(maps[n : 2 * n]))
    y = _branch(part(w, "branch.0"), torch.stack(inputs))
    return [c + torch.outer(b, row) for c, b, row in zip(carried, writing, y, strict=True)]


# --- what stands inside a layer ----------------------------------------------------------------------


def slstm(w: Weights, x: Tensor, heads: int) -> Tensor:
    """xLSTM, arXiv 2405.04517 eq. 8-17, stabilised as §2.2 has it, with sigmoid forget gates.

    All weights have a block a head, whose gates see its own cells of the step before; a layer norm a
    head reads them, with a gain a channel. The normaliser of a memory that nothing was written to is at
    least 1e-6. Where there are taps, input and forget gates see the convolved input (Figure 10).
    """
    cell = part(w, "0.cell")
    seen = dict.fromkeys("zifo", x)
    if "conv.weight" in cell:
        near = short_convolution(x, cell["conv.weight"], cell["conv.bias"])
        seen, cell = seen | {"i": near, "f": near}, part(cell, "core")
    size = x.shape[1] // heads
    h = c = n = m = torch.zeros(x.shape[1], dtype=x.dtype)
    biases = {g: cell[f"{g}x_bias"] for g in "zio"} | {"f": cell["fx1"]}
    rows = []
    for t in range(len(x)):
        raw = {}
        for gate, bias in biases.items():
            blocks = [slice(k * size, (k + 1) * size) for k in range(heads)]
            row = seen[gate][t]
            given = cell.get(f"{gate}x_x", cell.get(f"{gate}x_x_conv"))
            own = [given[k] @ row[b] + cell[f"{gate}_h"][k] @ h[b] for k, b in enumerate(blocks)]
            raw[gate] = torch.cat(own) + bias
        forget = torch.log(sigmoid(raw["f"]))
        peak = torch.maximum(forget + m, raw["i"])
        keep, write = torch.exp(forget + m - peak), torch.exp(raw["i"] - peak)
        c = keep * c + write * torch.tanh(raw["z"])
        n = keep * n + write
        m = peak
        h = sigmoid(raw["o"]) * c / torch.clamp(n, min=1e-6)
        rows.append(torch.cat([centred(one) for one in h.chunk(heads)]))
    return torch.stack(rows) * w["0.layer_norm.weight"]


def centred(row: Tensor) -> Tensor:
    """A layer norm without a gain."""
    moved = row - row.mean()
    return moved / torch.sqrt((moved**2).mean() + 1e-5)
