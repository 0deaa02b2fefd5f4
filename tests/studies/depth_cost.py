"""What depth by looping costs, measured: time against unrolled layers, memory against iterations.

    python -m tests.studies.depth_cost

prints the time of a training step and of a forward pass of a loop of four and of four layers with weights
of their own (the median of interleaved runs, the same width and mixers), their parameters, and the most
memory that is alive in a forward pass of 4 and of 64 iterations.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import archdsl
from archdsl.compiler.models.model import Model

BLOCK = "residual { rms_norm gla(heads = 4) } residual { rms_norm swiglu }"
TIMES, MANY, ROUNDS = 4, 64, 9


def model_of(layer: str) -> Model:
    """A model of width 256 around a layer."""
    text = f"model {{ embed(dim = 256, vocab = 256) {layer} rms_norm lm_head(tied = true) }}"
    return archdsl.loads(text).sample(0).compile()


def step(model: Model, tokens: Tensor) -> None:
    """Forward and backward."""
    model.zero_grad(set_to_none=True)
    model.loss(tokens[:, :-1], tokens[:, 1:]).backward()


def forward(model: Model, tokens: Tensor) -> None:
    """Forward alone."""
    with torch.no_grad():
        model(tokens)


def compared(
    run: Callable[[Model, Tensor], None], models: list[Model], tokens: Tensor
) -> list[float]:
    """Median seconds of each, the models taking turns."""
    seconds: list[list[float]] = [[] for _ in models]
    for turn in range(ROUNDS + 1):
        for model, found in zip(models, seconds, strict=True):
            start = perf_counter()
            run(model, tokens)
            found += [perf_counter() - start] if turn else []
    return [median(found) for found in seconds]


class Live(TorchDispatchMode):
    """The most bytes of results that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what an operation gives, until it is gone."""
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, Tensor):
                self.now += x.nbytes
                weakref.finalize(x, self._gone, x.nbytes)
        self.most = max(self.most, self.now)
        return out

    def _gone(self, size: int) -> None:
        self.now -= size


def main() -> None:
    """Print the figures."""
    torch.set_num_threads(1)
    tokens = torch.randint(256, (2, 512), generator=torch.Generator().manual_seed(0))
    loop, plain = (
        model_of(f"loop({TIMES}) {{ {BLOCK} }}"),
        model_of(f"repeat({TIMES}) {{ {BLOCK} }}"),
    )
    one = model_of(BLOCK)
    print(f"parameters: loop {loop.cost.params:,}, one layer {one.cost.params:,}, "
          f"{TIMES} layers {plain.cost.params:,}")  # fmt: skip
    for name, run in (("training step", step), ("forward", forward)):
        looped, unrolled = compared(run, [loop, plain], tokens)
        print(f"{name}: loop {looped * 1e3:.1f} ms, unrolled {unrolled * 1e3:.1f} ms, "
              f"ratio {looped / unrolled:.3f}")  # fmt: skip
    for times in (TIMES, MANY):
        loop.loops()[0][1].times = times
        with torch.no_grad(), Live() as live:
            loop(tokens)
        print(f"{times} iterations: {live.most / 2**20:.2f} MiB of activations at most")


if __name__ == "__main__":
    main()
