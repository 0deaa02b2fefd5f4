"""The same architecture built of flash-linear-attention's layers, to be timed beside ours.

A table says, for each of our layers that the package has, its class there and its arguments. Weights
are drawn anew, so that outputs are not compared; that it is the same architecture is shown by the
number of its parameters. Class names and arguments are those of flash-linear-attention 0.5.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from archdsl.blocks.base import scaled
from archdsl.compiler.spaces.arch import Arch
from archdsl.compiler.terms.elements import Element

PEER = "flash-linear-attention"

SAME = 0.01
"""Largest share by which the parameters of one architecture may differ: biases of a few channels."""


class Unmatched(Exception):
    """Why an architecture cannot be built of the peer's layers here, in one sentence."""


Arguments = Callable[[Any, int], dict[str, Any]]


class Part(NamedTuple):
    """A class of the peer's, its arguments for a component in a stream so wide, what it can be told.

    Any other argument of the component must be as it is where nothing is written.
    """

    path: str
    arguments: Arguments
    known: frozenset[str]


def _heads(layer: Any, width: int) -> dict[str, Any]:
    """Arguments of every memory."""
    return {
        "hidden_size": width,
        "num_heads": layer.memory.heads,
        "norm_eps": float(layer.norm_eps),
    }


def _widths(layer: Any, width: int) -> dict[str, Any]:
    """Keys and values as shares of the stream."""
    memory = layer.memory
    shares = {"expand_k": float(memory.expand_k), "expand_v": float(memory.expand_v)}
    return _heads(layer, width) | shares


def _head_widths(layer: Any, width: int) -> dict[str, Any]:
    """Channels of a head's keys, and its values as a share of them."""
    memory = layer.memory
    keys = memory.expand_k * width / memory.heads
    sizes = {"head_dim": int(keys), "expand_v": float(memory.expand_v / memory.expand_k)}
    return _heads(layer, width) | sizes


def _negative(layer: Any) -> dict[str, Any]:
    return {"allow_neg_eigval": layer.learner.beta_max == 2}


def _deltanet(layer: Any, width: int) -> dict[str, Any]:
    return _widths(layer, width) | _negative(layer) | {"use_gate": layer.gate != "none"}


def _gated_deltanet(layer: Any, width: int) -> dict[str, Any]:
    return _head_widths(layer, width) | _negative(layer)


def _deltaproduct(layer: Any, width: int) -> dict[str, Any]:
    told = {"num_householder": layer.learner.steps, "use_forget_gate": layer.retention is not None}
    return _head_widths(layer, width) | _negative(layer) | told


def _gla(layer: Any, width: int) -> dict[str, Any]:
    return _widths(layer, width) | {"gate_low_rank_dim": layer.retention.rank}


def _attention(layer: Any, width: int) -> dict[str, Any]:
    if layer.position != "rope":  # the peer's always turns its queries and keys
        raise Unmatched(f"{PEER}'s attention has rotary positions, and here `attention` has none")
    return {
        "hidden_size": width, "num_heads": layer.heads, "num_kv_heads": layer.kv_heads,
        "window_size": layer.window, "rope_theta": float(layer.base),
    }  # fmt: skip


def _norm(layer: Any, width: int) -> dict[str, Any]:
    return {"hidden_size": width, "eps": float(layer.eps), "bias": layer.bias}


def _swiglu(layer: Any, width: int) -> dict[str, Any]:
    return {"hidden_size": width, "intermediate_size": scaled(layer.expand, width)}


def _part(path: str, arguments: Arguments, *known: str) -> Part:
    return Part(f"fla.{path}", arguments, frozenset(known))


TABLE = {
    "attention": _part(
        "layers.Attention", _attention, "heads", "kv_heads", "position", "base", "window"
    ),
    "deltanet": _part("layers.DeltaNet", _deltanet, "heads", "beta_max"),
    "gated_deltanet": _part(
        "layers.GatedDeltaNet", _gated_deltanet, "heads", "expand_k", "expand_v", "beta_max"
    ),
    "kda": _part("layers.KimiDeltaAttention", _gated_deltanet, "heads", "rank", "beta_max"),
    "deltaproduct": _part(
        "layers.GatedDeltaProduct", _deltaproduct,
        "heads", "householders", "expand_k", "expand_v", "beta_max",
    ),
    "comba": _part("layers.Comba", _head_widths, "heads", "expand_k", "expand_v"),
    "gla": _part("layers.GatedLinearAttention", _gla, "heads", "expand_k", "expand_v", "rank"),
    "retnet": _part("layers.MultiScaleRetention", _widths, "heads", "expand_v"),
    "rms_norm": _part("modules.RMSNorm", _norm, "eps"),
    "layer_norm": _part("modules.LayerNorm", _norm, "eps", "bias"),
    "swiglu": _part("modules.GatedMLP", _swiglu, "expand"),
}  # fmt: skip
"""The peer's layers by our names; `kda`'s ranks are a head's channels there, which the parameters show."""


