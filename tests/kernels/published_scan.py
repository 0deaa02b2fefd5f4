"""Token loops of the scan family, written from the papers without looking at the kernels."""

from collections.abc import Callable

import torch
from kernel_checks import Member, Result, Tensors, randn, uniform
from torch import Tensor
from torch.nn import functional

from archdsl.kernels.scan import scan

D, N = 5, 4
Gates = Callable[[Tensors], tuple[Tensor, Tensor]]


def _recur(start: Tensor, length: int, step: Callable[[int, Tensor], Tensor]) -> Result:
    state, outs = start, []
    for t in range(length):
        state = step(t, state)
        outs.append(state)
    return torch.stack(outs, 1), (state,)


def _call(x: Tensors, a: Tensor | None, b: Tensor, **options: object) -> Result:
    h, state = scan(a, b, initial_state=x["state"], **options)  # type: ignore[arg-type]
    return h, (state,)


def _make(**gates: int) -> Callable[[int, int], Tensors]:
    """Normal inputs [B, T, D], and named parameters of D (or whatever width is given)."""

    def make(batch: int, length: int) -> Tensors:
        inputs = {name: randn(batch, length, width) for name, width in gates.items()}
        return inputs | {"state": randn(batch, D)}

    return make


def min_gru() -> Member:
    """Were RNNs All We Needed, eq. minGRU: h = (1 - z) h + z h~."""

    def loop(x: Tensors) -> Result:
        def step(t: int, h: Tensor) -> Tensor:
            z = x["z"][:, t].sigmoid()
            return (1 - z) * h + z * x["x"][:, t]

        return _recur(x["state"], x["x"].shape[1], step)

    def kernel(x: Tensors, **options: object) -> Result:
        log = -functional.softplus(x["z"])
        return _call(x, None, x["z"].sigmoid() * x["x"], log_a=log, **options)

    return Member("min_gru", _make(x=D, z=D), loop, kernel)


def min_lstm() -> Member:
    """minLSTM: h = f/(f + i) h + i/(f + i) h~."""

    def loop(x: Tensors) -> Result:
        def step(t: int, h: Tensor) -> Tensor:
            f, i = x["f"][:, t].sigmoid(), x["i"][:, t].sigmoid()
            return f / (f + i) * h + i / (f + i) * x["x"][:, t]

        return _recur(x["state"], x["x"].shape[1], step)

    def kernel(x: Tensors, **options: object) -> Result:
        f, i = x["f"].sigmoid(), x["i"].sigmoid()
        return _call(x, f / (f + i), i / (f + i) * x["x"], **options)

    return Member("min_lstm", _make(x=D, f=D, i=D), loop, kernel)


def hgrn() -> Member:
    """HGRN with its lower bound and learned phase: h = f e^(i theta) h + (1 - f) c, complex."""

    def make(batch: int, length: int) -> Tensors:
        x = _make(f=D)(batch, length) | {"theta": randn(D)}
        x["c"] = torch.complex(randn(batch, length, D), randn(batch, length, D))
        return x | {"state": torch.complex(randn(batch, D), randn(batch, D))}

    def loop(x: Tensors) -> Result:
        def step(t: int, h: Tensor) -> Tensor:
            f = 0.2 + 0.8 * x["f"][:, t].sigmoid()
            return f * torch.exp(1j * x["theta"]) * h + (1 - f) * x["c"][:, t]

        return _recur(x["state"], x["f"].shape[1], step)

    def kernel(x: Tensors, **options: object) -> Result:
        f = 0.2 + 0.8 * x["f"].sigmoid()
        return _call(x, torch.polar(f, x["theta"].expand_as(f)), (1 - f) * x["c"], **options)

    return Member("hgrn", make, loop, kernel, shared=("theta",))


def lru() -> Member:
    """LRU, eq. 3-7: lambda = exp(-exp(nu) + i exp(theta)), input scaled by sqrt(1 - |lambda|^2)."""

    def make(batch: int, length: int) -> Tensors:
        x = {"x": randn(batch, length, D), "nu": randn(D), "theta": randn(D)}
        return x | {"state": torch.complex(randn(batch, D), randn(batch, D))}

    def loop(x: Tensors) -> Result:
        def step(t: int, h: Tensor) -> Tensor:
            modulus = torch.exp(-torch.exp(x["nu"]))
            phase = torch.exp(x["theta"])
            real, imag = modulus * phase.cos(), modulus * phase.sin()
            gamma = torch.sqrt(1 - modulus**2)
            return torch.complex(real, imag) * h + gamma * x["x"][:, t]

        return _recur(x["state"], x["x"].shape[1], step)

    def kernel(x: Tensors, **options: object) -> Result:
        log = torch.complex(-x["nu"].exp(), x["theta"].exp())
        gamma = (1 - torch.exp(-2 * x["nu"].exp())).sqrt()
        write = (gamma * x["x"]).to(log.dtype)
        return _call(x, None, write, log_a=log, **options)

    return Member("lru", make, loop, kernel, shared=("nu", "theta"))


