"""Closed and open gates, degenerate keys and rates, wide heads, gradcheck, wrong arguments."""

from typing import Any

import pytest
import torch
from kernel_checks import Result, Tensors, assert_close, cast, randn, run, uniform, unit
from torch import Tensor

from archdsl.kernels.decay import choose, decay
from archdsl.kernels.delta import delta, delta_general
from archdsl.kernels.scan import scan


def decay_loop(x: Tensors, before: bool = False) -> Result:
    """S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T with g [B, T, H, K]."""
    state, outs = x["state"], []
    for t in range(x["q"].shape[1]):
        write = x["k"][:, t].unsqueeze(-1) * x["v"][:, t].unsqueeze(-2)
        after = x["g"][:, t].exp().unsqueeze(-1) * state + write
        outs.append(((state if before else after) * x["q"][:, t].unsqueeze(-1)).sum(-2))
        state = after
    return torch.stack(outs, 1), (state,)


def delta_loop(x: Tensors) -> Result:
    """S_t = (I - b k k^T) diag(exp(g_t)) S_{t-1} + b k v^T with g [B, T, H, K]."""
    state, outs = x["state"], []
    for t in range(x["q"].shape[1]):
        k, state = x["k"][:, t].unsqueeze(-1), x["g"][:, t].exp().unsqueeze(-1) * state
        error = x["v"][:, t] - (k * state).sum(-2)
        state = state + x["beta"][:, t, :, None, None] * k * error.unsqueeze(-2)
        outs.append((state * x["q"][:, t].unsqueeze(-1)).sum(-2))
    return torch.stack(outs, 1), (state,)


def general_loop(x: Tensors) -> Result:
    """S_t = diag(exp(g_t)) S_{t-1} + beta k (e^T S_{t-1}) + k v^T, e = -k."""
    state, outs = x["state"], []
    for t in range(x["q"].shape[1]):
        k = x["k"][:, t].unsqueeze(-1)
        found = x["v"][:, t] - x["beta"][:, t].unsqueeze(-1) * (k * state).sum(-2)
        state = x["g"][:, t].exp().unsqueeze(-1) * state + k * found.unsqueeze(-2)
        outs.append((state * x["q"][:, t].unsqueeze(-1)).sum(-2))
    return torch.stack(outs, 1), (state,)


def decay_kernel(x: Tensors, before: bool = False) -> Result:
    read: Any = "before" if before else "after"
    out, state = decay(x["q"], x["k"], x["v"], x["g"], initial_state=x["state"], read=read)
    assert isinstance(state, Tensor)
    return out, (state,)


def delta_kernel(x: Tensors) -> Result:
    out, state = delta(x["q"], x["k"], x["v"], x["beta"], x["g"], initial_state=x["state"])
    return out, (state,)


def general_kernel(x: Tensors) -> Result:
    right = x["k"] * x["beta"].unsqueeze(-1)
    out, state = delta_general(
        x["q"], x["k"], x["v"], -x["k"], right, x["g"], initial_state=x["state"]
    )
    return out, (state,)


def make(length: int, width: int = 8, value: int = 6, heads: int = 2) -> Tensors:
    torch.manual_seed(length + width)
    shape = (2, length, heads)
    x = {"q": randn(*shape, width), "k": unit(*shape, width), "v": randn(*shape, value)}
    x |= {"beta": 2 * uniform(*shape), "g": -uniform(*shape, width)}
    return x | {"state": randn(2, heads, width, value)}


GATES = {
    "open": lambda g: torch.zeros_like(g),
    "closed": lambda g: torch.full_like(g, -1e9),
    "strong": lambda g: torch.full_like(g, -200.0),
    "some closed": lambda g: torch.where(torch.rand_like(g) < 0.2, -1e9, g),
    "some infinite": lambda g: torch.where(torch.rand_like(g) < 0.2, -torch.inf, 0.01 * g),
    "rows closed": lambda g: torch.where(torch.rand_like(g[..., :1]) < 0.1, -200.0, g),
    "moderate": lambda g: 12 * g,
}
PAIRS = [(decay_kernel, decay_loop), (delta_kernel, delta_loop), (general_kernel, general_loop)]
families = pytest.mark.parametrize(("kernel", "loop"), PAIRS, ids=["decay", "delta", "general"])


