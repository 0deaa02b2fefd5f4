"""``miras``: a recurrent mixer as a point of four axes, in the shell its family is published with."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import (
    Activation,
    Builder,
    Children,
    Count,
    Invalid,
    Layer,
    Real,
    Value,
    features,
)
from archdsl.blocks.miras.bias import Bias, Dot
from archdsl.blocks.miras.learner import GradientDescent, Learner
from archdsl.blocks.miras.memory import Matrix, Memory, Vector
from archdsl.blocks.miras.retention import Decay, Kept, Retention
from archdsl.blocks.op import Type
from archdsl.blocks.ops import memory as ops
from archdsl.blocks.ops.attention import Rotary
from archdsl.blocks.ops.dense import (
    Activate,
    Add,
    Convolution,
    Gate,
    HeadNormalise,
    HeadScale,
    Linear,
    Multiply,
    Norm,
    RepeatHeads,
)

Transform = Activation | Literal["l2_norm", "softmax"]


class Miras(Layer):
    """A memory that is written and read at every token.

    Queries, keys and values are projected, pass a short convolution (``conv`` taps, with SiLU), then
    ``query``, ``key`` and ``value`` transform them; ``key = complement`` is ``1 - decay``. What is read
    passes a ``norm`` over each head (or the whole ``width``), a ``gate`` from the input, a projection.
    """

    name: ClassVar[str] = "miras"
    memory: Memory
    bias: Bias = Dot()
    retention: Retention | None = None
    learner: Learner = GradientDescent()
    query: Transform = "none"
    key: Transform | Literal["complement"] = "none"
    value: Transform = "none"
    feature: Literal["none", "elu1"] = "none"
    normaliser: Literal["none", "sum"] = "none"
    position: Literal["none", "rope"] = "none"
    scale: Annotated[Real, Field(gt=0)] | None = None
    conv: Annotated[int, Field(ge=1, le=64)] | None = None
    conv_bias: bool = False
    skip: bool = False
    norm: Literal["rms", "layer", "none"] = "rms"
    norm_over: Literal["head", "width"] = "head"
    norm_place: Literal["before_gate", "after_gate"] = "before_gate"
    gate: Activation = "none"
    gate_rank: Count | None = None

    def verify(self) -> None:
        """What cannot be meant together."""
        vector = isinstance(self.memory, Vector)
        if vector and self.bias.name != "dot":
            raise Invalid(
                "vector-bias",
                f"a vector memory has no keys to correct by, so `bias = {self.bias.name}` means nothing",
                argument="bias",
                help="use `memory = matrix(heads = …)`, or `bias = dot`",
            )
        if vector and self.normaliser != "none":
            raise Invalid(
                "vector-bias", "a vector memory has no keys to normalise by", argument="normaliser"
            )
        if self.normaliser != "none" and self.bias.name != "dot":
            raise Invalid(
                "normaliser-bias",
                "a normaliser belongs to `bias = dot`: the delta rule corrects itself",
                argument="normaliser",
            )
        if self.key == "complement" and not self._channelwise():
            raise Invalid(
                "complement-decay",
                "`key = complement` is one minus the decay, and needs a decay for every channel",
                argument="key",
                help="write `retention = decay(per = channel)`",
            )
        self._verify_step()

    def _channelwise(self) -> bool:
        return isinstance(self.retention, Decay) and self.retention.per == "channel"

    def _verify_step(self) -> None:
        wants = isinstance(self.learner, GradientDescent) and self.learner.rate == "step"
        gives = isinstance(self.retention, Decay) and self.retention.per == "head"
        if wants and not (gives and self.retention.form == "softplus"):  # type: ignore[union-attr]
            raise Invalid(
                "step-without-decay",
                "`rate = step` is the step size of a decay a head, and there is none",
                argument="learner",
                help="write `retention = decay(per = head, form = softplus)`",
            )

    def infer(self, stream: Type) -> Type:
        """Heads and expansions give whole numbers of channels."""
        width = features(stream, self.name)
        if isinstance(self.memory, Matrix):
            key, _ = self.memory.dims(width)
            if self.position == "rope" and key % 2:
                raise Invalid(
                    "odd-rotary",
                    f"RoPE turns pairs of channels, and a key here has {key}",
                    argument="position",
                )
        elif isinstance(self.memory, Vector):
            self.inner(width)
        return stream

    def inner(self, width: int) -> int:
        """Channels of a vector memory."""
        total = self.memory.expand * width  # type: ignore[attr-defined]
        if total.denominator != 1:
            raise Invalid(
                "does-not-divide",
                f"`expand` of width {width} is not a whole number of channels",
                argument="memory",
            )
        return int(total)

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """Projections, memory, epilogue."""
        if isinstance(self.memory, Matrix):
            return _MatrixShell(self, self.memory, build, stream).lower()
        return self._lower_vector(build, stream)

    def _lower_vector(self, build: Builder, stream: Value) -> Value:
        width = stream.type.width
        inner = self.inner(width)
        value = self.branch(build, stream, "value", inner, self.value, 1)
        kept = self.keep(build, stream, 1, inner)
        key = self._vector_key(build, stream, kept, inner)
        read = build.add(
            ops.Memory(
                heads=1,
                key_dim=1,
                value_dim=inner,
                memory="vector",
                bias="dot",
                decay=self.per(),
                rate=False,
            ),
            *[port for port in (key, value, kept.log_decay) if port is not None],
            name="memory",
        )
        return self.epilogue(build, stream, read, 1)

    def _vector_key(self, build: Builder, stream: Value, kept: Kept, inner: int) -> Value:
        if self.key == "complement" and kept.log_decay is not None:
            return build.add(ops.Complement(), kept.log_decay, name="complement")
        return self.branch(build, stream, "key", inner, self.key, 1)

    def per(self) -> ops.Per:
        """What the decay is a number for."""
        return self.retention.per if isinstance(self.retention, Decay) else "none"

    def keep(self, build: Builder, stream: Value, heads: int, channels: int) -> Kept:
        """The retention's gates."""
        if not isinstance(self.retention, Decay):
            return Kept()
        step = isinstance(self.learner, GradientDescent) and self.learner.rate == "step"
        return self.retention.lower_gate(build, stream, heads, channels, step=step)

    def branch(
        self, build: Builder, stream: Value, name: str, width: int, how: str, heads: int
    ) -> Value:
        """One of query, key and value: projection, short convolution, transform."""
        x = build.add(Linear(width_in=stream.type.width, width_out=width), stream, name=name)
        if self.conv:
            filter_ = Convolution(
                width=width, kernel=self.conv, activation="silu", bias=self.conv_bias
            )
            x = build.add(filter_, x, name=f"{name}_conv")
        return transform(build, x, name, how, heads)

    def epilogue(self, build: Builder, stream: Value, read: Value, heads: int) -> Value:
        """Norm, gate and output projection."""
        width = read.type.width
        first = self.norm_place == "after_gate"
        x = self._gated(build, stream, read) if first else read
        if self.norm != "none":
            groups = heads if self.norm_over == "head" else 1
            x = build.add(
                Norm(width=width, norm=self.norm, groups=groups, shared=groups > 1), x, name="norm"
            )
        x = x if first else self._gated(build, stream, x)
        return build.add(Linear(width_in=width, width_out=stream.type.width), x, name="out")

    def _gated(self, build: Builder, stream: Value, x: Value) -> Value:
        if self.gate == "none":
            return x
        inner = stream
        if self.gate_rank:
            narrow = Linear(width_in=stream.type.width, width_out=self.gate_rank)
            inner = build.add(narrow, stream, name="gate_down")
        widen = Linear(width_in=inner.type.width, width_out=x.type.width, bias=bool(self.gate_rank))
        gate = build.add(widen, inner, name="gate")
        return build.add(Gate(function=self.gate), x, gate, name="gated")


