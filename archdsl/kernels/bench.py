"""Speed of the kernels beside what the machine could do: rows of numbers, parity first.

`measure(case)` compares a form with the float64 reference, and only if that holds times it, beside
the limit (the family's own matrix products run alone, and one pass over every input, output and
gradient, both timed in the same process) and the token loop.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor
from torch.nn import functional

from archdsl.kernels.decay import decay
from archdsl.kernels.decay.flops import default_chunk
from archdsl.kernels.delta import delta, delta_general
from archdsl.kernels.scan import scan

PARITY = {torch.float32: 1e-5, torch.float64: 1e-10, torch.bfloat16: 2e-2}
"""Largest RMS ratio, per head, of any output or gradient against float64."""

Mode = Literal["fwd", "fwdbwd", "step"]
Inputs = dict[str, Tensor]
Run = Callable[[Inputs, str | None], tuple[Tensor, ...]]


class Row(TypedDict):
    """One measurement; times in milliseconds, None where parity failed or nothing was timed."""

    family: str
    variant: str
    shape: str
    dtype: str
    device: str
    mode: str
    compiled: bool
    ms: float | None
    limit_ms: float | None
    loop_ms: float | None
    peer: str | None
    peer_ms: float | None
    parity: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Case:
    """A kernel call at a shape: batch, length, heads and width (of keys, values, or the scan)."""

    family: str
    variant: str
    batch: int = 4
    length: int = 2048
    heads: int = 4
    width: int = 64
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    mode: Mode = "fwdbwd"
    compiled: bool = False

    @property
    def shape(self) -> str:
        """The shape in the field's spelling."""
        heads = "" if self.family == "scan" else f" H{self.heads}"
        return f"B{self.batch} T{self.length}{heads} D{self.width}"


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def make(case: Case) -> Inputs:
    """Float64 inputs of a case, from a fixed seed."""
    torch.manual_seed(0)
    batch, length = case.batch, 1 if case.mode == "step" else case.length
    if case.family == "scan":
        shape = (batch, length, case.width)
        return {"a": torch.sigmoid(_normal(*shape)), "b": _normal(*shape)}
    wide = (batch, length, case.heads, case.width)
    x = {name: _normal(*wide) for name in "qkv"}
    gate = wide if case.variant in ("per channel", "kda", "rwkv7") else wide[:3]
    if case.variant not in ("none", "deltanet"):
        x["log_decay"] = functional.logsigmoid(_normal(*gate)) / 4
    if case.family == "delta":
        x["k"] = functional.normalize(x["k"], dim=-1)
        x["beta"] = torch.sigmoid(_normal(*wide[:3]))
    return x


def call(case: Case) -> Run:
    """The kernel call of a case, as a function of inputs and backend."""

    def run(x: Inputs, backend: str | None) -> tuple[Tensor, ...]:
        scale, log = case.width**-0.5, x.get("log_decay")
        if case.family == "scan":
            return scan(x["a"], x["b"], backend=backend)
        if case.family == "decay":
            out, state = decay(x["q"], x["k"], x["v"], log, scale=scale, backend=backend)
            assert isinstance(state, Tensor)
            return out, state
        if case.variant == "rwkv7":
            right = x["k"] * x["beta"].unsqueeze(-1)
            return delta_general(
                x["q"], x["k"], x["v"], -x["k"], right, log, scale=scale, backend=backend
            )
        return delta(x["q"], x["k"], x["v"], x["beta"], log, scale=scale, backend=backend)

    return run


def _differentiate(run: Run, x: Inputs, backend: str | None) -> list[Tensor]:
    leaves = {name: value.detach().requires_grad_() for name, value in x.items()}
    out, state = run(leaves, backend)
    grads = torch.autograd.grad(out.float().sum() + state.sum(), list(leaves.values()))
    return [out.detach(), state.detach(), *grads]


def _ratio(found: Tensor, expected: Tensor) -> float:
    """RMS of the difference over RMS of the expectation, worst head (axis 2)."""
    if expected.dim() >= 3:
        found, expected = found.transpose(0, 2).flatten(1), expected.transpose(0, 2).flatten(1)
    else:
        found, expected = found.reshape(1, -1), expected.reshape(1, -1)
    size = expected.pow(2).mean(1).sqrt() + 1e-3
    return float(((found.double() - expected).pow(2).mean(1).sqrt() / size).max())


def parity(case: Case) -> float:
    """Worst error of outputs, states and gradients against the float64 reference, on 300 tokens."""
    small = replace(case, batch=min(case.batch, 2), length=min(case.length, 300))
    x = make(small)
    cast = {name: value.to(case.device, case.dtype) for name, value in x.items()}
    exact = {name: value.double().cpu() for name, value in cast.items()}
    found = _differentiate(call(small), cast, None)
    expected = _differentiate(call(small), exact, "reference")
    return max(_ratio(y.cpu(), z) for y, z in zip(found, expected, strict=True))


