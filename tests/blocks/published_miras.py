"""Memories that learn, as their papers write them: a token at a time, a head at a time, by autograd.

Each takes the weights of one layer by their names in ``state_dict`` and a sequence ``x [T, D]``. A chunk
is the papers' own: the gradients of its tokens are taken at the weights it started with, and every token
reads behind its own write. Readings of what a paper leaves open are those the components state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import comb, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
Memory = tuple[Tensor, ...]


# --- around a memory --------------------------------------------------------------------------------


def convolved(w: Weights, name: str, x: Tensor) -> Tensor:
    """A projection, and where there is one a causal convolution with SiLU."""
    y = x @ w[f"{name}.weight"].T
    taps = w.get(f"{name}_conv.weight")
    if taps is None:
        return y
    reach = taps.shape[1]
    padded = F.pad(y, (0, 0, reach - 1, 0))
    return F.silu(sum(padded[i : i + len(y)] * taps[:, i] for i in range(reach)))


def apart(x: Tensor, heads: int) -> Tensor:
    return x.reshape(len(x), heads, -1)


def unit(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def turned(x: Tensor, period: int | None) -> Tensor:
    """RoPE on ``[T, H, D]``."""
    half = x.shape[-1] // 2
    place = torch.arange(len(x), dtype=x.dtype)
    place = place if period is None else place % period
    angle = place[:, None] * 10000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    cosine, sine = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine], -1)


def resting(w: Weights, h: int) -> tuple[Memory, Memory]:
    """A head's memory before the first token, and no momentum."""
    memory = starts(w, h)
    return memory, tuple(torch.zeros_like(a) for a in memory)


def all_heads(read: Callable[[int], Iterator[Tensor]], heads: int) -> Tensor:
    """What every head's memory is read as, token by token: ``[T, H, V]``."""
    return torch.stack([torch.stack(list(read(h))) for h in range(heads)], 1)


def finish(w: Weights, read: Tensor, x: Tensor, gate: Callable[[Tensor], Tensor]) -> Tensor:
    """RMS norm of each head, gate, projection; read ``[T, H, V]``."""
    y = read / torch.sqrt((read * read).mean(-1, keepdim=True) + 1e-6) * w["norm.weight"]
    return (y.flatten(1) * gate(x @ w["gate.weight"].T)) @ w["out.weight"].T


def gradient(loss: Callable[[Memory], Tensor], memory: Memory) -> Memory:
    """Of the inner loss, by what it is given alone; differentiable again."""
    with torch.enable_grad():
        probed = tuple(probe(m) for m in memory)
        return torch.autograd.grad(loss(probed), probed, create_graph=True)


def probe(m: Tensor) -> Tensor:
    """A twin, so that a derivative by it leaves out whatever else the memory has a part in."""
    return m.clone() if m.requires_grad else m.detach().requires_grad_()


def starts(w: Weights, head: int) -> Memory:
    names = sorted(name for name in w if name.startswith("memory.start_"))
    return tuple(w[name][head] for name in names)


def plain_mlp(m: Memory, x: Tensor) -> Tensor:
    """``W₂ gelu(W₁ x)``."""
    return m[1] @ F.gelu(m[0] @ x)


def layer_norm(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    centred = x - x.mean()
    return centred / torch.sqrt((centred * centred).mean() + 1e-6) * gain + offset


def squared(p: Tensor, v: Tensor) -> Tensor:
    return ((p - v) ** 2).sum() / 2


# --- TTT --------------------------------------------------------------------------------------------


def ttt(w: Weights, x: Tensor, heads: int, chunk: int, rate: float) -> Tensor:
    """arXiv 2407.04620 §2: ``f(x) = x + LN(W x + b)``, or two layers with GELU between."""
    q, k, v = (apart(convolved(w, name, x), heads) for name in ("query", "key", "value"))
    q, k = turned(q, chunk), turned(k, chunk)
    eta = rate * torch.sigmoid(x @ w["rate.weight"].T)
    place = 1 / torch.arange(1, chunk + 1, dtype=x.dtype) + w["memory.position"]
    rows = []
    for head in range(heads):
        gain, offset = w["memory.gain"][head], w["memory.offset"][head]

        def model(m: Memory, z: Tensor, gain: Tensor = gain, offset: Tensor = offset) -> Tensor:
            h = z
            for index, layer in enumerate(m):
                h = layer[:, :-1] @ (F.gelu(h) if index else h) + layer[:, -1]
            return z + layer_norm(h, gain, offset)

        rows.append(ttt_head(model, starts(w, head), q[:, head], k[:, head], v[:, head],
                             eta[:, head], place.clamp(min=0)))  # fmt: skip
    y = torch.stack(rows, 1).flatten(1)
    centred = y - y.mean(-1, keepdim=True)
    y = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6)
    return (y * w["norm.weight"] + w["norm.bias"]) @ w["out.weight"].T


