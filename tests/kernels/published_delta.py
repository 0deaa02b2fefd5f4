"""Token loops of the delta family, written from the papers without looking at the kernels."""

from collections.abc import Callable

import torch
from kernel_checks import Member, Result, Tensors, randn, uniform, unit
from torch import Tensor
from torch.nn import functional

from archdsl.kernels.delta import delta, delta_general

H, K, V = 2, 8, 6


def _make(rank: int = 1, rate: float = 1.0) -> Callable[[int, int], Tensors]:
    def make(batch: int, length: int) -> Tensors:
        micro = (batch, length * rank, H)
        x = {"q": randn(batch, length, H, K), "k": unit(*micro, K), "v": randn(*micro, V)}
        return x | {"beta": rate * uniform(*micro), "state": randn(batch, H, K, V)}

    return make


def _householder(s: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """(I - beta k k^T) S + beta k v^T with the matrix written out."""
    eye = torch.eye(K, dtype=k.dtype)
    rate = beta[..., None, None]
    outer = k.unsqueeze(-1) * k.unsqueeze(-2)
    return (eye - rate * outer) @ s + rate * k.unsqueeze(-1) * v.unsqueeze(-2)


def _loop(x: Tensors, factor: Tensor | None, rank: int = 1) -> Result:
    s, outs = x["state"], []
    for t in range(x["q"].shape[1]):
        if factor is not None:
            s = factor[:, t] * s
        for j in range(t * rank, (t + 1) * rank):
            s = _householder(s, x["k"][:, j], x["v"][:, j], x["beta"][:, j])
        outs.append(K**-0.5 * (x["q"][:, t].unsqueeze(-2) @ s).squeeze(-2))
    return torch.stack(outs, 1), (s,)


def _call(x: Tensors, log: Tensor | None, **options: object) -> Result:
    out, state = delta(
        x["q"], x["k"], x["v"], x["beta"], log, scale=K**-0.5, initial_state=x["state"], **options
    )  # type: ignore[arg-type]
    return out, (state,)


def deltanet(rate: float, name: str) -> Member:
    """DeltaNet, eq. 5; beta up to 2 gives negative eigenvalues (arXiv 2411.12537)."""
    return Member(
        name, _make(rate=rate), lambda x: _loop(x, None), lambda x, **o: _call(x, None, **o)
    )


def gated_deltanet() -> Member:
    """Gated DeltaNet, eq. 10, alpha = exp(-exp(A_log) softplus(.))."""

    def log(x: Tensors) -> Tensor:
        return -x["A_log"].exp() * functional.softplus(x["gate"])

    return Member(
        "gated_deltanet",
        lambda b, t: _make()(b, t) | {"gate": randn(b, t, H), "A_log": randn(H)},
        lambda x: _loop(x, log(x).exp()[..., None, None]),
        lambda x, **o: _call(x, log(x), **o),
        shared=("A_log",),
    )


def kda() -> Member:
    """Kimi Delta Attention, eq. 1: a decay per channel, then the delta rule on the decayed state."""
    return Member(
        "kda",
        lambda b, t: _make()(b, t) | {"gate": randn(b, t, H, K)},
        lambda x: _loop(x, torch.exp(-5 * x["gate"].sigmoid()).unsqueeze(-1)),
        lambda x, **o: _call(x, -5 * x["gate"].sigmoid(), **o),
    )


def deltaproduct(rank: int) -> Member:
    """Gated DeltaProduct, eq. 5: `rank` Householder steps a token, one decay before the first."""
    return Member(
        f"deltaproduct_{rank}",
        lambda b, t: _make(rank, 2.0)(b, t) | {"gate": randn(b, t, H)},
        lambda x: _loop(x, x["gate"].sigmoid()[..., None, None], rank),
        lambda x, **o: _call(x, functional.logsigmoid(x["gate"]), rank=rank, **o),
    )


def comba() -> Member:
    """Comba: u = b (v - S^T p) with the decayed S and p = sigmoid(d) k; the read corrects q by D p."""

    def make(batch: int, length: int) -> Tensors:
        gates = {"gate": randn(batch, length, H), "d": randn(H), "D": randn(H)}
        return _make()(batch, length) | gates

    def feedback(x: Tensors) -> Tensor:
        return x["d"].sigmoid()[:, None] * x["k"]

    def query(x: Tensors) -> Tensor:
        return x["q"] - x["D"][:, None] * feedback(x)

    def loop(x: Tensors) -> Result:
        s, p, q, outs = x["state"], feedback(x), query(x), []
        for t in range(q.shape[1]):
            s = x["gate"][:, t].sigmoid()[..., None, None] * s
            u = x["v"][:, t] - (s * p[:, t].unsqueeze(-1)).sum(-2)
            u = x["beta"][:, t].unsqueeze(-1) * u
            s = s + x["k"][:, t].unsqueeze(-1) * u.unsqueeze(-2)
            outs.append(K**-0.5 * (s * q[:, t].unsqueeze(-1)).sum(-2))
        return torch.stack(outs, 1), (s,)

    def kernel(x: Tensors, **options: object) -> Result:
        log = functional.logsigmoid(x["gate"])
        return _call(x | {"q": query(x)}, log, erase_key=feedback(x), **options)

    return Member("comba", make, loop, kernel, shared=("d", "D"))


def rwkv7() -> Member:
    """RWKV-7, eq. 17: S = S (diag(w) - kappa^T (a kappa)) + v^T k, here with S transposed."""

    def make(batch: int, length: int) -> Tensors:
        x = _make()(batch, length)
        del x["beta"]
        shape = (batch, length, H, K)
        return x | {"w": randn(*shape), "kappa": unit(*shape), "a": uniform(*shape)}

    def loop(x: Tensors) -> Result:
        s, outs = x["state"], []
        for t in range(x["q"].shape[1]):
            w = torch.exp(-(2.718281828459045**-0.5) * x["w"][:, t].sigmoid())
            kappa = x["kappa"][:, t]
            left = torch.diag_embed(w) - (x["a"][:, t] * kappa).unsqueeze(-1) * kappa.unsqueeze(-2)
            s = left @ s + x["k"][:, t].unsqueeze(-1) * x["v"][:, t].unsqueeze(-2)
            outs.append((s * x["q"][:, t].unsqueeze(-1)).sum(-2))
        return torch.stack(outs, 1), (s,)

    def kernel(x: Tensors, **options: object) -> Result:
        log = -(2.718281828459045**-0.5) * x["w"].sigmoid()
        left, right = -x["kappa"], x["kappa"] * x["a"]
        out, state = delta_general(
            x["q"], x["k"], x["v"], left, right, log, initial_state=x["state"], **options
        )  # type: ignore[arg-type]
        return out, (state,)

    return Member("rwkv7", make, loop, kernel)


MEMBERS = [
    deltanet(1.0, "deltanet"),
    deltanet(2.0, "deltanet_negative"),
    gated_deltanet(),
    kda(),
    deltaproduct(2),
    deltaproduct(4),
    comba(),
    rwkv7(),
]