def clock(function: Callable[[], Any], repeat: int = 7, warm: int = 2) -> float:
    """Median milliseconds of a call, the device idle before and after."""
    times = []
    for _ in range(warm + repeat):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return sorted(times[warm:])[repeat // 2]


def products(case: Case) -> list[tuple[int, int, int]]:
    """(rows, inner, columns) of the forward's matrix products for each chunk and head."""
    chunk, width = default_chunk(case.length), case.width
    pairs, mixed = (chunk, width, chunk), (chunk, chunk, width)
    read, write = (chunk, width, width), (width, chunk, width)
    if case.family == "decay":
        return [pairs, mixed, read, write]
    if case.variant == "rwkv7":
        return [pairs] * 4 + [mixed] * 4 + [read] * 2 + [write] * 2
    return [pairs] * 2 + [mixed] * 2 + [read] * 2 + [write]


def limit(case: Case) -> float:
    """Milliseconds the matrix products and one pass over the bytes need, measured now."""
    x = {name: value.to(case.device, case.dtype) for name, value in make(case).items()}
    outputs = 1 if case.family != "scan" else 0
    tensors = [*x.values(), x["q" if outputs else "b"]]
    passes = tensors if case.mode == "fwd" else tensors * 2
    targets = [torch.empty_like(value) for value in passes]
    total = clock(lambda: [y.copy_(z) for y, z in zip(targets, passes, strict=True)])
    if case.family == "scan" or case.mode == "step":
        return total
    lanes = case.batch * case.heads * -(-case.length // default_chunk(case.length))
    for rows, inner, columns in products(case):
        left = torch.randn(lanes, rows, inner, device=case.device, dtype=case.dtype)
        right = torch.randn(lanes, inner, columns, device=case.device, dtype=case.dtype)
        out = torch.empty(lanes, rows, columns, device=case.device, dtype=case.dtype)
        once = clock(lambda: torch.bmm(left, right, out=out))  # noqa: B023
        total += once * (1 if case.mode == "fwd" else 3)
    return total


def peak(function: Callable[[], Any]) -> int:
    """Most bytes allocated at once during a call, beyond what was there before (CPU)."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        function()
    assert profiler.profiler is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        most = max(most, level)
    return most


def work(case: Case, x: Inputs, run: Run, backend: str | None) -> Callable[[], Any]:
    """One timed call: forward, forward and backward, or a step."""
    if case.mode != "fwdbwd":

        def forward() -> None:
            with torch.no_grad():
                run(x, backend)

        return forward
    leaves = {name: value.detach().requires_grad_() for name, value in x.items()}
    weights: list[Tensor] = []

    def both() -> None:
        out, _ = run(leaves, backend)
        if not weights:
            weights.append(torch.randn_like(out))
        torch.autograd.grad(out, list(leaves.values()), weights[0])

    return both


def measure(case: Case, loop: bool = True) -> Row:
    """Parity, then time, limit, token loop and peak memory of a case."""
    error = parity(case)
    row = Row(
        family=case.family, variant=case.variant, shape=case.shape, mode=case.mode,
        dtype=str(case.dtype).removeprefix("torch."), device=case.device,
        compiled=case.compiled, ms=None, limit_ms=None, loop_ms=None, peer=None, peer_ms=None,
        parity=error, peak_bytes=None,
    )  # fmt: skip
    if not error <= PARITY[case.dtype]:
        return row
    x = {name: value.to(case.device, case.dtype) for name, value in make(case).items()}
    run: Run = torch.compile(call(case), fullgraph=True) if case.compiled else call(case)
    function = work(case, x, run, None)
    row["ms"] = clock(function)
    row["limit_ms"] = limit(case)
    if loop:
        row["loop_ms"] = clock(work(case, x, call(case), "reference"), repeat=1, warm=1)
    if case.device == "cpu":
        row["peak_bytes"] = peak(function)
    return row


def cases(device: str = "cpu", families: Iterable[str] = ("scan", "decay", "delta")) -> list[Case]:
    """The standard table: every family and variant, eager and compiled, and its decode step."""
    found = [
        Case("scan", "real", width=1024),
        Case("decay", "per head"),
        Case("decay", "per channel"),
        Case("delta", "deltanet"),
        Case("delta", "gated"),
        Case("delta", "kda"),
        Case("delta", "rwkv7"),
    ]
    found = [replace(case, device=device) for case in found if case.family in set(families)]
    compiled = [replace(case, compiled=True) for case in found]
    steps = [replace(case, mode="step", length=1) for case in found]
    return [*found, *compiled, *steps]


def rows(
    device: str = "cpu", families: Iterable[str] = ("scan", "decay", "delta")
) -> Iterable[Row]:
    """Measure the standard table, one row at a time."""
    for case in cases(device, families):
        yield measure(case, loop=not case.compiled)
