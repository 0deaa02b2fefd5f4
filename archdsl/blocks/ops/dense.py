"""Dense operations: tables, projections, norms, elementwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from typing import ClassVar, Literal

from archdsl.blocks.base import Activation
from archdsl.blocks.op import Buffer, Op, Shape, Type, Work

Initialisation = Literal["fan_in", "zeros", "small", "identity"] | float
"""Of a matrix: normal with standard deviation ``in^-1/2``, zero, normal with 0.02, the identity; a number
is a standard deviation."""

NN = "archdsl.blocks.nn."


class Embedding(Op):
    """Rows of a table by token, times ``scale``, plus a position signal: ``[B, T]`` → ``[B, T, width]``."""

    module: ClassVar[str] = NN + "dense:Embedding"
    symbols: int
    width: int
    position: Literal["none", "learned", "sinusoidal"] = "none"
    positions: int = 0
    scale: float = 1.0
    init: Initialisation = "fan_in"

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """Features of the table's width."""
        return (Type("features", self.width, embedding=(self.symbols, self.width)),)

    def parameters(self) -> Mapping[str, Shape]:
        """The table, and the learned positions."""
        table: dict[str, Shape] = {"weight": (self.symbols, self.width)}
        learned: dict[str, Shape] = {"positions": (self.positions, self.width)}
        return table | (learned if self.position == "learned" else {})


class Linear(Op):
    """``y = W x + b``: ``[B, T, width_in]`` → ``[B, T, width_out]``.

    ``b`` starts at ``bias_init``; with ``bias_heads`` it also rises by 0.4 over the channels and bends by
    0.3 over each head's, as RWKV-7's rates start.
    """

    module: ClassVar[str] = NN + "dense:Linear"
    width_in: int
    width_out: int
    bias: bool = False
    init: Initialisation = "fan_in"
    bias_init: float = 0.0
    bias_heads: int = 0

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The input with another width."""
        return (replace(inputs[0], width=self.width_out),)

    def parameters(self) -> Mapping[str, Shape]:
        """``weight [out, in]`` and, where asked, ``bias [out]``."""
        weight: dict[str, Shape] = {"weight": (self.width_out, self.width_in)}
        bias: dict[str, Shape] = {"bias": (self.width_out,)}
        return weight | (bias if self.bias else {})

    def flops(self, work: Work) -> int:
        """One matrix product."""
        return 2 * work.tokens * self.width_in * self.width_out


class BlockLinear(Op):
    """A projection within each of so many slices of the channels: ``[B, T, width]`` → the same."""

    module: ClassVar[str] = NN + "dense:BlockLinear"
    width: int
    blocks: int

    @property
    def size(self) -> int:
        """Channels of a slice."""
        return self.width // self.blocks

    def parameters(self) -> Mapping[str, Shape]:
        """``weight [blocks, out, in]``."""
        return {"weight": (self.blocks, self.size, self.size)}

    def flops(self, work: Work) -> int:
        """A matrix product a slice."""
        return 2 * work.tokens * self.width * self.size


class MergedLinear(Op):
    """Several projections of one input as one matrix product; each part keeps its name and weights.

    ``names`` are the parts' node names: ``state_dict`` still has ``query.weight`` and so on.
    """

    module: ClassVar[str] = NN + "dense:MergedLinear"
    transparent: ClassVar[bool] = True
    parts: tuple[Linear, ...]
    names: tuple[str, ...]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How wide each part is."""
        return tuple(part.width_out for part in self.parts)

    @cached_property
    def biased(self) -> tuple[bool, ...]:
        """Which parts have a bias."""
        return tuple(part.bias for part in self.parts)

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """One output a part."""
        return tuple(replace(inputs[0], width=part.width_out) for part in self.parts)

    def parameters(self) -> Mapping[str, Shape]:
        """The parts' parameters under their names."""
        return {
            f"{name}.{key}": shape
            for name, part in zip(self.names, self.parts, strict=True)
            for key, shape in part.parameters().items()
        }

    def flops(self, work: Work) -> int:
        """The sum of the parts."""
        return sum(part.flops(work) for part in self.parts)


class GatedUnit(Op):
    """Two merged projections and the gate between them: ``up ⊙ f(gate)``, read from their one product.

    ``merged`` has two parts as wide as each other; the first is the gate unless ``swapped``.
    """

    module: ClassVar[str] = NN + "dense:GatedUnit"
    transparent: ClassVar[bool] = True
    merged: MergedLinear
    function: Activation
    swapped: bool = False

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """One part's width."""
        return self.merged.outputs(inputs)[:1]

    def parameters(self) -> Mapping[str, Shape]:
        """The projections'."""
        return self.merged.parameters()

    def flops(self, work: Work) -> int:
        """The projections'."""
        return self.merged.flops(work)

    @property
    def attributes(self) -> str:
        """The projections' and the gate's."""
        swapped = ", swapped=True" if self.swapped else ""
        return f"{self.merged.attributes}, function={self.function}{swapped}"


