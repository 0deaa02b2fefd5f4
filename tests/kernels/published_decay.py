"""Token loops of the decay family, written from the papers without looking at the kernels."""

import torch
from kernel_checks import Member, Result, Tensors, randn, uniform
from torch import Tensor
from torch.nn import functional

from archdsl.kernels.decay import MaxState, SumState, decay

H, K, V = 2, 8, 6


def _qkv(batch: int, length: int) -> Tensors:
    shape = (batch, length, H)
    return {"q": randn(*shape, K), "k": randn(*shape, K), "v": randn(*shape, V)}


def _state(batch: int) -> Tensors:
    return {"state": randn(batch, H, K, V)}


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return left.unsqueeze(-1) * right.unsqueeze(-2)


def _apply(memory: Tensor, query: Tensor) -> Tensor:
    return (memory * query.unsqueeze(-1)).sum(-2)


def _plain(x: Tensors, factor: Tensor | None, scale: float) -> Result:
    """S = factor_t * S + k v^T, o = scale S^T q."""
    state, outs = x["state"], []
    for t in range(x["q"].shape[1]):
        if factor is not None:
            state = factor[:, t] * state
        state = state + _outer(x["k"][:, t], x["v"][:, t])
        outs.append(scale * _apply(state, x["q"][:, t]))
    return torch.stack(outs, 1), (state,)


def _call(x: Tensors, log: Tensor | None, scale: float = 1.0, **options: object) -> Result:
    out, state = decay(
        x["q"], x["k"], x["v"], log, scale=scale, initial_state=x["state"], **options
    )  # type: ignore[arg-type]
    assert isinstance(state, Tensor)
    return out, (state,)


def linear_attention() -> Member:
    """Linear attention without its normaliser: S += k v^T."""
    return Member(
        "linear_attention",
        lambda b, t: _qkv(b, t) | _state(b),
        lambda x: _plain(x, None, K**-0.5),
        lambda x, **o: _call(x, None, K**-0.5, **o),
    )


def linear_attention_normalised() -> Member:
    """Katharopoulos et al., eq. 10-12, with phi = elu + 1 outside the kernel."""

    def make(batch: int, length: int) -> Tensors:
        x = _qkv(batch, length)
        x["q"], x["k"] = (functional.elu(x[name]) + 1 for name in "qk")
        return x | {"state": uniform(batch, H, K, V), "state_z": uniform(batch, H, K) + 0.5}

    def loop(x: Tensors) -> Result:
        s, z, outs = x["state"], x["state_z"], []
        for t in range(x["q"].shape[1]):
            s, z = s + _outer(x["k"][:, t], x["v"][:, t]), z + x["k"][:, t]
            bottom = (x["q"][:, t] * z).sum(-1, keepdim=True)
            outs.append(_apply(s, x["q"][:, t]) / (bottom + 1e-6))
        return torch.stack(outs, 1), (s, z)

    def kernel(x: Tensors, **options: object) -> Result:
        start = SumState(x["state"], x["state_z"])
        options = {"initial_state": start, "normalise": "sum", **options}
        out, state = decay(x["q"], x["k"], x["v"], **options)  # type: ignore[arg-type]
        assert isinstance(state, SumState)
        return out, tuple(state)

    return Member("linear_attention_normalised", make, loop, kernel)


def retnet() -> Member:
    """RetNet, eq. 5-6: gamma_h = 1 - 2^(-5 - h)."""
    gamma = 1 - 2.0 ** (-5 - torch.arange(H, dtype=torch.float64))
    factor = gamma.view(1, 1, H, 1, 1)
    return Member(
        "retnet",
        lambda b, t: _qkv(b, t) | _state(b),
        lambda x: _plain(x, factor.expand(1, x["q"].shape[1], H, 1, 1), K**-0.5),
        lambda x, **o: _call(x, gamma.log().to(x["q"].dtype), K**-0.5, **o),
    )


def gla() -> Member:
    """GLA, eq. 3: S = diag(alpha) S + k v^T, alpha = sigmoid(.)^(1/16) per key channel."""
    return Member(
        "gla",
        lambda b, t: _qkv(b, t) | {"gate": 3 * randn(b, t, H, K)} | _state(b),
        lambda x: _plain(x, x["gate"].sigmoid().pow(1 / 16).unsqueeze(-1), K**-0.5),
        lambda x, **o: _call(x, functional.logsigmoid(x["gate"]) / 16, K**-0.5, **o),
    )


def hgrn2() -> Member:
    """HGRN2, eq. 9: the key is what the forget gate leaves, k = 1 - f."""

    def gate(x: Tensors) -> Tensor:
        return 0.3 + 0.7 * x["gate"].sigmoid()

    def make(batch: int, length: int) -> Tensors:
        x = _qkv(batch, length) | {"gate": randn(batch, length, H, K)} | _state(batch)
        del x["k"]
        return x

    return Member(
        "hgrn2",
        make,
        lambda x: _plain(x | {"k": 1 - gate(x)}, gate(x).unsqueeze(-1), 1.0),
        lambda x, **o: _call(x | {"k": 1 - gate(x)}, gate(x).log(), **o),
    )


