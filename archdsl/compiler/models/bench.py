"""Speed of a whole model: training throughput, step latency and peak memory, fused beside unfused.

What is compared is first shown to be the same: :func:`parity` is the worst RMS difference of logits and
of every weight's gradient. Fused and unfused are timed in turns, so that a machine that slows down slows
both. "Unfused" is the graph as it was lowered, on PyTorch's own operations but for the recurrences, with
a loss over all logits at once. A peer's model of the same architecture has other weights: its speed alone
is measured, of training.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from archdsl.blocks.nn.dense import Embedding, Head
from archdsl.compiler.models.build import compile_arch
from archdsl.compiler.models.model import Model, leaves
from archdsl.compiler.models.peer import PEER, PeerModel
from archdsl.compiler.spaces.arch import Arch
from archdsl.kernels.bench import peak as peak_on_cpu

Variant = Literal["unfused", "fused"]
Mode = Literal["train", "step"]

STAGES: Mapping[Variant, str] = {"unfused": "lower", "fused": "kernels"}
"""The compiler stage each variant stops after."""

PARITY = {"float32": 2e-4, "float64": 1e-9, "bfloat16": 5e-2, "float16": 2e-2}
"""Largest RMS ratio that counts as the same model.

Errors grow as a random walk over the terms of a sum and add up over operations in a row: for float32
1.2e-7 · √96 tokens · 192 (12 layers of 16 operations). Half precisions are given what a layer norm of a
few such layers leaves of their two to three digits.
"""

PARITY_LENGTH = 96
"""Tokens of the comparison: more than a chunk of any kernel."""


class Row(TypedDict):
    """One measurement; times in milliseconds, memory in bytes, ``None`` where nothing was measured.

    ``limit_ms`` of a step is the time to read its weights and state once, at the rate of the same run.
    """

    spec: str
    variant: str
    mode: str
    compiled: bool
    device: str
    dtype: str
    threads: int
    batch: int
    length: int
    parity: float | None
    tokens_per_second: float | None
    ms: float | None
    limit_ms: float | None
    peak_bytes: int | None


@dataclass(frozen=True)
class Setting:
    """What is measured: ``rounds`` of each, sequences ``[batch, length]``, steps behind ``length`` tokens."""

    spec: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    batch: int = 1
    length: int = 1024
    rounds: int = 3
    compiled: bool = False


def parity(arch: Arch, setting: Setting) -> float:
    """The worst RMS ratio of fused to unfused: logits, and the gradient of every weight."""
    tokens = _tokens(arch, 1, min(setting.length, PARITY_LENGTH) + 1, setting.device)
    found = [_evidence(built(arch, variant, setting), tokens, variant) for variant in STAGES]
    pairs = [(found[0][name], found[1][name]) for name in found[0]]
    return max(_ratio(expected, got) for expected, got in pairs)


def _evidence(model: Model, tokens: Tensor, variant: Variant) -> dict[str, Tensor]:
    """Logits, and gradients by the names weights are saved under (merged ones apart)."""
    with torch.no_grad():
        found = {"logits": model(tokens[:, :-1])}
    loss_of(model, variant)(tokens).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros(()) if parameter.grad is None else parameter.grad)
    return found | model.state_dict()


def _ratio(expected: Tensor, found: Tensor) -> float:
    wide = expected.double()
    size = wide.square().mean().sqrt() + 1e-12
    return float((found.double() - wide).square().mean().sqrt() / size)


def built(arch: Arch, variant: Variant, setting: Setting) -> Model:
    """The model of a variant."""
    return compile_arch(arch, setting.device, setting.dtype, stage=STAGES[variant])


def loss_of(model: Model, variant: Variant) -> Callable[[Tensor], Tensor]:
    """The loss of tokens ``[B, T + 1]``; the unfused one holds all logits."""
    if variant == "fused":
        return lambda tokens: model.loss(tokens[:, :-1], tokens[:, 1:])
    return lambda tokens: F.cross_entropy(
        model(tokens[:, :-1]).flatten(0, 1).float(), tokens[:, 1:].flatten()
    )


def measure(
    arch: Arch,
    setting: Setting,
    modes: Sequence[Mode] = ("train", "step"),
    peer: PeerModel | None = None,
) -> Iterator[Row]:
    """Rows as they are found; no speed where parity fails, and of a peer no parity."""
    error = parity(arch, setting)
    found: dict[str, _Figures]
    for mode in modes:
        if error > PARITY[setting.dtype]:
            found = {variant: _Figures() for variant in STAGES}
        elif mode == "train":
            found = _training(arch, setting, peer)
        else:
            found = _stepping(arch, setting)
        for variant, figures in found.items():
            yield _row(setting, variant, mode, None if variant == PEER else error, figures)


@dataclass
class _Figures:
    ms: float | None = None
    limit_ms: float | None = None
    peak_bytes: int | None = None


def _row(setting: Setting, variant: str, mode: Mode, error: float | None, found: _Figures) -> Row:
    tokens = setting.batch * (setting.length if mode == "train" else 1)
    return Row(
        spec=setting.spec,
        variant=variant,
        mode=mode,
        compiled=setting.compiled,
        device=setting.device,
        dtype=setting.dtype,
        threads=torch.get_num_threads(),
        batch=setting.batch,
        length=setting.length,
        parity=error,
        tokens_per_second=None if found.ms is None else 1000 * tokens / found.ms,
        ms=found.ms,
        limit_ms=found.limit_ms,
        peak_bytes=found.peak_bytes,
    )


def _training(arch: Arch, setting: Setting, peer: PeerModel | None = None) -> dict[str, _Figures]:
    """Forward, backward and an AdamW step, the same optimiser for all."""
    tokens = _tokens(arch, setting.batch, setting.length + 1, setting.device)
    steps: dict[str, Callable[[], object]] = {}
    for variant in STAGES:
        model = built(arch, variant, setting)
        steps[variant] = _training_step(model, loss_of(model, variant), setting, tokens)
    if peer is not None and not setting.compiled:  # its kernels stand outside compiled graphs
        theirs = peer.to(setting.device, getattr(torch, setting.dtype))
        steps[PEER] = _training_step(theirs, theirs.loss, setting, tokens)
    peaks = {variant: peak(step, setting.device) for variant, step in steps.items()}
    times = in_turns(steps, setting)  # the peaks were its warm-up
    return {variant: _Figures(times[variant], None, peaks[variant]) for variant in steps}


def _training_step(
    model: torch.nn.Module, loss: Callable[[Tensor], Tensor], setting: Setting, tokens: Tensor
) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    run = torch.compile(loss) if setting.compiled else loss

    def step() -> None:
        optimizer.zero_grad()
        run(tokens).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _stepping(arch: Arch, setting: Setting) -> dict[str, _Figures]:
    """One token behind ``length`` others."""
    tokens = _tokens(arch, setting.batch, setting.length, setting.device)
    steps: dict[str, Callable[[], object]] = {}
    limits: dict[str, float] = {}
    for variant in STAGES:
        model = built(arch, variant, setting).eval()
        with torch.no_grad():
            _, state = model.prefill(tokens, model.init_state(setting.batch))
        limits[variant] = read_time(model, state)
        steps[variant] = _decoding_step(model, tokens[:, 0], state, setting)
        steps[variant]()
    times = in_turns(steps, setting, repeats=20)
    return {variant: _Figures(times[variant], limits[variant]) for variant in STAGES}


def _decoding_step(
    model: Model, token: Tensor, state: dict[str, Any], setting: Setting
) -> Callable[[], object]:
    run = torch.compile(model.step) if setting.compiled else model.step

    @torch.no_grad()
    def step() -> object:
        return run(token, state)

    return step


def read_time(model: Model, state: dict[str, Any]) -> float:
    """Milliseconds to read, once, the weights that a token needs and a decoding state."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, Embedding)}
    tied = any(isinstance(m, Head) and m.weight is None for m in model.modules())
    read = [p for p in model.parameters() if tied or id(p) not in tables]
    tensors = [p.detach().flatten() for p in read] + [
        s.flatten() for s in leaves(state) if s.numel()
    ]
    return 1000 * min(
        _seconds(lambda: [x.sum() for x in tensors], tensors[0].device) for _ in range(5)
    )


def in_turns(
    runs: Mapping[str, Callable[[], object]], setting: Setting, repeats: int = 1
) -> dict[str, float]:
    """The median time of each in milliseconds, one after the other, again and again; all are warm."""
    device = torch.device(setting.device)
    found: dict[str, list[float]] = {variant: [] for variant in runs}
    for _ in range(setting.rounds):
        for variant, run in runs.items():
            found[variant] += [_seconds(run, device) for _ in range(repeats)]
    return {variant: 1000 * median(times) for variant, times in found.items()}


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak(run: Callable[[], object], device: str) -> int:
    """Most bytes that a warm run has allocated at once, beyond what was there before."""
    run()
    gc.collect()
    if torch.device(device).type != "cuda":
        return peak_on_cpu(run)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() - before


def _tokens(arch: Arch, batch: int, length: int, device: str) -> Tensor:
    """Random tokens of the model's vocabulary."""
    embedding = next(node.op for _, node in arch.graph.walk() if hasattr(node.op, "symbols"))
    generator = torch.Generator().manual_seed(0)
    return torch.randint(embedding.symbols, (batch, length), generator=generator).to(device)
