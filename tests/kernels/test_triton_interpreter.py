"""The Triton kernels in Triton's interpreter against the token loops: outputs, states, gradients.

The interpreter must be asked for before Triton is imported, so a family's cases run in a process of
their own: this file as a script, which prints the errors of every case.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_checks import Tensors, cast, error, randn, run, uniform, unit
from torch import Tensor

LIMIT = 2e-6
"""RMS ratio per head in float32."""

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def gates(gate: str, batch: int, length: int, heads: int, width: int) -> Tensors:
    """A log decay by name, some of its gates closed; nothing for `none`."""
    shapes = {"constant": (heads,), "head": (batch, length, heads)}
    if gate == "none":
        return {}
    shape = shapes.get(gate, (batch, length, heads, width))
    return {"log": -uniform(*shape) * torch.where(uniform(*shape) < 0.2, 100.0, 1.0)}


def decay_case(
    gate: str, read: str, length: int, key: int, value: int, bounds: list[int] | None = None
) -> tuple[Tensors, Callable[..., Any]]:
    from archdsl.kernels.decay import decay

    batch, rows = (2, 2) if bounds is None else (1, len(bounds) - 1)
    wide = (batch, length, 2)
    x = {"q": randn(*wide, key), "k": randn(*wide, key), "v": randn(*wide, value)}
    x |= gates(gate, *wide, key) | {"state": randn(rows, 2, key, value)}
    packed = None if bounds is None else torch.tensor(bounds)

    def call(x: Tensors, backend: str) -> tuple[Tensor, tuple[Tensor, ...]]:
        out, state = decay(
            x["q"], x["k"], x["v"], x.get("log"), scale=0.3, initial_state=x["state"], read=read,
            cu_seqlens=packed, backend=backend, chunk=None if backend == "reference" else 16,
        )  # fmt: skip
        assert isinstance(state, Tensor)
        return out, (state,)

    return x, call


def scan_case(
    length: int, width: int, pairs: bool = False, bounds: list[int] | None = None
) -> tuple[Tensors, Callable[..., Any]]:
    from archdsl.kernels.scan import scan

    batch, rows = (2, 2) if bounds is None else (1, len(bounds) - 1)
    shape = (batch, length, width)
    x = {"a": uniform(*shape), "b": randn(*shape), "state": randn(rows, width)}
    if pairs:
        x = {name: torch.complex(part, randn(*part.shape)) / 2 for name, part in x.items()}
    packed = None if bounds is None else torch.tensor(bounds)

    def call(x: Tensors, backend: str) -> tuple[Tensor, tuple[Tensor, ...]]:
        start = x["state"]
        out, last = scan(x["a"], x["b"], initial_state=start, cu_seqlens=packed, backend=backend)
        return out, (last,)

    return x, call


def delta_case(
    gate: str,
    length: int,
    key: int,
    value: int,
    rank: int = 1,
    separate: bool = False,
    bounds: list[int] | None = None,
) -> tuple[Tensors, Callable[..., Any]]:
    from archdsl.kernels.delta import delta

    batch, rows = (2, 2) if bounds is None else (1, len(bounds) - 1)
    wide = (batch, length * rank, 2)
    x = {"q": randn(batch, length, 2, key), "k": unit(*wide, key), "v": randn(*wide, value)}
    x |= {"beta": 2 * uniform(*wide)} | ({"erase": unit(*wide, key)} if separate else {})
    x |= gates(gate, batch, length, 2, key) | {"state": randn(rows, 2, key, value)}
    packed = None if bounds is None else torch.tensor(bounds)

    def call(x: Tensors, backend: str) -> tuple[Tensor, tuple[Tensor, ...]]:
        out, state = delta(
            x["q"], x["k"], x["v"], x["beta"], x.get("log"), scale=0.3, initial_state=x["state"],
            erase_key=x.get("erase"), rank=rank, cu_seqlens=packed, backend=backend,
            chunk=None if backend == "reference" else 16,
        )  # fmt: skip
        return out, (state,)

    return x, call


def general_case(
    gate: str, length: int, key: int, value: int, bounds: list[int] | None = None
) -> tuple[Tensors, Callable[..., Any]]:
    """RWKV-7's form: erased before the decay, and written besides."""
    from archdsl.kernels.delta import delta_general

    batch, rows = (2, 2) if bounds is None else (1, len(bounds) - 1)
    wide = (batch, length, 2)
    x = {"q": randn(*wide, key), "k": randn(*wide, key), "v": randn(*wide, value)}
    x |= {"a": -unit(*wide, key)} | gates(gate, *wide, key) | {"state": randn(rows, 2, key, value)}
    x["b"] = -x["a"] * uniform(*wide, key)
    packed = None if bounds is None else torch.tensor(bounds)

    def call(x: Tensors, backend: str) -> tuple[Tensor, tuple[Tensor, ...]]:
        out, state = delta_general(
            x["q"], x["k"], x["v"], x["a"], x["b"], x.get("log"), scale=0.3,
            initial_state=x["state"], cu_seqlens=packed, backend=backend,
            chunk=None if backend == "reference" else 16,
        )  # fmt: skip
        return out, (state,)

    return x, call


