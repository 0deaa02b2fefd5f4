"""Other people's kernels for the same recurrences, timed beside ours where they are installed.

flash-linear-attention (the package `fla`): Triton kernels on a GPU; on a CPU its users have plain
PyTorch functions of chunks for some of its recurrences.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Inputs = dict[str, Tensor]
Adapter = Callable[[Callable[..., Any], Inputs, float], Any]


class Peer(NamedTuple):
    """A peer's name, and its call: inputs as `bench.make` gives them and a scale, to the output."""

    name: str
    run: Callable[[Inputs, float], Tensor]


def _heads_first(x: Inputs, *names: str) -> list[Tensor]:
    return [x[name].transpose(1, 2) for name in names]


def _right(x: Inputs) -> Tensor:
    """The write key of RWKV-7's erase."""
    return x["k"] * x["beta"].unsqueeze(-1)


def _dplr(function: Callable[..., Any], x: Inputs, scale: float) -> Any:
    del scale  # it is the same, inside
    wide = x | {"a": -x["k"], "b": _right(x)}
    return function(*_heads_first(wide, "q", "k", "v", "a", "b", "log_decay"))[0].transpose(1, 2)


def _rwkv7(function: Callable[..., Any], x: Inputs, scale: float) -> Any:
    return function(x["q"], x["log_decay"], x["k"], x["v"], -x["k"], _right(x), scale=scale)


def _rule(function: Callable[..., Any], x: Inputs, scale: float) -> Any:
    del scale
    return function(*_heads_first(x, "q", "k", "v", "beta"))[0].transpose(1, 2)


def _with(*names: str) -> Adapter:
    """Inputs by position, the scale by name."""
    return lambda function, x, scale: function(*(x[name] for name in names), scale=scale)


CPU: Mapping[tuple[str, str], tuple[str, str, Adapter]] = {
    ("decay", "per head"): (
        "simple_gla.naive", "naive_chunk_simple_gla", _with("q", "k", "v", "log_decay")
    ),
    ("delta", "deltanet"): ("delta_rule.naive", "delta_rule_chunkwise", _rule),
    ("delta", "gated"): (
        "gated_delta_rule.naive", "naive_chunk_gated_delta_rule",
        _with("q", "k", "v", "log_decay", "beta"),
    ),
    ("delta", "kda"): (
        "kda.naive", "naive_chunk_kda", _with("q", "k", "v", "log_decay", "beta")
    ),
    ("delta", "rwkv7"): ("generalized_delta_rule.dplr.naive", "dplr_chunkwise", _dplr),
}  # fmt: skip
"""fla's plain PyTorch functions of chunks: module under `fla.ops`, name, and how it is called.

Its scans and its decay per channel go token by token there, in time that grows with T^2 backward.
"""

CUDA: Mapping[tuple[str, str], tuple[str, str, Adapter]] = {
    ("scan", "real"): ("hgrn", "chunk_hgrn", lambda f, x, _: f(x["b"], x["a"].log())),
    ("decay", "per head"): (
        "simple_gla", "chunk_simple_gla", _with("q", "k", "v", "log_decay")
    ),
    ("decay", "per channel"): ("gla", "chunk_gla", _with("q", "k", "v", "log_decay")),
    ("delta", "deltanet"): ("delta_rule", "chunk_delta_rule", _with("q", "k", "v", "beta")),
    ("delta", "gated"): (
        "gated_delta_rule", "chunk_gated_delta_rule", _with("q", "k", "v", "log_decay", "beta")
    ),
    ("delta", "kda"): ("kda", "chunk_kda", _with("q", "k", "v", "log_decay", "beta")),
    ("delta", "rwkv7"): ("rwkv7", "chunk_rwkv7", _rwkv7),
}  # fmt: skip
"""fla's Triton kernels, likewise."""


def flash_linear_attention(device: str) -> dict[tuple[str, str], Peer]:
    """What of fla can be loaded for a device, by family and variant.

    Raises:
        ImportError: nothing can.
    """
    found, reason = {}, ""
    for key, (module, name, adapter) in (CUDA if device == "cuda" else CPU).items():
        try:
            function = getattr(importlib.import_module(f"fla.ops.{module}"), name)
        except (ImportError, AttributeError, RuntimeError, ValueError) as error:
            reason = str(error)
            continue
        found[key] = Peer(f"fla {name}", _output(adapter, function))
    if not found:
        raise ImportError(reason)
    return found


def _output(adapter: Adapter, function: Callable[..., Any]) -> Callable[[Inputs, float], Tensor]:
    """A call that returns the output alone."""

    def run(x: Inputs, scale: float) -> Tensor:
        out = adapter(function, x, scale)
        first = out[0] if isinstance(out, tuple) else out
        assert isinstance(first, torch.Tensor)
        return first

    return run
