"""Speed of the kernels beside what the machine could do: rows of numbers, parity first.

`measure(case)` compares a form with the float64 reference, and only if that holds times it, beside
the limit (the family's own matrix products run alone, and one pass over every input, output and
gradient, both timed in the same process), the token loop, and a peer where one is given.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor
from torch.nn import functional

from archdsl.kernels.decay import decay
from archdsl.kernels.decay.flops import default_chunk
from archdsl.kernels.delta import delta, delta_general
from archdsl.kernels.peers import Peer
from archdsl.kernels.pool import POOL
from archdsl.kernels.scan import scan

FAMILIES = ("scan", "decay", "delta")

LONG = 16_384
"""Length of the rows that show how the time grows."""

PEER_PARITY = 2e-2
"""Largest RMS ratio of a peer's output to ours for which its time is worth showing."""

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
        x = {"a": torch.sigmoid(_normal(*shape)), "b": _normal(*shape)}
        return x | ({"state": _normal(batch, case.width)} if case.mode == "step" else {})
    wide = (batch, length, case.heads, case.width)
    x = {name: _normal(*wide) for name in "qkv"}
    gate = wide if case.variant in ("per channel", "kda", "rwkv7") else wide[:3]
    if case.variant not in ("none", "deltanet"):
        x["log_decay"] = functional.logsigmoid(_normal(*gate)) / 4
    if case.family == "delta":
        x["k"] = functional.normalize(x["k"], dim=-1)
        x["beta"] = torch.sigmoid(_normal(*wide[:3]))
    if case.mode == "step":
        x["state"] = _normal(batch, case.heads, case.width, case.width)
    return x


def call(case: Case) -> Run:
    """The kernel call of a case, as a function of inputs and backend."""

    def run(x: Inputs, backend: str | None) -> tuple[Tensor, ...]:
        how: dict[str, Any] = {"initial_state": x.get("state"), "backend": backend}
        if case.family == "scan":
            return scan(x["a"], x["b"], **how)
        qkv, log = (x["q"], x["k"], x["v"]), x.get("log_decay")
        how["scale"] = case.width**-0.5
        if case.family == "decay":
            out, state = decay(*qkv, log, **how)
            assert isinstance(state, Tensor)
            return out, state
        if case.variant == "rwkv7":
            right = x["k"] * x["beta"].unsqueeze(-1)
            return delta_general(*qkv, -x["k"], right, log, **how)
        return delta(*qkv, x["beta"], log, **how)

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


SHORT, LASTING = 0.5, 3000.0
"""Milliseconds below which calls are timed many at a time, and above which warm ones are enough."""