def transform(build: Builder, x: Value, name: str, how: str, heads: int) -> Value:
    """An activation, or a normalisation of each head's slice."""
    if how in ("none", "complement"):
        return x
    if how in ("l2_norm", "softmax"):
        op = HeadNormalise.model_validate({"width": x.type.width, "heads": heads, "form": how})
        return build.add(op, x, name=f"{name}_{how}")
    return build.add(Activate.model_validate({"function": how}), x, name=f"{name}_{how}")


class _MatrixShell:
    """Lowers a mixer with a matrix memory, one method a part."""

    def __init__(self, mixer: Miras, memory: Matrix, build: Builder, stream: Value) -> None:
        self.mixer, self.memory, self.build, self.stream = mixer, memory, build, stream
        self.heads, self.key_heads = memory.heads, memory.key_heads or memory.heads
        self.key_dim, self.value_dim = memory.dims(stream.type.width)

    def lower(self) -> Value:
        """The whole mixer."""
        mixer, build = self.mixer, self.build
        kept = mixer.keep(build, self.stream, self.heads, self.key_dim)
        query = self.keys("query", mixer.query)
        key = self.key(kept)
        width = self.heads * self.value_dim
        value = mixer.branch(build, self.stream, "value", width, mixer.value, self.heads)
        read = self.read(query, key, value, kept)
        if mixer.skip:
            direct = build.add(HeadScale(width=width, heads=self.heads), value, name="skip")
            read = build.add(Add(), read, direct, name="read")
        return mixer.epilogue(build, self.stream, read, self.heads)

    def key(self, kept: Kept) -> Value:
        """The key: projected, or one minus the decay."""
        if self.mixer.key == "complement" and kept.log_decay is not None:
            return self.build.add(ops.Complement(), kept.log_decay, name="complement")
        return self.keys("key", self.mixer.key)

    def keys(self, name: str, how: str) -> Value:
        """Query or key: branch, feature map, rotation, sharing among heads."""
        mixer, build = self.mixer, self.build
        width = self.key_heads * self.key_dim
        x = mixer.branch(build, self.stream, name, width, how, self.key_heads)
        x = transform(build, x, name, mixer.feature, self.key_heads)
        if mixer.position == "rope":
            x = build.add(Rotary(width=width, heads=self.key_heads), x, name=f"{name}_rope")
        if self.key_heads == self.heads:
            return x
        times = self.heads // self.key_heads
        repeat = RepeatHeads(width=width, heads=self.key_heads, times=times)
        return build.add(repeat, x, name=f"{name}_repeat")

    def read(self, query: Value, key: Value, value: Value, kept: Kept) -> Value:
        """The memory itself; a Hebbian write's rate scales the value."""
        mixer, build = self.mixer, self.build
        rate = self.rate(kept)
        dot = mixer.bias.name == "dot"
        if rate is not None and dot:
            value = build.add(Multiply(), value, rate, name="written")
        point = ops.Memory(
            heads=self.heads,
            key_dim=self.key_dim,
            value_dim=self.value_dim,
            memory="matrix",
            bias="dot" if dot else "l2",
            decay=mixer.per(),
            rate=rate is not None and not dot,
            normaliser=mixer.normaliser,
            scale=None if mixer.scale is None else float(mixer.scale),
            lower=kept.lower,
        )
        optional = [kept.log_decay, None if dot else rate]
        ports = [query, key, value, *[port for port in optional if port is not None]]
        return build.add(point, *ports, name="memory")

    def rate(self, kept: Kept) -> Value | None:
        """The learner's write rate; the delta rule's is 1 a head where it is fixed."""
        learner = self.mixer.learner
        assert isinstance(learner, GradientDescent)
        rate = learner.lower(self.build, self.stream, self.heads, kept.step)
        if rate is None and self.mixer.bias.name == "l2":
            one = ops.FixedRate(heads=self.heads, learned=False)
            return self.build.add(one, self.stream, name="rate")
        return rate
