"""How a Miras mixer is lowered: projections, the memory, and what follows it, one method a part."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from archdsl.blocks.base import Builder, Value
from archdsl.blocks.miras.bias import L2
from archdsl.blocks.miras.learned import lower_channels, lower_learner
from archdsl.blocks.miras.memory import Polynomial, Stored
from archdsl.blocks.miras.retention import Kept, RunningSoftmax
from archdsl.blocks.ops import memory as ops
from archdsl.blocks.ops.attention import Rotary
from archdsl.blocks.ops.dense import (
    Activate,
    Add,
    Convolution,
    Gate,
    HeadNormalise,
    HeadScale,
    Initialisation,
    Linear,
    Multiply,
    Norm,
    RepeatHeads,
)
from archdsl.blocks.ops.learner import PolynomialFeatures
from archdsl.blocks.ops.shift import TokenShift

if TYPE_CHECKING:
    from archdsl.blocks.miras.mixer import Miras

MIXES: dict[str, dict[str, tuple[float, float]]] = {
    "dynamic": {
        "query": (0.5, 0.0), "decay": (1.0, 0.0), "key": (1.0, 0.0), "value": (1.0, 0.3),
        "rate": (1.0, 0.0), "gate": (0.5, 0.0),
    },
    "static": {
        "query": (0.2, 0.0), "decay": (0.9, 0.0), "key": (0.7, 0.0), "value": (0.7, 0.0),
        "rate": (0.9, 0.0), "gate": (0.2, 0.0),
    },
}  # fmt: skip
"""Exponent and offset of each reader's initial mix, as RWKV-6 (dynamic) and RWKV-7 (static) have them."""


class Shell:
    """What mixers with vector and matrix memories share."""

    key_heads: int = 1

    def __init__(self, mixer: Miras, build: Builder, stream: Value) -> None:
        self.mixer, self.build, self.stream = mixer, build, stream
        self.sources: dict[str, Value] = {}
        if mixer.shift != "none":
            self.sources = self.shifted()

    def shifted(self) -> dict[str, Value]:
        """The stream as each reader sees it."""
        names = tuple(self.readers())
        mixes = [MIXES[self.mixer.shift][name] for name in names]
        op = TokenShift(
            width=self.stream.type.width,
            names=names,
            exponents=tuple(exponent for exponent, _ in mixes),
            offsets=tuple(offset for _, offset in mixes),
            rank=self.mixer.shift_rank if self.mixer.shift == "dynamic" else None,
        )
        return dict(zip(names, self.build.add_many(op, self.stream, name="shift"), strict=True))

    def readers(self) -> list[str]:
        """Which parts read the stream."""
        mixer = self.mixer
        decay = mixer.decay
        gated = decay is not None and decay.per != "constant"
        rated = mixer.descent.rate in ("token", "exponential", "channel")
        there = {
            "query": mixer.stored is not None,
            "decay": gated,
            "key": mixer.key != "complement",
            "value": True,
            "rate": rated,
            "gate": mixer.gate != "none",
        }
        return [name for name, needed in there.items() if needed]

    def source(self, name: str) -> Value:
        """What one part reads."""
        return self.sources.get(name, self.stream)

    def branch(self, name: str, width: int, how: str, heads: int) -> Value:
        """One of query, key and value: projection, short convolution or activation, transform."""
        mixer, build, source = self.mixer, self.build, self.source(name)
        x = build.add(Linear(width_in=source.type.width, width_out=width), source, name=name)
        if mixer.conv:
            filter_ = Convolution(
                width=width, kernel=mixer.conv, activation="silu", bias=mixer.conv_bias
            )
            x = build.add(filter_, x, name=f"{name}_conv")
        elif mixer.activation != "none":
            x = build.add(Activate(function=mixer.activation), x, name=f"{name}_activation")
        return transform(build, x, name, how, heads)

    def values(self, width: int, heads: int) -> Value:
        """The values, with what the first layer hands on where asked."""
        value = self.branch("value", width, self.mixer.value, heads)
        if self.mixer.value_residual is None:
            return value
        source = self.source("value")
        op = ops.ValueResidual(
            width=width, width_in=source.type.width, rank=self.mixer.value_residual
        )
        return self.build.add(op, value, source, name="value_residual")

    def keep(self, heads: int, channels: int) -> Kept:
        """The retention's gates."""
        retention = self.mixer.retention
        if isinstance(retention, RunningSoftmax):
            logits = self.branch("key", heads * channels, "none", heads)
            return retention.lower_gate(self.build, logits)
        retention = self.mixer.decay
        if retention is None:
            return Kept()
        step = self.mixer.descent.rate == "step"
        return retention.lower_gate(self.build, self.source("decay"), heads, channels, step=step)

    def tied(self, kept: Kept) -> Value | None:
        """The key, where it comes from the decay."""
        if self.mixer.key == "complement" and kept.log_decay is not None:
            return self.build.add(ops.Complement(), kept.log_decay, name="complement")
        return kept.key

    def direct(self, read: Value, value: Value, heads: int) -> Value:
        """What is read, and past it the value, weighed a head."""
        if not self.mixer.skip:
            return read
        scale = HeadScale(width=value.type.width, heads=heads)
        direct = self.build.add(scale, value, name="skip")
        return self.build.add(Add(), read, direct, name="read")

    def norm(self, x: Value, heads: int) -> Value:
        """The norm over each head, over heads that share a key, or over the whole width."""
        mixer = self.mixer
        if mixer.norm == "none":
            return x
        groups = {"head": heads, "group": self.key_heads, "width": 1}[mixer.norm_over]
        op = Norm(
            width=x.type.width,
            norm=mixer.norm,
            groups=groups,
            shared=groups > 1 and mixer.norm_gain == "head",
            eps=float(mixer.norm_eps),
            bias=mixer.norm_bias,
            deepening=mixer.norm_gain == "deepening",
        )
        return self.build.add(op, x, name="norm")

    def gated(self, x: Value) -> Value:
        """The gate from the input, through ``gate_rank`` channels where asked."""
        mixer, build, inner = self.mixer, self.build, self.source("gate")
        if mixer.gate == "none":
            return x
        if mixer.gate_rank:
            first: Initialisation = "fan_in" if mixer.gate_inner == "none" else "zeros"
            narrow = Linear(width_in=inner.type.width, width_out=mixer.gate_rank, init=first)
            inner = build.add(narrow, inner, name="gate_down")
        if mixer.gate_inner != "none":
            inner = build.add(Activate(function=mixer.gate_inner), inner, name="gate_inner")
        widen = Linear(width_in=inner.type.width, width_out=x.type.width, bias=mixer.gate_bias)
        gate = build.add(widen, inner, name="gate")
        function = "none" if mixer.gate == "linear" else mixer.gate
        return build.add(Gate(function=function), x, gate, name="gated")

    def out(self, x: Value) -> Value:
        """The output projection."""
        back = Linear(width_in=x.type.width, width_out=self.stream.type.width)
        return self.build.add(back, x, name="out")


