"""Modules of the dense operations; shapes and equations are with the operations."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.nn.base import (
    Context,
    Place,
    Seeded,
    Site,
    by_head,
    heads_apart,
    unit,
    widened,
)
from archdsl.blocks.nn.functions import activate
from archdsl.blocks.nn.start import first_bias
from archdsl.blocks.ops import dense as ops
from archdsl.kernels.shell.choice import ACTIVATIONS, Form
from archdsl.kernels.shell.gate import gated_unit
from archdsl.kernels.shell.loss import capped
from archdsl.kernels.shell.norm import gated_norm, rms_norm
from archdsl.kernels.shell.products import linear


def draw_matrix(weight: Tensor, how: ops.Initialisation, generator: torch.Generator) -> None:
    """Fill a matrix ``[out, in]`` as the operation asks for it."""
    if how == "zeros":
        weight.zero_()
    elif how == "identity":
        nn.init.eye_(weight)
    else:
        known = {"small": 0.02, "fan_in": weight.shape[1] ** -0.5}
        std = known[how] if isinstance(how, str) else how
        weight.normal_(std=std, generator=generator)


class Embedding(Site):
    """Looks tokens up; see ``ops.Embedding``."""

    call: ClassVar[Literal["plain", "context", "state"]] = "context"
    op: ops.Embedding
    position: str
    width: int
    scale: float
    weight: Tensor

    def __init__(self, op: ops.Embedding) -> None:
        super().__init__(op)
        self.note(position=op.position, width=op.width, scale=op.scale)
        self.hold(weight=torch.empty(op.symbols, op.width))
        if op.position == "learned":
            self.positions = nn.Parameter(torch.empty(op.positions, op.width))

    def draw(self, seeded: Seeded) -> None:
        """Rows of unit length on average, unless the operation says otherwise; positions small."""
        draw_matrix(self.weight, self.op.init, seeded("weight"))
        if self.position == "learned":
            draw_matrix(self.positions, "small", seeded("positions"))

    def forward(self, tokens: Tensor, context: Context) -> Tensor:
        """Tokens ``[B, T]`` → ``[B, T, D]``; learned positions end where their table does."""
        x = F.embedding(tokens, self.weight)
        x = x if self.scale == 1 else x * self.scale
        if self.position == "none":
            return x
        place = context.places(tokens)
        if self.position == "learned":
            return x + self.positions[place]
        return x + sinusoidal(place.to(widened(x).dtype), self.width).to(x.dtype)


def sinusoidal(place: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of geometric wavelengths (arXiv 1706.03762 §3.5): ``[T]`` → ``[T, D]``."""
    half = (width + 1) // 2
    steps = torch.arange(half, device=place.device, dtype=place.dtype)
    angle = place[:, None] * torch.exp(steps * (-math.log(1e4) / half))
    return torch.cat([angle.sin(), angle.cos()], -1)[:, :width]


class Linear(Site):
    """One projection."""

    op: ops.Linear
    weight: Tensor
    bias: Tensor | None

    def __init__(self, op: ops.Linear) -> None:
        super().__init__(op)
        bias = first_bias(op) if op.bias else None
        self.hold(weight=torch.empty(op.width_out, op.width_in), bias=bias)

    def draw(self, seeded: Seeded) -> None:
        """As the operation says."""
        draw_matrix(self.weight, self.op.init, seeded("weight"))

    def forward(self, x: Tensor) -> Tensor:
        """``[…, in]`` → ``[…, out]``."""
        return linear(x, self.weight, self.bias, self.backend)


class BlockLinear(Site):
    """See ``ops.BlockLinear``."""

    op: ops.BlockLinear

    def __init__(self, op: ops.BlockLinear) -> None:
        super().__init__(op)
        self.weight = nn.Parameter(torch.empty(op.parameters()["weight"]))

    def draw(self, seeded: Seeded) -> None:
        """Every slice as a projection of its own."""
        with torch.no_grad():
            self.weight.normal_(std=self.op.size**-0.5, generator=seeded("weight"))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return by_head(x, self.weight)