class Norm(Op):
    """RMS or layer norm over each of ``groups`` equal slices of the channels (a slice a head).

    The gain is shared by the slices where ``shared``, as published per-head norms have it. It starts at
    one, or ``deepening`` at ``((l + 1)/L)^0.7`` in layer ``l`` of ``L`` (RWKV's released code).
    """

    module: ClassVar[str] = NN + "dense:Norm"
    width: int
    norm: Literal["rms", "layer"] = "rms"
    groups: int = 1
    shared: bool = False
    eps: float = 1e-6
    bias: bool = False
    deepening: bool = False

    def parameters(self) -> Mapping[str, Shape]:
        """``weight`` and, where asked, ``bias``."""
        shape = (self.width // self.groups,) if self.shared else (self.width,)
        return {"weight": shape} | ({"bias": shape} if self.bias else {})


class Activate(Op):
    """An elementwise activation, times ``scale``."""

    module: ClassVar[str] = NN + "dense:Activate"
    function: Activation
    scale: Fraction = Fraction(1)


class Gate(Op):
    """``a ⊙ f(b)``: a gate on a stream, or a gated linear unit."""

    module: ClassVar[str] = NN + "dense:Gate"
    inputs: ClassVar[int] = 2
    function: Activation


class GatedNorm(Op):
    """A norm and its gate as one operation: ``norm(a) ⊙ f(b)``, or ``norm(a ⊙ f(b))``."""

    module: ClassVar[str] = NN + "dense:GatedNorm"
    inputs: ClassVar[int] = 2
    norm: Norm
    function: Activation
    gate_first: bool = False

    def parameters(self) -> Mapping[str, Shape]:
        """The norm's."""
        return self.norm.parameters()


class HeadNormalise(Op):
    """Each head's slice to unit length, or to a distribution: ``l2_norm``, ``softmax``, ``sum``."""

    module: ClassVar[str] = NN + "dense:HeadNormalise"
    width: int
    heads: int
    form: Literal["l2_norm", "softmax"]


class HeadScale(Op):
    """A learned scale a head, or a channel, times a stream: ``f(D) ⊙ x`` of a direct path."""

    module: ClassVar[str] = NN + "dense:HeadScale"
    width: int
    heads: int
    start: float = 1.0
    function: Activation = "none"

    def parameters(self) -> Mapping[str, Shape]:
        """``weight [heads]``."""
        return {"weight": (self.heads,)}


class Multiply(Op):
    """``a ⊙ b``, where ``b`` may have one value a head: ``[B, T, H·D]`` and ``[B, T, H]``."""

    module: ClassVar[str] = NN + "dense:Multiply"
    inputs: ClassVar[int] = 2


class Add(Op):
    """``a + b``, or ``a - b``."""

    module: ClassVar[str] = NN + "dense:Add"
    inputs: ClassVar[int] = 2
    negative: bool = False


class RepeatHeads(Op):
    """Each of ``heads`` slices ``times`` over: what several query heads share."""

    module: ClassVar[str] = NN + "dense:RepeatHeads"
    width: int
    heads: int
    times: int

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The repeated width."""
        return (replace(inputs[0], width=self.width * self.times),)


class Convolution(Op):
    """Depthwise convolution along time and its activation: ``[B, T, width]`` → the same.

    Causal: output ``t`` sees inputs ``t - (kernel - 1)·dilation … t``, and decoding keeps the last
    ``(kernel - 1)·dilation`` inputs. Not causal: centred, zero beyond the ends. With ``unit_heads`` each
    of so many slices of the channels then has unit length.
    """

    module: ClassVar[str] = NN + "convolution:Convolution"
    width: int
    kernel: int
    dilation: int = 1
    activation: Activation = "none"
    bias: bool = False
    causal_: bool = True
    unit_heads: int = 0

    @property
    def causal(self) -> bool:
        """As asked."""
        return self.causal_

    @property
    def reach(self) -> int:
        """How many earlier inputs an output sees."""
        return (self.kernel - 1) * self.dilation

    def parameters(self) -> Mapping[str, Shape]:
        """``weight [width, kernel]`` and, where asked, ``bias [width]``."""
        weight: dict[str, Shape] = {"weight": (self.width, self.kernel)}
        bias: dict[str, Shape] = {"bias": (self.width,)}
        return weight | (bias if self.bias else {})

    def state(self, length: int) -> Mapping[str, Buffer]:
        """The inputs within reach."""
        if not self.causal_ or self.reach == 0:
            return {}
        return {"inputs": Buffer((self.reach, self.width), "model")}

    def flops(self, work: Work) -> int:
        """One multiply-add a tap; one token is computed elementwise, which no counter counts."""
        if work.steps == 1 and self.causal_:
            return 0
        rows = (
            work.tokens + work.packed * self.reach
        )  # packed sequences each have a past of their own
        return 2 * rows * self.width * self.kernel


class Head(Op):
    """Logits: ``[B, T, width]`` → ``[B, T, symbols]``; tied to the table of the root's ``embed``.

    ``pooled`` says that a sequence has one position by then, whatever its length. With a ``cap`` logits
    are ``cap · tanh(logits / cap)``.
    """

    module: ClassVar[str] = NN + "dense:Head"
    width: int
    symbols: int
    tied: bool = False
    bias: bool = False
    pooled: bool = False
    cap: float | None = None

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """Logits."""
        return (Type("logits", self.symbols),)

    def parameters(self) -> Mapping[str, Shape]:
        """``weight [symbols, width]`` unless tied, and ``bias [symbols]`` where asked."""
        weight: dict[str, Shape] = {} if self.tied else {"weight": (self.symbols, self.width)}
        bias: dict[str, Shape] = {"bias": (self.symbols,)}
        return weight | (bias if self.bias else {})

    def flops(self, work: Work) -> int:
        """One matrix product."""
        rows = work.batch if self.pooled else work.tokens
        return 2 * rows * self.width * self.symbols


class Pool(Op):
    """One position for all: the last, or the mean over time; ``[B, T, D]`` → ``[B, 1, D]``."""

    module: ClassVar[str] = NN + "dense:Pool"
    form: Literal["last", "mean"]

    @property
    def causal(self) -> bool:
        """It looks at the whole sequence."""
        return False