CASES: dict[str, list[tuple[Any, ...]]] = {
    "decay": [
        ("none", "after", 15, 16, 16),
        ("head", "after", 33, 16, 32),
        ("head", "before", 20, 32, 16),
        ("channel", "after", 33, 16, 16),
        ("channel", "before", 20, 20, 18, [0, 1, 1, 20]),
        ("constant", "after", 15, 16, 16, [0, 3, 15]),
        ("channel", "after", 1, 16, 16),
    ],
    "delta": [
        ("none", 15, 16, 16),
        ("head", 33, 16, 32),
        ("head", 10, 32, 18, 2, False, [0, 1, 1, 10]),
        ("channel", 33, 16, 16),
        ("channel", 20, 16, 16, 1, True),
        ("head", 1, 16, 16, 3),
    ],
    "general": [
        ("channel", 33, 16, 16),
        ("channel", 20, 20, 18, [0, 1, 1, 20]),
        ("head", 20, 16, 32),
        ("none", 18, 32, 16),
    ],
    "scan": [(1, 16), (33, 5, False, [0, 1, 1, 20, 33]), (70, 3), (35, 3, True)],
}


def errors(family: str) -> dict[str, list[float]]:
    """Errors of a family's cases: outputs, states and gradients, in float32."""
    torch.set_num_threads(1)
    cases = {"decay": decay_case, "delta": delta_case, "general": general_case, "scan": scan_case}
    make = cases[family]
    found: dict[str, list[float]] = {}
    for case in CASES[family]:
        torch.manual_seed(0)
        x, call = make(*case)
        expected = run(lambda leaves, call=call: call(leaves, "reference"), x)
        got = run(lambda leaves, call=call: call(leaves, "triton"), cast(x, torch.float32))
        found[str(case)] = [error(y, z) for y, z in zip(got, expected, strict=True)]
    return found


@needs_triton
@pytest.mark.parametrize("family", list(CASES))
def test_interpreted_kernels_agree_with_the_token_loop(family: str) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", __file__, family]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {str(case) for case in CASES[family]}
    for case, values in found.items():
        assert max(values) <= LIMIT, (case, [f"{value:.1e}" for value in values])


def test_triton_is_refused_in_words_where_it_cannot_run() -> None:
    from archdsl.kernels.decay import choose

    q = torch.zeros(1, 8, 1, 16)
    with pytest.raises(ValueError, match=r"needs a CUDA device|not installed"):
        choose(q, backend="triton")
    assert choose(q)[0] == "chunked"


if __name__ == "__main__":
    print(json.dumps(errors(sys.argv[1])))