class MergedLinear(Site):
    """Several projections as one product; ``state_dict`` shows them apart, under their own names."""

    merged: ops.MergedLinear
    sizes: list[int]
    biased: tuple[bool, ...]
    weight: Tensor
    bias: Tensor | None

    def __init__(self, op: ops.MergedLinear) -> None:
        super().__init__(op)
        self.note(merged=op, sizes=list(op.sizes), biased=op.biased)
        biases = [first_bias(part) for part in op.parts if part.bias]
        weight = torch.empty(sum(op.sizes), op.parts[0].width_in)
        self.hold(weight=weight, bias=torch.cat(biases) if biases else None)

    def draw(self, seeded: Seeded) -> None:
        """Each part as it would be drawn alone."""
        weights = torch.split(self.weight, self.sizes)
        for name, weight, part in zip(self.merged.names, weights, self.merged.parts, strict=True):
            draw_matrix(weight, part.init, seeded(f"{name}.weight"))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``[…, in]`` → one ``[…, out]`` a part."""
        if self.bias is None or all(self.biased):
            return torch.split(self.joined(x), self.sizes, -1)
        joined = linear(x, self.weight, backend=self.backend, loose=True)
        outputs = torch.split(joined, self.sizes, -1)
        biases = self._biases(self.bias)
        return tuple(y if b is None else y + b for y, b in zip(outputs, biases, strict=True))

    def joined(self, x: Tensor) -> Tensor:
        """All parts side by side, where all have a bias or none has."""
        return linear(x, self.weight, self.bias, self.backend, loose=True)

    def _biases(self, joined: Tensor) -> list[Tensor | None]:
        sizes = [n for n, biased in zip(self.sizes, self.biased, strict=True) if biased]
        parts = iter(torch.split(joined, sizes))
        return [next(parts) if biased else None for biased in self.biased]

    def attach(self, holder: nn.Module, name: str) -> None:
        """Be loaded from the parts' names, which only ``holder`` is shown, where this is ``name``."""
        hook = partial(_join_saved, name=name)
        holder.register_load_state_dict_pre_hook(hook)  # type: ignore[no-untyped-call]

    def parts(self) -> dict[str, Tensor]:
        """Views of the weights, by the names they are saved under, relative to the holder."""
        weights = torch.split(self.weight, self.sizes)
        found = {f"{n}.weight": w for n, w in zip(self.merged.names, weights, strict=True)}
        if self.bias is not None:
            pairs = zip(self.merged.names, self._biases(self.bias), strict=True)
            found |= {f"{name}.bias": bias for name, bias in pairs if bias is not None}
        return found

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        parent = prefix.removesuffix(".").rpartition(".")[0]
        parent = f"{parent}." if parent else ""
        for name, part in self.parts().items():
            destination[parent + name] = part if keep_vars else part.detach()

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """What is missing was said by the holder, by its own name."""
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, [], unexpected_keys, error_msgs
        )


def _join_saved(
    holder: nn.Module,
    state_dict: dict[str, Tensor],
    prefix: str,
    local_metadata: Any,
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
    name: str,
) -> None:
    """Before ``holder`` is loaded: the parts of its merged projection as the one weight they are."""
    merged: MergedLinear = holder.get_submodule(name)  # type: ignore[assignment]
    given: dict[str, list[Tensor]] = {"weight": [], "bias": []}
    for part, tensor in merged.parts().items():
        found = state_dict.pop(prefix + part, None)
        if found is None:
            missing_keys.append(prefix + part)
        elif found.shape != tensor.shape:
            shapes = f"{tuple(found.shape)}, and the model's is {tuple(tensor.shape)}"
            error_msgs.append(f"{prefix}{part} has shape {shapes}")
        given[part.rpartition(".")[2]].append(tensor.detach() if found is None else found)
    if not error_msgs:
        joined = {kind: torch.cat(tensors) for kind, tensors in given.items() if tensors}
        state_dict |= {f"{prefix}{name}.{kind}": tensor for kind, tensor in joined.items()}