def mamba2() -> Member:
    """Mamba-2 (SSD): S = exp(-exp(A_log) dt) S + B (dt x)^T, y = S^T C, B and C shared by heads."""

    def make(batch: int, length: int) -> Tensors:
        shared = {name: randn(batch, length, 1, K) for name in ("B", "C")}
        x = {"x": randn(batch, length, H, V), "dt": uniform(batch, length, H), "A_log": randn(H)}
        return shared | x | _state(batch)

    def parts(x: Tensors) -> Tensors:
        wide = {"q": x["C"].expand(-1, -1, H, -1), "k": x["B"].expand(-1, -1, H, -1)}
        return wide | {"v": x["x"] * x["dt"].unsqueeze(-1), "state": x["state"]}

    def loop(x: Tensors) -> Result:
        s, outs = x["state"], []
        for t in range(x["x"].shape[1]):
            a = torch.exp(-torch.exp(x["A_log"]) * x["dt"][:, t])
            step = x["dt"][:, t, :, None] * x["x"][:, t]
            s = a[..., None, None] * s + x["B"][:, t].unsqueeze(-1) * step.unsqueeze(-2)
            outs.append((x["C"][:, t].unsqueeze(-1) * s).sum(-2))
        return torch.stack(outs, 1), (s,)

    return Member(
        "mamba2",
        make,
        loop,
        lambda x, **o: _call(parts(x), -x["A_log"].exp() * x["dt"], **o),
        shared=("A_log",),
    )


def lightnet() -> Member:
    """LightNet: per channel, the values averaged by a softmax of the keys over the whole prefix."""

    def make(batch: int, length: int) -> Tensors:
        return _qkv(batch, length)

    def loop(x: Tensors) -> Result:
        outs, weights = [], x["k"].exp()
        for t in range(x["q"].shape[1]):
            share = weights[:, : t + 1] / weights[:, : t + 1].sum(1, keepdim=True)
            memory = torch.einsum("bthk,bthv->bhkv", share, x["v"][:, : t + 1])
            outs.append(_apply(memory, x["q"][:, t]))
        return torch.stack(outs, 1), (memory,)

    def kernel(x: Tensors, **options: object) -> Result:
        total = torch.logcumsumexp(x["k"], 1)
        before = torch.cat([total[:, :1], total[:, :-1]], 1)
        parts = {"q": x["q"], "k": (x["k"] - total).exp(), "v": x["v"]}
        parts["state"] = x["q"].new_zeros(x["q"].shape[0], H, K, V)
        return _call(parts, before - total, **options)

    return Member("lightnet", make, loop, kernel)


def rwkv6() -> Member:
    """RWKV-6, eq. 16-19: reads before it writes, the current token through the bonus u."""

    def make(batch: int, length: int) -> Tensors:
        x = _qkv(batch, length) | {"w": randn(batch, length, H, K), "u": randn(H, K)}
        return x | _state(batch)

    def loop(x: Tensors) -> Result:
        s, outs = x["state"], []
        for t in range(x["q"].shape[1]):
            write = _outer(x["k"][:, t], x["v"][:, t])
            outs.append(_apply(s + x["u"].unsqueeze(-1) * write, x["q"][:, t]))
            s = torch.exp(-torch.exp(x["w"][:, t])).unsqueeze(-1) * s + write
        return torch.stack(outs, 1), (s,)

    return Member(
        "rwkv6",
        make,
        loop,
        lambda x, **o: _call(x, -x["w"].exp(), read="before", bonus=x["u"], **o),
        shared=("u",),
    )


def mlstm() -> Member:
    """mLSTM (xLSTM, eq. 19-27), gates in log space relative to their running maximum."""

    def make(batch: int, length: int) -> Tensors:
        x = _qkv(batch, length) | {"i": 3 * randn(batch, length, H), "f": randn(batch, length, H)}
        return (
            x
            | {"state": randn(batch, H, K, V), "state_n": randn(batch, H, K)}
            | {"state_m": randn(batch, H)}
        )

    def loop(x: Tensors) -> Result:
        c, n, m, outs = x["state"], x["state_n"], x["state_m"], []
        for t in range(x["q"].shape[1]):
            log_f = functional.logsigmoid(x["f"][:, t])
            after = torch.maximum(log_f + m, x["i"][:, t])
            f, i = torch.exp(log_f + m - after), torch.exp(x["i"][:, t] - after)
            c = f[..., None, None] * c + i[..., None, None] * _outer(x["k"][:, t], x["v"][:, t])
            n, m = f[..., None] * n + i[..., None] * x["k"][:, t], after
            query = x["q"][:, t] * K**-0.5
            bottom = torch.maximum((n * query).sum(-1).abs(), torch.exp(-m))
            outs.append(_apply(c, query) / (bottom.unsqueeze(-1) + 1e-6))
        return torch.stack(outs, 1), (c, n, m)

    def kernel(x: Tensors, **options: object) -> Result:
        start = MaxState(x["state"], x["state_n"], x["state_m"])
        options = {"initial_state": start, "normalise": "max", "log_input": x["i"], **options}
        log = functional.logsigmoid(x["f"])
        out, state = decay(x["q"], x["k"], x["v"], log, scale=K**-0.5, **options)  # type: ignore[arg-type]
        assert isinstance(state, MaxState)
        return out, tuple(state)

    return Member("mlstm", make, loop, kernel, float32_limit=1e-4)


MEMBERS = [
    linear_attention(),
    linear_attention_normalised(),
    retnet(),
    gla(),
    hgrn2(),
    mamba2(),
    lightnet(),
    rwkv6(),
    mlstm(),
]