def transform(build: Builder, x: Value, name: str, how: str, heads: int) -> Value:
    """An activation, or a normalisation of each head's slice."""
    if how in ("none", "complement"):
        return x
    if how in ("l2_norm", "softmax"):
        op = HeadNormalise.model_validate({"width": x.type.width, "heads": heads, "form": how})
        return build.add(op, x, name=f"{name}_{how}")
    return build.add(Activate.model_validate({"function": how}), x, name=f"{name}_{how}")


class VectorShell(Shell):
    """A mixer with one number a channel."""

    def lower(self, inner: int) -> Value:
        """The whole mixer on ``inner`` channels."""
        value = self.values(inner, 1)
        kept = self.keep(1, inner)
        key = self.tied(kept) or self.branch("key", inner, self.mixer.key, 1)
        read = self.read(inner, key, value, kept)
        x = self.direct(read, value, inner)
        if self.mixer.norm_place == "after_gate":
            return self.out(self.norm(self.gated(x), 1))
        return self.out(self.gated(self.norm(x, 1)))

    def read(self, inner: int, key: Value, value: Value, kept: Kept) -> Value:
        """What the memory gives; beyond a Hebbian write every channel is a memory of its own."""
        if not self.mixer.hebbian or self.mixer.learns:
            return lower_channels(self, inner, key, value, kept)
        point = ops.Memory(
            heads=1,
            key_dim=1,
            value_dim=inner,
            memory="vector",
            bias="dot",
            decay=self.mixer.per(),
        )
        ports = [port for port in (key, value, kept.log_decay) if port is not None]
        return self.build.add(point, *ports, name="memory")