class GatedUnit(MergedLinear):
    """Two projections and the gate between them."""

    op: ops.GatedUnit

    def __init__(self, op: ops.GatedUnit) -> None:
        super().__init__(op.merged)
        self.note(op=op)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """``[…, in]`` → ``[…, F]``."""
        return gated_unit(self.joined(x), self.op.function, self.op.swapped, self.backend)


def one_gain(op: ops.Norm) -> bool:
    """Whether it is an RMS norm of slices that share one gain: what the fused forms compute."""
    return op.norm == "rms" and not op.bias and (op.groups == 1 or op.shared)


def normalise(
    op: ops.Norm, x: Tensor, weight: Tensor, bias: Tensor | None, form: Form | None
) -> Tensor:
    """A norm over each group of channels, with a gain."""
    size = op.width // op.groups
    if one_gain(op):
        return rms_norm(heads_apart(x, op.groups), weight, op.eps, form).flatten(-2)
    if op.groups == 1:
        return _norm(op, x, (size,), weight, bias)
    x = heads_apart(x, op.groups)
    if op.shared:
        return _norm(op, x, (size,), weight, bias).flatten(-2)
    y = _norm(op, x, (size,), None, None).flatten(-2) * weight
    return y if bias is None else y + bias


def _norm(
    op: ops.Norm, x: Tensor, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    if op.norm == "layer":
        return F.layer_norm(x, shape, weight, bias, op.eps)
    gain = None if weight is None else weight.to(x.dtype)  # under autocast they differ
    y = F.rms_norm(x, shape, gain, op.eps)
    return y if bias is None else y + bias


def draw_gain(weight: Tensor, op: ops.Norm, place: Place) -> None:
    """Fill a norm's gain ``[size]`` as the operation asks for it."""
    weight.fill_(((place.index + 1) / place.count) ** 0.7 if op.deepening else 1.0)


class Norm(Site):
    """RMS or layer norm."""

    op: ops.Norm
    weight: Tensor
    bias: Tensor | None

    def __init__(self, op: ops.Norm) -> None:
        super().__init__(op)
        shapes = op.parameters()
        bias = torch.zeros(shapes["bias"]) if op.bias else None
        self.hold(weight=torch.ones(shapes["weight"]), bias=bias)

    def draw(self, seeded: Seeded) -> None:
        """The gain may depend on the depth."""
        draw_gain(self.weight, self.op, self.place)

    def forward(self, x: Tensor) -> Tensor:
        """``[…, D]`` → ``[…, D]``."""
        return normalise(self.op, x, self.weight, self.bias, self.backend)


class GatedNorm(Site):
    """A norm and a gate, in either order."""

    op: ops.GatedNorm
    weight: Tensor
    bias: Tensor | None

    def __init__(self, op: ops.GatedNorm) -> None:
        super().__init__(op)
        shapes = op.parameters()
        bias = torch.zeros(shapes["bias"]) if op.norm.bias else None
        self.hold(weight=torch.ones(shapes["weight"]), bias=bias)

    def draw(self, seeded: Seeded) -> None:
        """As the norm's."""
        draw_gain(self.weight, self.op.norm, self.place)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Stream and gate logits ``[…, D]`` → ``[…, D]``."""
        norm, function, first = self.op.norm, self.op.function, self.op.gate_first
        if one_gain(norm) and function in ACTIVATIONS:
            rows, opening = heads_apart(x, norm.groups), heads_apart(gate, norm.groups)
            y = gated_norm(rows, opening, self.weight, norm.eps, function, first, self.backend)
            return y.flatten(-2)
        opened = activate(function, gate)
        y = normalise(norm, x * opened if first else x, self.weight, self.bias, self.backend)
        return y if first else y * opened


class Activate(Site):
    """An elementwise function, scaled."""

    function: str
    scale: float

    def __init__(self, op: ops.Activate) -> None:
        super().__init__(op)
        self.note(function=op.function, scale=float(op.scale))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        y = activate(self.function, x)
        return y if self.scale == 1 else y * self.scale


class Gate(Site):
    """``a ⊙ f(b)``."""

    def __init__(self, op: ops.Gate) -> None:
        super().__init__(op)
        self.function = op.function

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Two of a shape give one of it."""
        return x * activate(self.function, gate)


class HeadNormalise(Site):
    """Unit length or softmax in each head's slice; ``x / sqrt(Σx² + 1e-6)`` as published code has it."""

    def __init__(self, op: ops.HeadNormalise) -> None:
        super().__init__(op)
        self.heads, self.form = op.heads, op.form

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, H·D]`` → the same."""
        y = widened(heads_apart(x, self.heads))
        if self.form == "softmax":
            y = y.softmax(-1)
        else:
            y = unit(y)
        return y.flatten(-2).to(x.dtype)


class HeadScale(Site):
    """A learned number a head."""

    def __init__(self, op: ops.HeadScale) -> None:
        super().__init__(op)
        self.function = op.function
        self.weight = nn.Parameter(torch.full((op.heads,), op.start))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, H·D]`` → the same."""
        y = heads_apart(x, self.weight.shape[0]) * activate(self.function, self.weight)[:, None]
        return y.flatten(-2).to(x.dtype)