@families
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("per_head", [False, True])
def test_saturated_gates(kernel: Any, loop: Any, gate: str, per_head: bool) -> None:
    def written(y: Tensors) -> Result:
        return loop(y | {"g": y["g"].view(*y["beta"].shape, -1).expand_as(y["q"])})

    for length in (3, 17, 100):
        x = make(length)
        x["g"] = GATES[gate](x["g"])
        if per_head:
            x["g"] = x["g"][..., 0].contiguous()
        assert_close(run(kernel, x), run(written, x), 1e-10)
        single = cast(x, torch.float32)
        assert_close(run(kernel, single), run(written, cast(single, torch.float64)), 1e-5)


@pytest.mark.parametrize("gate", GATES)
def test_saturated_gates_read_before_the_write(gate: str) -> None:
    x = make(100)
    x["g"] = GATES[gate](x["g"])
    expected = run(lambda y: decay_loop(y, before=True), x)
    assert_close(run(lambda y: decay_kernel(y, before=True), x), expected, 1e-10)


KEYS = {
    "zero keys": lambda x: x | {"k": torch.zeros_like(x["k"])},
    "equal keys": lambda x: x | {"k": x["k"][:, :1].expand_as(x["k"]).clone()},
    "beta 0": lambda x: x | {"beta": torch.zeros_like(x["beta"])},
    "beta 2": lambda x: x | {"beta": torch.full_like(x["beta"], 2.0)},
    "equal keys, beta 2": lambda x: KEYS["beta 2"](KEYS["equal keys"](x)),
    "equal keys, beta 2, open": lambda x: (
        KEYS["equal keys, beta 2"](x) | {"g": torch.zeros_like(x["g"])}
    ),
}


@families
@pytest.mark.parametrize("change", KEYS)
def test_degenerate_keys_and_rates(kernel: Any, loop: Any, change: str) -> None:
    x = KEYS[change](make(100))
    assert_close(run(kernel, x), run(loop, x), 1e-10)
    single = cast(x, torch.float32)
    if loop is not general_loop or "beta 2" not in change:  # else |D - b k k^T| > 1: it grows
        assert_close(run(kernel, single), run(loop, cast(single, torch.float64)), 1e-5)