class MatrixShell(Shell):
    """A mixer with a matrix, or a deeper memory, a head."""

    def __init__(self, mixer: Miras, memory: Stored, build: Builder, stream: Value) -> None:
        super().__init__(mixer, build, stream)
        self.heads = memory.heads
        self.key_heads = getattr(memory, "key_heads", None) or memory.heads
        self.channels, self.value_dim = memory.dims(stream.type.width)
        self.features = mixer.memory if isinstance(mixer.memory, Polynomial) else None
        self.key_dim = self.features.features(self.channels) if self.features else self.channels
        self.store = memory.store(stream.type.width, self.key_dim)
        self.steps = mixer.descent.steps

    def lower(self) -> Value:
        """The whole mixer."""
        kept = self.keep(self.heads, self.key_dim)
        query = self.keys("query", self.mixer.query, 1)
        key = self.tied(kept) or self.keys("key", self.mixer.key, self.steps)
        value = self.values(self.heads * self.value_dim * self.steps, self.heads * self.steps)
        query, key, read = self.read(query, key, value, kept)
        x = self.direct(read, value, self.heads)
        if self.mixer.norm_place == "after_gate":
            return self.out(self.norm(self.gated(x), self.heads))
        x = self.norm(x, self.heads)
        if self.mixer.bonus == "after_norm":
            bonus = ops.ReadBonus(heads=self.heads, key_dim=self.key_dim)
            x = self.build.add(bonus, x, query, key, value, name="bonus")
        return self.out(self.gated(x))

    def keys(self, name: str, how: str, steps: int) -> Value:
        """Query or key: branch, feature map, rotation, sharing among heads."""
        mixer, build, heads = self.mixer, self.build, self.key_heads * steps
        width = heads * self.channels
        x = self.branch(name, width, how, heads)
        x = transform(build, x, name, mixer.feature, heads)
        if mixer.position == "rope":
            turn = Rotary(width=width, heads=heads, period=mixer.period)
            x = build.add(turn, x, name=f"{name}_rope")
        if self.features is not None:
            powers = PolynomialFeatures(heads=heads, width=width, degree=self.features.degree)
            x = build.add(powers, x, name=f"{name}_powers")
        if self.key_heads == self.heads:
            return x
        repeat = RepeatHeads(width=x.type.width, heads=heads, times=self.heads // self.key_heads)
        return build.add(repeat, x, name=f"{name}_repeat")

    def read(
        self, query: Value, key: Value, value: Value, kept: Kept
    ) -> tuple[Value, Value, Value]:
        """Query and key as the memory takes them, and what it gives.

        A Hebbian write's rate scales the value.
        """
        mixer, descent = self.mixer, self.mixer.descent
        if mixer.learns:
            return query, key, lower_learner(self, query, key, value, kept)
        rate, erase = self.rate(kept), self.erase(key)
        query = self.corrected(query, key if erase is None else erase)
        dot, general = mixer.hebbian, descent.rate == "channel"
        log_input = rate if descent.rate == "exponential" else None
        if general and rate is not None:
            keys = ops.RemovalKeys(width=key.type.width, heads=self.heads)
            key, erase, rate = self.build.add_many(keys, key, rate, name="removal")
        elif rate is not None and dot and log_input is None:
            value = self.build.add(Multiply(), value, rate, name="written")
        point = ops.Memory(
            heads=self.heads,
            key_dim=self.key_dim,
            value_dim=self.value_dim,
            memory="matrix",
            bias="dot" if dot else "l2",
            decay=mixer.per(),
            rate=not dot,
            scale=None if mixer.scale is None else float(mixer.scale),
            lower=kept.lower,
            normaliser=mixer.normaliser,
            read=mixer.read,
            bonus=mixer.bonus == "before_norm",
            steps=self.steps,
            erase=erase is not None,
            general=general,
        )
        optional = [kept.log_decay, log_input, None if dot else rate, erase]
        ports = [query, key, value, *[port for port in optional if port is not None]]
        return query, key, self.build.add(point, *ports, name="memory")

    def rate(self, kept: Kept) -> Value | None:
        """The learner's write rate; the delta rule's is 1 a head where it is fixed."""
        steep = self.mixer.steep
        rate = self.mixer.descent.lower(
            self.build, self.source("rate"), self.heads, self.key_dim, kept.step, Fraction(steep)
        )
        if rate is None and not self.mixer.hebbian:
            one = ops.FixedRate(heads=self.heads * self.steps, learned=False, maximum=float(steep))
            return self.build.add(one, self.stream, name="rate")
        return rate

    def erase(self, key: Value) -> Value | None:
        """The key of what is corrected, where it is not the key that is written."""
        bias = self.mixer.bias
        if not isinstance(bias, L2) or bias.feedback == "full":
            return None
        scale = HeadScale(width=key.type.width, heads=self.heads * self.steps, function="sigmoid")
        return self.build.add(scale, key, name="feedback")

    def corrected(self, query: Value, key: Value) -> Value:
        """The query without a learned share of the (erase) key, where asked."""
        if not self.mixer.correction:
            return query
        scale = HeadScale(width=key.type.width, heads=self.heads)
        share = self.build.add(scale, key, name="correction")
        return self.build.add(Add(negative=True), query, share, name="query_corrected")