class Multiply(Site):
    """``a ⊙ b``, ``b`` one a channel or one a head."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``[B, T, H·D]`` and ``[B, T, H]`` or ``[B, T, H·D]``."""
        if y.shape[-1] == x.shape[-1]:
            return (x * y).to(x.dtype)
        return (heads_apart(x, y.shape[-1]) * y[..., None]).flatten(-2).to(x.dtype)


class Add(Site):
    """``a + b``, or ``a - b``."""

    def __init__(self, op: ops.Add) -> None:
        super().__init__(op)
        self.negative = op.negative

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two of a shape give one of it."""
        return x - y if self.negative else x + y


class RepeatHeads(Site):
    """Slices repeated."""

    def __init__(self, op: ops.RepeatHeads) -> None:
        super().__init__(op)
        self.heads, self.times = op.heads, op.times

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, G·D]`` → ``[B, T, G·times·D]``."""
        return heads_apart(x, self.heads).repeat_interleave(self.times, -2).flatten(-2)


class Head(Site):
    """Logits; a tied head reads the table of the embedding it was tied to."""

    source: tuple[Embedding, ...]
    cap: float | None
    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, op: ops.Head) -> None:
        super().__init__(op)
        self.note(source=(), cap=op.cap)
        weight = None if op.tied else torch.empty(op.symbols, op.width)
        self.hold(weight=weight, bias=torch.zeros(op.parameters()["bias"]) if op.bias else None)

    def draw(self, seeded: Seeded) -> None:
        """A tied head has nothing of its own."""
        if self.weight is not None:
            draw_matrix(self.weight, "fan_in", seeded("weight"))

    def tie(self, table: Embedding) -> None:
        """Read from a table from now on; held in a tuple, so that it is not a submodule."""
        self.note(source=(table,))

    @property
    def table(self) -> Tensor:
        """``[V, D]``, its own or the embedding's."""
        return self.source[0].weight if self.weight is None else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, D]`` → ``[B, T, V]``."""
        return capped(linear(x, self.table, self.bias, self.backend), self.cap)


class Pool(Site):
    """One position for all."""

    def __init__(self, op: ops.Pool) -> None:
        super().__init__(op)
        self.form = op.form

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, D]`` → ``[B, 1, D]``."""
        return x[:, -1:] if self.form == "last" else x.mean(1, keepdim=True)