@families
@pytest.mark.parametrize("width", [16, 32, 60, 64, 100, 128])
def test_head_widths(kernel: Any, loop: Any, width: int) -> None:
    x = make(70, width=width, value=width // 2, heads=1)
    assert_close(run(kernel, x), run(loop, x), 1e-10)
    single = cast(x, torch.float32)
    assert_close(run(kernel, single), run(loop, cast(single, torch.float64)), 1e-5)


@families
def test_gradcheck(kernel: Any, loop: Any) -> None:
    del loop
    x = {name: value[:1, :5].requires_grad_() for name, value in make(18, width=3, value=2).items()}
    x["state"] = make(18, width=3, value=2)["state"][:1].requires_grad_()

    def flat(*values: Tensor) -> tuple[Tensor, ...]:
        out, states = kernel(dict(zip(x, values, strict=True)))
        return out, *states

    assert torch.autograd.gradcheck(flat, tuple(x.values()))


def test_gradcheck_of_the_scan_real_and_complex() -> None:
    for dtype in (torch.float64, torch.complex128):
        a, b = (0.5 * torch.randn(1, 5, 2, dtype=dtype) for _ in "ab")
        start = torch.randn(1, 2, dtype=dtype)
        inputs = [x.requires_grad_() for x in (a, b, start)]
        assert torch.autograd.gradcheck(lambda a, b, s: scan(a, b, initial_state=s), inputs)


def scan_loop(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """h_t = a_t h_{t-1} + b_t, a token at a time."""
    states = []
    for decay_, write in zip(a.unbind(1), b.unbind(1), strict=True):
        state = decay_ * state + write
        states.append(state)
    return torch.stack(states, 1), state


@pytest.mark.parametrize("tile", [1, 40, 300])
@pytest.mark.parametrize("length", [1, 2, 17, 33, 100, 257])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_a_scan_of_many_tiles(
    monkeypatch: pytest.MonkeyPatch, tile: int, length: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr("archdsl.kernels.scan.flops.TILE", tile)
    a, b = (0.7 * torch.randn(2, length, 3, dtype=dtype) for _ in "ab")
    inputs = [x.requires_grad_() for x in (a, b, torch.randn(2, 3, dtype=dtype))]
    found, expected = scan(a, b, initial_state=inputs[2]), scan_loop(*inputs)
    weights = [torch.randn_like(x) for x in expected]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    ours, theirs = (torch.autograd.grad(x, inputs, weights) for x in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_bfloat16_values_keep_their_dtype_and_states_are_float32() -> None:
    x = {name: value.bfloat16() for name, value in make(40).items()}
    out, state = decay(x["q"], x["k"], x["v"], x["g"])
    assert isinstance(state, Tensor)
    assert (out.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    out, state = delta(x["q"], x["k"], x["v"], x["beta"], x["g"])
    assert (out.dtype, state.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("backend", [None, "chunked", "reference"])
@pytest.mark.parametrize(
    ("batch", "length", "packed"), [(0, 5, False), (2, 0, False), (1, 0, True)]
)
def test_nothing_to_do_keeps_the_state(
    batch: int, length: int, packed: bool, backend: str | None
) -> None:
    rows = 3 if packed else batch
    how: Any = {"backend": backend, "cu_seqlens": torch.zeros(4, dtype=torch.int64)}
    how = how if packed else {"backend": backend}
    q, k, v, log = (randn(batch, length, 2, 4).requires_grad_() for _ in range(4))
    beta, state = randn(batch, length, 2), randn(rows, 2, 4, 4).requires_grad_()
    start = randn(rows, 2, 4)
    results = [
        decay(q, k, v, log, initial_state=state, **how),
        delta(q, k, v, beta, log, initial_state=state, **how),
        delta_general(q, k, v, k, k, log, initial_state=state, **how),
    ]
    for out, after in results:
        assert isinstance(after, Tensor)
        assert out.shape == v.shape
        assert torch.equal(after, state)
        assert torch.equal(torch.autograd.grad(after.sum(), state)[0], torch.ones_like(state))
    out, after = scan(None, v, log_a=log, initial_state=start, **how)
    assert out.shape == v.shape
    assert torch.equal(after, start)
    decay(q, k, v, log[..., 0], normalise="max", log_input=beta, **how)


def test_choose_says_that_a_double_state_has_no_triton_form() -> None:
    q, state = torch.zeros(1, 5, 1, 2), torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="float64 has no Triton form"):
        choose(q, state=state, backend="triton")


def test_choose_names_the_form_and_the_reason() -> None:
    q = torch.zeros(1, 5, 1, 2)
    assert choose(q)[0] == "chunked"
    assert choose(q[:, :1])[0] == "step"
    assert "backend" in choose(q, backend="reference")[1]
    with pytest.raises(ValueError, match="one token"):
        choose(q, backend="step")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(1, 4, 1, 2)}, "k must be"),
        ({"log_decay": torch.zeros(3)}, "log_decay must be"),
        ({"bonus": torch.zeros(1, 2)}, "bonus needs"),
        ({"normalise": "max"}, "log_input"),
        ({"cu_seqlens": torch.tensor([0.0, 5.0])}, "cu_seqlens must be"),
        ({"initial_state": torch.zeros(2, 2)}, "initial_state must be"),
        ({"backend": "cuda"}, "backend must be"),
        ({"chunk": 48}, "power of two"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = dict.fromkeys("qkv", torch.zeros(1, 5, 1, 2))
    with pytest.raises(ValueError, match=message):
        decay(**(arguments | change))