class Residual(nn.Module):
    """``x + f(x)``."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """Features to features [B, T, D]."""
        out: Tensor = x + self.branch(x)
        return out


class Layers(nn.Module):
    """Layers one after the other; of one that returns a state besides, the output."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Features to features [B, T, D]."""
        for layer in self.layers:
            out = layer(x)
            x = out[0] if isinstance(out, tuple) else out
        return x


class PeerModel(nn.Module):
    """Embedding, layers and a head whose loss never holds all logits."""

    def __init__(self, symbols: int, width: int, layers: nn.Module, tied: bool) -> None:
        super().__init__()
        self.embedding, self.layers = nn.Embedding(symbols, width), layers
        self.head = None if tied else nn.Linear(width, symbols, bias=False)
        self.cross_entropy = _class("fla.modules.FusedLinearCrossEntropyLoss")()
        nn.init.normal_(self.embedding.weight, std=0.02)

    def loss(self, tokens: Tensor) -> Tensor:
        """The mean loss of tokens [B, T + 1], of which every one but the first is predicted."""
        features = self.layers(self.embedding(tokens[:, :-1]))
        weight = self.embedding.weight if self.head is None else self.head.weight
        found: Tensor = self.cross_entropy(features, tokens[:, 1:].contiguous(), weight)
        return found


def build(arch: Arch) -> PeerModel:
    """The architecture of the peer's layers, on the CPU in float32.

    Raises:
        Unmatched: it has a layer that the table or the installed package lacks, or other parameters.
    """
    first, *inner, last = arch.root
    if first.name != "embed" or last.name != "lm_head" or _written(last) - {"tied"}:
        raise Unmatched(f"{PEER}'s models begin with `embed` and end with `lm_head`")
    table = next(node.op for _, node in arch.graph.walk() if hasattr(node.op, "symbols"))
    if _written(first) - {"dim", "vocab"}:
        raise Unmatched(f"{PEER}'s models embed nothing but tokens, and this `embed` adds to them")
    width: int = first.component.dim  # type: ignore[attr-defined]
    tied: bool = last.component.tied  # type: ignore[attr-defined]
    model = PeerModel(table.symbols, width, Layers(list(_modules(inner, width))), tied)
    ours, theirs = arch.cost.params, sum(p.numel() for p in model.parameters())
    if abs(theirs - ours) > SAME * ours:
        raise Unmatched(
            f"{PEER}'s layers have {theirs:,} parameters here and ours {ours:,}:"
            " it is another architecture"
        )
    return model


def refusal(device: str, dtype: str) -> str | None:
    """Why the peer cannot run here, whatever the architecture; None where it can."""
    if torch.device(device).type != "cuda":
        return f"{PEER} runs on a GPU alone, and `--device {device}` is none"
    if importlib.util.find_spec("fla") is None:
        return f"{PEER} is not installed (`pip install {PEER}`)"
    if dtype not in ("bfloat16", "float16"):
        return f"{PEER} trains in half precision, and `--dtype {dtype}` is not: use `bfloat16`"
    return None


def _modules(elements: Sequence[Element], width: int) -> Iterator[nn.Module]:
    """The peer's layers, each with weights of its own."""
    for element in elements:
        if element.name == "residual" and not _written(element):
            yield Residual(Layers(list(_modules(element.visits[0].elements, width))))
        elif element.name in ("stack", "repeat") and not _written(element) & SHARING:
            for visit in element.visits:
                yield from _modules(visit.elements, width)
        else:
            yield _layer(element, width)


SHARING = {"tied", "adapter", "share"}
"""Arguments of containers whose layers share weights."""


def _layer(element: Element, width: int) -> nn.Module:
    part = TABLE.get(element.name)
    if part is None:
        raise Unmatched(
            f"`{element.name}` has no counterpart among the layers of {PEER} known here"
        )
    unknown = sorted(_written(element) - part.known)
    if unknown:
        raise Unmatched(f"{PEER}'s counterpart of `{element.name}` does not take `{unknown[0]}`")
    arguments = part.arguments(element.component, width)
    try:
        made: nn.Module = _class(part.path)(**arguments)
    except (ImportError, TypeError, ValueError, RuntimeError) as error:
        raise Unmatched(f"{PEER}'s `{part.path}` cannot be made here ({error})") from None
    return made


def _written(element: Element) -> set[str]:
    """Arguments that are not as they are where nothing is written."""
    if element.origin is not None:
        return set(re.findall(r"(\w+) = ", element.origin))
    layer = element.component
    fields = type(layer).model_fields.items()
    return {name for name, field in fields if getattr(layer, name) != field.default}


def _class(path: str) -> Any:
    """A class of the peer's by its path.

    Raises:
        Unmatched: the package lacks it, or cannot be imported here.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, RuntimeError, ValueError) as error:
        raise Unmatched(f"{PEER} has no `{path}` here ({error})") from None