def ttt_head(
    model: Callable[[Memory, Tensor], Tensor],
    start: Memory,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    eta: Tensor,
    place: Tensor,
) -> Tensor:
    out, m = [], start
    for t in range(len(q)):
        i = t % len(place)
        if i == 0:
            start, total = m, tuple(torch.zeros_like(a) for a in m)
        found = gradient(lambda a, t=t: squared(model(a, k[t]), v[t]), start)
        total = tuple(s + eta[t] * g for s, g in zip(total, found, strict=True))
        m = tuple(a - place[i] * s for a, s in zip(start, total, strict=True))
        out.append(model(m, q[t]))
    return torch.stack(out)


# --- Titans -----------------------------------------------------------------------------------------


def titans(w: Weights, x: Tensor, heads: int, chunk: int, rate: float = 1.0) -> Tensor:
    """arXiv 2501.00663 §3.1, eq. 9-15: momentum S, forgetting 1 - α, an MLP."""
    q, k, v = (apart(convolved(w, name, x), heads) for name in ("query", "key", "value"))
    q, k = unit(q), unit(k)
    theta = rate / chunk * torch.sigmoid(x @ w["rate.weight"].T)
    eta = torch.sigmoid(x @ w["momentum.weight"].T + w["momentum.bias"])
    keep = torch.sigmoid(x @ w["decay.weight"].T + w["decay_gate.bias"])

    def read(h: int) -> Iterator[Tensor]:
        m, s = resting(w, h)
        for t in range(len(x)):
            if t % chunk == 0:
                start = m
            found = gradient(lambda a, t=t: squared(plain_mlp(a, k[t, h]), v[t, h]), start)
            s = tuple(eta[t, h] * a - theta[t, h] * g for a, g in zip(s, found, strict=True))
            m = tuple(keep[t, h] * a + b for a, b in zip(m, s, strict=True))
            yield plain_mlp(m, q[t, h])

    return finish(w, all_heads(read, heads), x, F.silu)