def clock(function: Callable[[], Any], repeat: int = 7, warm: int = 2) -> float:
    """Median milliseconds of a call, the device idle before and after.

    Short calls are timed in groups; of calls of seconds, the faster of the `warm` ones counts.
    """
    first = min(_elapsed(function, 1) for _ in range(warm))
    if first > LASTING:
        return first
    group = 1 if first > SHORT else max(1, int(20 * SHORT / max(first, 1e-3)))
    return sorted(_elapsed(function, group) for _ in range(repeat))[repeat // 2]


def _elapsed(function: Callable[[], Any], group: int) -> float:
    """Milliseconds a call, of `group` calls in a row."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(group):
        function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3 / group


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


def limit(case: Case, repeat: int = 7) -> float:
    """Milliseconds the matrix products and one pass over the bytes need, measured now.

    A step has no products to speak of: it reads its inputs, the state above all.
    """
    x = {name: value.to(case.device, case.dtype) for name, value in make(case).items()}
    if case.mode == "step":
        return clock(lambda: [y.sum() for y in x.values()], repeat)
    outputs = 1 if case.family != "scan" else 0
    tensors = [*x.values(), x["q" if outputs else "b"]]
    passes = tensors if case.mode == "fwd" else tensors * 2
    targets = [torch.empty_like(value) for value in passes]
    total = clock(lambda: [y.copy_(z) for y, z in zip(targets, passes, strict=True)], repeat)
    if case.family == "scan":
        return total
    lanes = case.batch * case.heads * -(-case.length // default_chunk(case.length))
    for rows, inner, columns in products(case):
        left = torch.randn(lanes, rows, inner, device=case.device, dtype=case.dtype)
        right = torch.randn(lanes, inner, columns, device=case.device, dtype=case.dtype)
        out = torch.empty(lanes, rows, columns, device=case.device, dtype=case.dtype)
        once = clock(lambda: torch.bmm(left, right, out=out), repeat)  # noqa: B023
        total += once * (1 if case.mode == "fwd" else 3)
    return total


@contextmanager
def _muted() -> Iterator[None]:
    """Nothing on standard error, where the profiler's library announces itself."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def peak(function: Callable[[], Any]) -> int:
    """Most bytes allocated at once during a call, beyond what was there before (CPU).

    Memory kept for reuse is let go first, so that what the call takes of it counts.
    """
    POOL.clear()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    profile = torch.profiler.profile(activities=kinds, profile_memory=True, acc_events=True)
    with _muted(), profile as profiler:
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


def compared(case: Case, run: Run, x: Inputs) -> float:
    """Worst error of a compiled call's outputs and gradients, whose inputs are `x`, to the eager."""
    found, expected = (_differentiate(each, x, None) for each in (run, call(case)))
    return max(_ratio(y.double(), z.double()) for y, z in zip(found, expected, strict=True))


@dataclass(frozen=True)
class Effort:
    """How much is measured: calls per timing, the token loop or not, which peers."""

    repeat: int = 5
    loop: bool = True
    peers: Mapping[tuple[str, str], Peer] | None = None


def measure(case: Case, effort: Effort | None = None) -> Row:
    """Parity, then time, limit, token loop, peer and peak memory of a case."""
    effort = effort or Effort()
    row = Row(
        family=case.family, variant=case.variant, shape=case.shape, mode=case.mode,
        dtype=str(case.dtype).removeprefix("torch."), device=case.device,
        compiled=case.compiled, ms=None, limit_ms=None, loop_ms=None, peer=None, peer_ms=None,
        parity=parity(case), peak_bytes=None,
    )  # fmt: skip
    x = {name: value.to(case.device, case.dtype) for name, value in make(case).items()}
    run = call(case)
    if case.compiled and row["parity"] <= PARITY[case.dtype]:
        run = torch.compile(run, fullgraph=True)
        row["parity"] = max(row["parity"], compared(case, run, x))
    if row["parity"] <= PARITY[case.dtype]:  # false for NaN
        _time(case, effort, row, x, run)
    return row


def _time(case: Case, effort: Effort, row: Row, x: Inputs, run: Run) -> None:
    """Fill in what a row whose parity holds may show."""
    function = work(case, x, run, None)
    repeat = min(effort.repeat, 3) if case.length >= LONG else effort.repeat
    row["ms"], row["limit_ms"] = clock(function, repeat), limit(case, repeat)
    if effort.loop and not case.compiled and _loop_bytes(case) <= LOOP_BYTES:
        row["loop_ms"] = clock(work(case, x, call(case), "reference"), repeat=1, warm=1)
    if case.device == "cpu":
        row["peak_bytes"] = peak(function)
    else:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        row["peak_bytes"] = torch.cuda.max_memory_allocated() - before
    peer = (effort.peers or {}).get((case.family, case.variant))
    long = case.device == "cpu" and case.length >= LONG
    if peer is not None and case.mode != "step" and not case.compiled and not long:
        row["peer"], row["peer_ms"] = peer.name, _time_peer(case, effort, x, peer)


def _loop_bytes(case: Case) -> int:
    """Bytes of every token's state."""
    wide = case.width if case.family == "scan" else case.heads * case.width**2
    return 4 * case.batch * case.length * wide


def _time_peer(case: Case, effort: Effort, x: Inputs, peer: Peer) -> float | None:
    """Milliseconds of a peer, None where its output is not ours or it fails here."""

    def run(x: Inputs, backend: str | None) -> tuple[Tensor, ...]:
        return peer.run(x, case.width**-0.5), x["b" if "b" in x else "v"]

    try:
        with torch.no_grad():
            found, expected = run(x, None)[0], call(case)(x, None)[0]
        if not _ratio(found.double(), expected.double()) <= PEER_PARITY:
            return None
        return clock(work(case, x, run, None), min(effort.repeat, 3), warm=1)
    except (RuntimeError, NotImplementedError, AssertionError):
        return None


VARIANTS = {
    "scan": ("real",),
    "decay": ("per head", "per channel"),
    "delta": ("deltanet", "gated", "kda", "rwkv7"),
}
"""What the standard table times of each family."""

GROWTH = ("real", "per head", "per channel", "gated")
"""Variants that the standard table times at a long length, too."""

GPU_SHAPES = (
    (1, 8192, 96, 128), (2, 16384, 16, 128), (4, 2048, 16, 128), (4, 4096, 64, 128),
    (8, 2048, 32, 256), (8, 1024, 8, 64),
)  # fmt: skip
"""Batch, length, heads and width in flash-linear-attention's benchmark."""

LOOP_BYTES = 1 << 30
"""States of a token loop, kept for its backward, beyond which it is not timed."""


def cases(
    device: str = "cpu", families: Iterable[str] = FAMILIES, sizes: Mapping[str, int] | None = None
) -> list[Case]:
    """The standard table: every family and variant eager, a decode step, long ones, and compiled.

    `sizes` sets batch, length, heads or width in place of the standard ones (and of the long rows).
    """
    given = dict(sizes or {})
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    found = [
        Case(family, variant, device=device, dtype=dtype, width=1024 if family == "scan" else 64)
        for family in FAMILIES if family in set(families) for variant in VARIANTS[family]
    ]  # fmt: skip
    eager = [replace(case, **given) for case in found]  # type: ignore[arg-type]
    steps = [replace(case, mode="step", length=1) for case in eager]
    compiled = [replace(case, compiled=True) for case in eager]
    if device == "cuda" and not given:
        return [*_on_gpu(found), *steps, *compiled]
    long = [replace(case, length=LONG) for case in eager if case.variant in GROWTH]
    return [*eager, *steps, *([] if "length" in given else long), *compiled]


def _on_gpu(found: Iterable[Case]) -> list[Case]:
    """Cases at the shapes others publish, forward alone and with the backward."""
    modes: tuple[Mode, ...] = ("fwd", "fwdbwd")
    return [
        replace(case, batch=batch, length=length, heads=heads, mode=mode)
        if case.family == "scan"
        else replace(case, batch=batch, length=length, heads=heads, width=width, mode=mode)
        for case in found for batch, length, heads, width in GPU_SHAPES for mode in modes
    ]  # fmt: skip


def selected(
    table: Iterable[Case],
    modes: Collection[str] = (),
    compiled: bool | None = None,
    dtype: str | None = None,
) -> list[Case]:
    """A table in other modes (all where none is named), eager or compiled only, in another dtype."""
    found = [replace(case, dtype=getattr(torch, dtype)) if dtype else case for case in table]
    if "fwd" in modes:
        found = [*[replace(case, mode="fwd") for case in found if case.mode == "fwdbwd"], *found]
    if modes:
        found = [case for case in found if case.mode in modes]
    return [case for case in found if compiled is None or case.compiled == compiled]


def rows(table: Iterable[Case], effort: Effort | None = None) -> Iterator[Row]:
    """Measure a table, one row at a time."""
    for case in table:
        yield measure(case, effort)


def machine() -> dict[str, str | int]:
    """What the numbers were measured on: processor, cores, threads, its bfloat16 units, versions."""
    details = _processor()
    flags = set(details.get("flags", "").split())
    units = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    found: dict[str, str | int] = {
        "cpu": details.get("model name", platform.processor() or platform.machine()),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "bfloat16": " ".join(units) or "no units",
        "torch": torch.__version__,
        "triton": _version("triton"),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor() -> dict[str, str]:
    """The first processor's entries in Linux's list; nothing elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _version(package: str) -> str:
    """The version of a package, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