def rg_lru() -> Member:
    """Griffin's RG-LRU, eq. 1-4: a = sigmoid(Lambda)^(8 r), h = a h + sqrt(1 - a^2) (i x)."""

    def loop(x: Tensors) -> Result:
        def step(t: int, h: Tensor) -> Tensor:
            a = x["L"].sigmoid() ** (8 * x["r"][:, t].sigmoid())
            return a * h + torch.sqrt(1 - a**2) * x["i"][:, t].sigmoid() * x["x"][:, t]

        return _recur(x["state"], x["x"].shape[1], step)

    def kernel(x: Tensors, **options: object) -> Result:
        log = 8 * x["r"].sigmoid() * functional.logsigmoid(x["L"])
        write = torch.sqrt(-torch.expm1(2 * log)) * x["i"].sigmoid() * x["x"]
        return _call(x, None, write, log_a=log, **options)

    make = _make(x=D, r=D, i=D)
    return Member(
        "rg_lru", lambda b, t: make(b, t) | {"L": randn(D) + 2}, loop, kernel, shared=("L",)
    )


def _diagonal(batch: int, length: int) -> Tensors:
    x = {"x": randn(batch, length, D, 1), "dt": uniform(D, 1) * 0.1 + 0.05, "A_log": randn(D, N)}
    state = torch.complex(randn(batch, D, N), randn(batch, D, N))
    return x | {"omega": randn(D, N), "B": torch.complex(randn(D, N), randn(D, N)), "state": state}


def s4d() -> Member:
    """S4D, eq. 4 and 7: A = -exp(A_log) + i omega per channel, zero-order hold."""

    def loop(x: Tensors) -> Result:
        a = torch.complex(-x["A_log"].exp(), x["omega"])
        held = torch.exp(x["dt"] * a)

        def step(t: int, h: Tensor) -> Tensor:
            return held * h + (held - 1) / a * x["B"] * x["x"][:, t]

        return _recur(x["state"], x["x"].shape[1], step)

    def kernel(x: Tensors, **options: object) -> Result:
        a = torch.complex(-x["A_log"].exp(), x["omega"])
        write = torch.expm1(x["dt"] * a) / a * x["B"] * x["x"]
        return _call(x, None, write, log_a=x["dt"] * a, **options)

    return Member("s4d", _diagonal, loop, kernel, shared=("dt", "A_log", "omega", "B"))


def s5() -> Member:
    """S5, eq. 2-6: one complex diagonal state for all inputs, B a matrix, zero-order hold."""

    def make(batch: int, length: int) -> Tensors:
        x = {"x": randn(batch, length, D), "dt": uniform(N) * 0.1 + 0.01, "A_log": randn(N)}
        x |= {"omega": randn(N), "B": torch.complex(randn(D, N), randn(D, N))}
        return x | {"state": torch.complex(randn(batch, N), randn(batch, N))}

    def loop(x: Tensors) -> Result:
        a = torch.complex(-x["A_log"].exp(), x["omega"])
        held = torch.exp(x["dt"] * a)

        def step(t: int, h: Tensor) -> Tensor:
            return held * h + (held - 1) / a * (x["x"][:, t].to(a.dtype) @ x["B"])

        return _recur(x["state"], x["x"].shape[1], step)

    def kernel(x: Tensors, **options: object) -> Result:
        a = torch.complex(-x["A_log"].exp(), x["omega"])
        write = torch.expm1(x["dt"] * a) / a * (x["x"].to(a.dtype) @ x["B"])
        return _call(x, None, write, log_a=x["dt"] * a, **options)

    return Member("s5", make, loop, kernel, shared=("dt", "A_log", "omega", "B"))


def mamba() -> Member:
    """Mamba's S6, Algorithm 2: h = exp(dt A) h + dt B x with dt, B from the token."""

    def make(batch: int, length: int) -> Tensors:
        x = {"x": randn(batch, length, D), "dt": uniform(batch, length, D), "A_log": randn(D, N)}
        return x | {"B": randn(batch, length, N), "state": randn(batch, D, N)}

    def loop(x: Tensors) -> Result:
        def step(t: int, h: Tensor) -> Tensor:
            dt = x["dt"][:, t, :, None]
            write = dt * x["B"][:, t, None] * x["x"][:, t, :, None]
            return torch.exp(dt * -x["A_log"].exp()) * h + write

        return _recur(x["state"], x["x"].shape[1], step)

    def kernel(x: Tensors, **options: object) -> Result:
        log = x["dt"].unsqueeze(-1) * -x["A_log"].exp()
        write = (x["dt"] * x["x"]).unsqueeze(-1) * x["B"].unsqueeze(-2)
        return _call(x, None, write, log_a=log, **options)

    return Member("mamba", make, loop, kernel, shared=("A_log",))


def gateloop() -> Member:
    """GateLoop, eq. 8: a complex data-controlled transition of modulus below one."""

    def make(batch: int, length: int) -> Tensors:
        x = _make(k=D, v=D, size=D, angle=D)(batch, length)
        return x | {"state": torch.complex(randn(batch, D), randn(batch, D))}

    def loop(x: Tensors) -> Result:
        def step(t: int, h: Tensor) -> Tensor:
            a = x["size"][:, t].sigmoid() * torch.exp(1j * x["angle"][:, t])
            return a * h + x["k"][:, t] * x["v"][:, t]

        return _recur(x["state"], x["k"].shape[1], step)

    def kernel(x: Tensors, **options: object) -> Result:
        return _call(x, torch.polar(x["size"].sigmoid(), x["angle"]), x["k"] * x["v"], **options)

    return Member("gateloop", make, loop, kernel)


MEMBERS = [
    min_gru(),
    min_lstm(),
    hgrn(),
    lru(),
    rg_lru(),
    s4d(),
    s5(),
    mamba(),
    gateloop(),
]