def rms(x: Tensor, gain: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * gain


def inside(w: Weights, prefix: str) -> Weights:
    return {n.removeprefix(prefix): a for n, a in w.items() if n.startswith(prefix)}


def windowed(w: Weights, x: Tensor, heads: int, window: int) -> Tensor:
    """Attention over learned keys and values and the last tokens."""
    q, k, v = (apart(x @ w[f"{name}.weight"].T, heads) for name in ("query", "key", "value"))
    keys, values = apart(w["core.keys"], heads), apart(w["core.values"], heads)
    rows = []
    for t in range(len(x)):
        first = max(0, t - window + 1)
        ks, vs = torch.cat([keys, k[first : t + 1]]), torch.cat([values, v[first : t + 1]])
        weights = torch.softmax((ks * q[t]).sum(-1) / sqrt(q.shape[-1]), 0)
        rows.append((weights[..., None] * vs).sum(0).flatten())
    return torch.stack(rows) @ w["out.weight"].T


def titans_mag(w: Weights, x: Tensor, heads: int, window: int, chunk: int) -> Tensor:
    """arXiv 2501.00663 §4.2, eq. 26-28: attention times a gate of the memory, both normalised."""
    left, right = inside(w, "branches.0."), inside(w, "branches.1.")
    a = windowed(inside(left, branch(left, "persistent_attention")), x, heads, window)
    m = titans(inside(right, branch(right, "titans")), x, heads, chunk)
    a = rms(a, left[branch(left, "rms_norm") + "weight"])
    return a * torch.sigmoid(rms(m, right[branch(right, "rms_norm") + "weight"]))


def titans_mal(w: Weights, x: Tensor, heads: int, window: int, chunk: int) -> Tensor:
    """arXiv 2501.00663 §4.3, eq. 29-31: memory, then attention."""
    m = titans(inside(w, branch(w, "titans")), x, heads, chunk)
    m = rms(m, w[branch(w, "rms_norm") + "weight"])
    return windowed(inside(w, branch(w, "persistent_attention")), m, heads, window)


def titans_mac(w: Weights, x: Tensor, heads: int, chunk: int) -> Tensor:
    """arXiv 2501.00663 §4.1, eq. 21-25, a token seeing context and tokens up to itself."""
    w = {n.removeprefix("core."): a for n, a in w.items()}
    size = x.shape[1] // heads
    starting = [tuple(w[f"start_{i}"][h] for i in range(2)) for h in range(heads)]
    memory, momentum = starting, [tuple(torch.zeros_like(a) for a in m) for m in starting]
    rows = []
    for t in range(len(x)):
        if t % chunk == 0:
            start = memory
            keys, values = [[w["persistent"] @ w[n].T] for n in ("key", "value")]
        asked = unit(apart(x[t : t + 1] @ w["recall"].T, heads)[0])
        h = torch.cat([plain_mlp(start[i], asked[i]) for i in range(heads)])
        both = torch.stack([h, x[t]])
        keys.append(both @ w["key"].T)
        values.append(both @ w["value"].T)
        ks, vs = (apart(torch.cat(found), heads) for found in (keys, values))
        query = (w["query"] @ x[t]).view(heads, size)
        scores = torch.softmax((ks * query).sum(-1) / sqrt(size), 0)
        y = w["mix"] @ (scores[..., None] * vs).sum(0).flatten()
        gates = {n: torch.sigmoid(w[n] @ y + w[f"{n}_bias"]) for n in ("rate", "momentum", "decay")}
        k, v, q = ((w[n] @ y).view(heads, size) for n in ("learn_key", "learn_value", "read"))
        k, q, read, new = unit(k), unit(q), [], []
        for i in range(heads):
            found = gradient(lambda a, i=i, k=k, v=v: squared(plain_mlp(a, k[i]), v[i]), start[i])
            step = gates["rate"][i] / chunk
            momentum[i] = tuple(
                gates["momentum"][i] * s - step * g for s, g in zip(momentum[i], found, strict=True)
            )
            pairs = zip(memory[i], momentum[i], strict=True)
            new.append(tuple(gates["decay"][i] * a + s for a, s in pairs))
            read.append(plain_mlp(new[i], q[i]))
        memory = new
        normal = [r / torch.sqrt((r * r).mean() + 1e-6) for r in read]
        rows.append(y * torch.cat(normal) * w["gain"])
    return torch.stack(rows) @ w["out.weight"].T


def branch(w: Weights, part: str) -> str:
    """The path of a component, whatever stands before it."""
    [found] = {n[: n.index(part + ".") + len(part) + 1] for n in w if f"{part}." in n}
    return found


# --- Miras ------------------------------------------------------------------------------------------


def residual_mlp(gain: Tensor, offset: Tensor) -> Callable[[Memory, Tensor], Tensor]:
    """``M(x) = x + LN(W₁ gelu(W₂ x))`` (arXiv 2504.13173 §6.1)."""
    return lambda m, x: x + layer_norm(m[1] @ F.gelu(m[0] @ x), gain, offset)


def miras(
    w: Weights,
    x: Tensor,
    heads: int,
    chunk: int,
    rate: float,
    slope: Callable[[Tensor, Tensor], Tensor],
    weights: Callable[[Tensor], Tensor],
) -> Tensor:
    """Moneta, Yaad, Memora: rates and decays a channel, the loss by its slope, a map to the weights.

    ``slope`` is dL/dp of the error ``[V]`` and a threshold.
    """
    q, k, v = (apart(convolved(w, name, x), heads) for name in ("query", "key", "value"))
    q, k = turned(unit(q), None), turned(unit(k), None)
    eta = (
        rate
        / chunk
        * torch.sigmoid((x @ w["rate_down.weight"].T) @ w["rate.weight"].T + w["rate.bias"])
    )
    down = x @ w["decay_down.weight"].T
    keep = torch.sigmoid(down @ w["decay.weight"].T + w["decay_gate.bias"])
    delta = None
    if "threshold.weight" in w:
        delta = F.softplus(x @ w["threshold.weight"].T + w["threshold.bias"])
    eta, keep = apart(eta, heads), apart(keep, heads)

    def read(h: int) -> Iterator[Tensor]:
        model = residual_mlp(w["memory.gain"][h], w["memory.offset"][h])
        moved = starts(w, h)
        for t in range(len(x)):
            if t % chunk == 0:
                start = tuple(weights(a) for a in moved)
            error = model(start, k[t, h]) - v[t, h]
            pull = slope(error, delta[t, h] if delta is not None else error.new_zeros(()))
            found = linear_gradient(model, start, k[t, h], pull)
            moved = (
                moved[0] * keep[t, h] - found[0] * eta[t, h],
                moved[1] * keep[t, h][:, None] - found[1] * eta[t, h][:, None],
            )
            yield model(tuple(weights(a) for a in moved), q[t, h])

    return finish(w, all_heads(read, heads), x, torch.sigmoid)


def linear_gradient(
    model: Callable[[Memory, Tensor], Tensor], memory: Memory, k: Tensor, pull: Tensor
) -> Memory:
    """dL/dM, given dL/dp: the transpose of dp/dM."""
    with torch.enable_grad():
        probed = tuple(probe(m) for m in memory)
        return torch.autograd.grad(model(probed, k), probed, pull, create_graph=True)


def moneta(w: Weights, x: Tensor, **how: float) -> Tensor:
    """Eq. 24: p = 3, ``W = A / ‖A‖_4²``."""
    return miras(
        w, x, slope=lambda e, d: 3 * torch.sign(e) * e.abs() ** 2,
        weights=lambda a: a / (a**4).sum() ** 0.5, **how,
    )  # fmt: skip


def yaad(w: Weights, x: Tensor, **how: float) -> Tensor:
    """Eq. 25: the l2 gradient while the error is below δ_t, δ_t times the l1 gradient above."""

    def slope(e: Tensor, d: Tensor) -> Tensor:
        return e if bool(torch.sqrt((e * e).sum()) <= d) else d * torch.sign(e)

    return miras(w, x, slope=slope, weights=lambda a: a, **how)


def memora(w: Weights, x: Tensor, **how: float) -> Tensor:
    """Eq. 26: ``W = softmax(α log W - η ∇)``, over the inputs of an output."""
    return miras(w, x, slope=lambda e, d: e, weights=lambda a: torch.softmax(a, -1), **how)


# --- ATLAS ------------------------------------------------------------------------------------------


def powers(x: Tensor, weight: Tensor) -> Tensor:
    """Features with ``φ(q) · φ(k) = Σ a_i² (q · k)^i / Σ a_i²``, from all products of ``i`` channels."""
    parts, tensor = [], x.new_ones(1)
    for power in range(len(weight)):
        if power:
            tensor = torch.outer(tensor, x).flatten()
        parts.append(tensor * weight[power])
    return torch.cat(parts) / torch.sqrt((weight**2).sum() + 1e-12)


def symmetric(channels: int, degree: int, dtype: torch.dtype) -> Tensor:
    """The map ``[F, all products]`` of the distinct monomials onto all products of channels."""
    from itertools import combinations_with_replacement, product

    rows = []
    offset, width = 0, sum(channels**p for p in range(degree + 1))
    for power in range(degree + 1):
        index = {p: i for i, p in enumerate(product(range(channels), repeat=power))}
        for monomial in combinations_with_replacement(range(channels), power):
            same = [i for p, i in index.items() if tuple(sorted(p)) == monomial]
            row = torch.zeros(width, dtype=dtype)
            row[[offset + i for i in same]] = len(same) ** -0.5
            rows.append(row)
        offset += channels**power
    assert len(rows) == comb(channels + degree, degree)
    return torch.stack(rows)


def newton_schulz(x: Tensor, steps: int) -> Tensor:
    """Muon's quintic iteration on one matrix."""
    y = x.T if x.shape[0] > x.shape[1] else x
    y = y / torch.sqrt((y * y).sum() + 1e-14)
    for _ in range(steps):
        square = y @ y.T
        y = 3.4445 * y - 4.7750 * square @ y + 2.0315 * square @ square @ y
    return y.T if x.shape[0] > x.shape[1] else y


def atlas(
    w: Weights, x: Tensor, heads: int, chunk: int, rate: float, window: int = 1, newton: int = 0
) -> Tensor:
    """OmegaNet (arXiv 2505.23735 eq. 9-11), with ``newton`` ATLAS (§5), and without ``decay`` and with a
    window of one write the Hebbian DeepTransformer (§4)."""
    q, k, v = (apart(convolved(w, name, x), heads) for name in ("query", "key", "value"))
    q, k = unit(q), unit(k)
    degree = len(w["query_powers.weight"]) - 1
    basis = symmetric(q.shape[-1], degree, x.dtype)
    eta = rate / (chunk * window) * torch.sigmoid(x @ w["rate.weight"].T)
    hebbian = "decay.weight" not in w
    one = torch.ones_like(eta)
    keep = one if hebbian else torch.sigmoid(x @ w["decay.weight"].T + w["decay_gate.bias"])
    gamma = torch.sigmoid(x @ w["weight.weight"].T + w["weight.bias"]) if window > 1 else one
    theta = torch.sigmoid(x @ w["momentum.weight"].T + w["momentum.bias"]) if newton else one

    def phi(z: Tensor, name: str) -> Tensor:
        return basis @ powers(z, w[f"{name}_powers.weight"])

    def loss(m: Memory, t: int, h: int) -> Tensor:
        p = plain_mlp(m, phi(k[t, h], "key"))
        return -(p * v[t, h]).sum() if hebbian else squared(p, v[t, h])

    def read(h: int) -> Iterator[Tensor]:
        m, s = resting(w, h)
        for t in range(len(x)):
            if t % chunk == 0:
                start = m
            recent = range(max(0, t - window + 1), t + 1)
            total = gradient(
                lambda a, recent=recent: sum(gamma[i, h] * loss(a, i, h) for i in recent), start
            )
            if newton:
                s = tuple(theta[t, h] * a - g for a, g in zip(s, total, strict=True))
                step = tuple(eta[t, h] * newton_schulz(a, newton) for a in s)
            else:
                step = tuple(-eta[t, h] * g for g in total)
            m = tuple(keep[t, h] * a + b for a, b in zip(m, step, strict=True))
            yield plain_mlp(m, phi(q[t, h], "query"))

    return finish(w, all_heads(read, heads), x, F.silu)


# --- Lattice ----------------------------------------------------------------------------------------


def lattice(w: Weights, x: Tensor, heads: int, chunk: int, rate: float = 1.0) -> Tensor:
    """arXiv 2504.05646: slots of unit length, each written what is orthogonal to it."""
    q, k, v = (apart(convolved(w, name, x), heads) for name in ("query", "key", "value"))
    q, k = unit(q), unit(k)
    gamma = rate / chunk * torch.sigmoid(x @ w["rate.weight"].T)
    rows = []
    for h in range(heads):
        s = w["memory.start_0"][h]
        s = s / torch.sqrt((s * s).sum(0))
        out = []
        for t in range(len(x)):
            if t % chunk == 0:
                s = s / torch.sqrt((s * s).sum(0))
                start = s
            error = v[t, h] - start @ k[t, h]
            orthogonal = error[:, None] - start * (start * error[:, None]).sum(0)
            s = s + gamma[t, h] * k[t, h] * orthogonal
            out.append(s / torch.sqrt((s * s).sum(0)) @ q[t, h])
        rows.append(torch.stack(out))
    return finish(w, torch.stack(rows, 1), x, F.silu)
