"""``mlstm_block``: the mLSTM in the block it was first published with."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

from archdsl.blocks.base import (
    Builder,
    Children,
    Count,
    Layer,
    Value,
    divides,
    features,
    scaled,
)
from archdsl.blocks.channel import Expand
from archdsl.blocks.conv import Kernel
from archdsl.blocks.op import Type
from archdsl.blocks.ops.dense import (
    Add,
    BlockLinear,
    Convolution,
    Gate,
    HeadScale,
    Linear,
    Norm,
)
from archdsl.blocks.ops.memory import DecayGate, Memory


class MLSTMBlock(Layer):
    """``W_down((norm(mLSTM(q, k, v)) + s ⊙ c) ⊙ silu(W_z x))`` (xLSTM, arXiv 2405.04517 §2.3 and App. A).

    ``u = W_u x`` has ``expand`` times the stream's width, ``c = silu(conv(u))``; queries and keys are
    projections of ``c``, values of ``u``, in blocks of ``block`` channels. Input and forget gates are
    read from all three; their weights start at zero, the forget gates' biases at 3 to 6 over the heads.
    ``s`` is learned a channel. For the layer of xLSTM 7B see ``mlstm``.
    """

    name: ClassVar[str] = "mlstm_block"
    keeps: ClassVar[bool] = True
    heads: Count = 4
    expand: Expand = Fraction(2)
    conv: Kernel = 4
    block: Count = 4

    def infer(self, stream: Type) -> Type:
        """Heads and blocks share the inner width evenly."""
        inner = scaled(self.expand, features(stream, self.name))
        divides(self.heads, inner, "heads", "the block's width")
        divides(self.block, inner, "block", "the block's width")
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """Up, convolution, memory, skip, gate, down."""
        width, inner = stream.type.width, scaled(self.expand, stream.type.width)
        widen = Linear(width_in=width, width_out=inner)
        x, gate = (build.add(widen, stream, name=name) for name in ("in", "gate"))
        filter_ = Convolution(width=inner, kernel=self.conv, activation="silu", bias=True)
        smooth = build.add(filter_, x, name="conv")
        read = self._memory(build, smooth, x, inner)
        norm = Norm(width=inner, norm="layer", groups=self.heads, eps=1e-5)
        past = build.add(HeadScale(width=inner, heads=inner), smooth, name="skip")
        summed = build.add(Add(), build.add(norm, read, name="norm"), past, name="summed")
        gated = build.add(Gate(function="silu"), summed, gate, name="gated")
        return build.add(Linear(width_in=inner, width_out=width), gated, name="out")

    def _memory(self, build: Builder, smooth: Value, x: Value, inner: int) -> Value:
        """What the matrix memory gives ``[B, T, inner]``."""
        own = BlockLinear(width=inner, blocks=inner // self.block)
        sources = {"query": smooth, "key": smooth, "value": x}
        seen = [build.add(own, source, name=name) for name, source in sources.items()]
        decay = self._gate(build, "decay", seen, inner, bias=False)
        opening = DecayGate(width=self.heads, heads=self.heads, form="sigmoid", start="open")
        log_decay = build.add(opening, decay, name="decay_gate")
        rate = self._gate(build, "rate", seen, inner, bias=True)
        size = inner // self.heads
        memory = Memory(
            heads=self.heads,
            key_dim=size,
            value_dim=size,
            memory="matrix",
            bias="dot",
            decay="head",
            normaliser="max",
        )
        return build.add(memory, *seen, log_decay, rate, name="memory")

    def _gate(
        self, build: Builder, name: str, seen: list[Value], inner: int, *, bias: bool
    ) -> Value:
        """Logits a head ``[B, T, heads]`` from queries, keys and values together."""
        parts = [
            build.add(
                Linear(width_in=inner, width_out=self.heads, init="zeros", bias=bias and not place),
                value,
                name=f"{name}_{what}",
            )
            for place, (what, value) in enumerate(zip(("query", "key", "value"), seen, strict=True))
        ]
        first = build.add(Add(), parts[0], parts[1], name=f"{name}_two")
        return build.add(Add(), first, parts[2], name=name)
