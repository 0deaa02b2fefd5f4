"""``miras``: a recurrent mixer as a point of four axes, in the shell its family is published with."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
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
    Rule,
    Value,
    features,
)
from archdsl.blocks.miras import learning, routed
from archdsl.blocks.miras.bias import L2, Bias, Dot
from archdsl.blocks.miras.descents import ClosedForm
from archdsl.blocks.miras.learner import GradientDescent, Learner
from archdsl.blocks.miras.maps import Mapped
from archdsl.blocks.miras.memory import Memory, Stored, Vector, stored
from archdsl.blocks.miras.retention import Decay, Retention, RunningSoftmax
from archdsl.blocks.miras.shell import MatrixShell, VectorShell
from archdsl.blocks.op import Type
from archdsl.blocks.ops import memory as ops

Transform = Activation | Literal["l2_norm", "softmax"]


class Miras(Layer):
    """A memory that is written and read at every token (Miras, arXiv 2504.13173).

    Queries, keys and values are projected, pass a short convolution (``conv`` taps, with SiLU) or, where
    there is none, an ``activation``; then ``query``, ``key`` and ``value`` transform them. ``key =
    complement`` is ``1 - decay``; the places of ``position = rope`` count modulo a ``period``. What is
    read passes a ``norm`` over each head (or each ``group`` of heads with one key, or the whole
    ``width``), a ``gate`` from the input, a projection.

    ``shift`` lets every projection see a mix of its own of the token and the one before
    (``static``, or ``dynamic`` through ``shift_rank`` channels). ``read = before`` reads before the
    token is written, and ``bonus`` adds the token itself, to what is read or behind the norm.
    ``correction`` takes a learned share of the key off the query; ``value_residual`` is the rank of a
    map that mixes in the first such layer's values. The norm's gain is a number a head's channel, or a
    channel; ``deepening`` ones start at ``((l + 1)/L)^0.7`` in layer ``l`` of ``L`` (RWKV). A gate with
    an activation inside (``gate_inner``) starts alike for all tokens (RWKV-7).
    """

    name: ClassVar[str] = "miras"
    keeps: ClassVar[bool] = True
    routes: ClassVar[frozenset[str]] = frozenset({"mom"})
    remembers: ClassVar[bool] = True
    memory: Memory
    bias: Bias = Dot()
    retention: Retention | None = None
    learner: Learner = GradientDescent()
    query: Transform = "none"
    key: Transform | Literal["complement"] = "none"
    value: Transform = "none"
    feature: Literal["none", "elu1"] = "none"
    normaliser: Literal["none", "sum", "max"] = "none"
    position: Literal["none", "rope"] = "none"
    period: Count | None = None
    scale: Annotated[Real, Field(gt=0)] | None = None
    conv: Annotated[int, Field(ge=1, le=64)] | None = None
    conv_bias: bool = False
    activation: Activation = "none"
    skip: bool = False
    norm: Literal["rms", "layer", "none"] = "rms"
    norm_over: Literal["head", "group", "width"] = "head"
    norm_place: Literal["before_gate", "after_gate"] = "before_gate"
    norm_gain: Literal["head", "channel", "deepening"] = "head"
    norm_bias: bool = False
    norm_eps: Annotated[Real, Field(gt=0, le=1)] = Fraction(1, 10**6)
    gate: Activation | Literal["linear"] = "none"
    gate_rank: Count | None = None
    gate_inner: Activation = "none"
    gate_bias: bool = False
    shift: Literal["none", "static", "dynamic"] = "none"
    shift_rank: Count = 32
    read: Literal["after", "before"] = "after"
    bonus: Literal["none", "before_norm", "after_norm"] = "none"
    correction: bool = False
    value_residual: Count | None = None

    @property
    def descent(self) -> GradientDescent:
        """The learner; of a closed form the weights of its writes."""
        if isinstance(self.learner, ClosedForm):
            return GradientDescent(rate=self.learner.rate)
        assert isinstance(self.learner, GradientDescent)
        return self.learner

    @property
    def hebbian(self) -> bool:
        """Whether writes do not depend on what is there."""
        return self.bias.plain is not None and self.bias.plain[0] == "dot"

    @property
    def steep(self) -> int:
        """How many times as steep its bias is as the fast families' own."""
        return 1 if self.bias.plain is None else self.bias.plain[1]

    @property
    def stored(self) -> Stored | None:
        """The memory with heads, without its feature map; ``None`` for a vector."""
        return stored(self.memory)

    @property
    def decay(self) -> Decay | None:
        """The decay of its retention."""
        if isinstance(self.retention, Mapped):
            return self.retention.forgets
        return self.retention if isinstance(self.retention, Decay) else None

    @property
    def learns(self) -> bool:
        """Whether it is beyond what one formula of a fast family computes."""
        return learning.learns(self)

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """What cannot be meant together."""
        return (
            cls._vector_complaints,
            cls._key_complaints,
            cls._step_complaints,
            cls._normaliser_complaints,
            cls._read_complaints,
            cls._rate_complaints,
            cls._steps_complaints,
            *learning.RULES,
        )

    def _vector_complaints(self) -> Iterator[Invalid]:
        if not isinstance(self.memory, Vector):
            return
        if self.normaliser != "none":
            yield Invalid(
                "vector-bias", "a vector memory has no keys to normalise by", argument="normaliser"
            )
        wanted = {
            "read": self.read != "after",
            "bonus": self.bonus != "none",
            "correction": self.correction,
            "learner": self.descent.steps > 1 or (self._plain and self.descent.rate != "fixed"),
        }
        for argument in (name for name, asked in wanted.items() if asked):
            yield Invalid(
                "vector-read",
                f"a vector memory has no keys, so `{argument}` has nothing to work on",
                argument=argument,
                help="use `memory = matrix(heads = …)`",
            )

    @property
    def _plain(self) -> bool:
        return self.hebbian and not self.learns

    def _key_complaints(self) -> Iterator[Invalid]:
        if self.key == "complement" and not self._decays("channel"):
            yield Invalid(
                "complement-decay",
                "`key = complement` is one minus the decay, and needs a decay for every channel",
                argument="key",
                help="write `retention = decay(per = channel)`",
            )
        made = isinstance(self.retention, RunningSoftmax)
        if made and self.key != "none":
            yield Invalid(
                "tied-key",
                "`retention = running_softmax` gives the key itself, so `key` has nothing to work on",
                argument="key",
                help="leave `key` out",
            )
        turned = self.position != "none" or self.feature != "none"
        if turned and (made or self.key == "complement"):
            yield Invalid(
                "tied-key",
                "a key that comes from the decay takes no position and no feature map",
                argument="feature" if self.feature != "none" else "position",
                help="leave it out, or give the mixer a key of its own",
            )

    def _decays(self, *per: str) -> bool:
        return isinstance(self.retention, Decay) and self.retention.per in per

    def _step_complaints(self) -> Iterator[Invalid]:
        wants = self.descent.rate == "step"
        gives = isinstance(self.retention, Decay) and self.retention.form == "softplus"
        if wants and not (gives and self._decays("head")):
            yield Invalid(
                "step-without-decay",
                "`rate = step` is the step size of a decay a head, and there is none",
                argument="learner",
                help="write `retention = decay(per = head, form = softplus)`",
            )

    def _normaliser_complaints(self) -> Iterator[Invalid]:
        if self.normaliser != "none" and not self.hebbian:
            yield Invalid(
                "normaliser-bias",
                "a normaliser belongs to `bias = dot`: the delta rule corrects itself",
                argument="normaliser",
            )
        largest, exponential = self.normaliser == "max", self.descent.rate == "exponential"
        if largest != exponential:
            yield Invalid(
                "exponential-rate",
                "`normaliser = max` and `rate = exponential` belong together: the one keeps the other"
                " from overflowing",
                argument="normaliser" if largest else "learner",
                help="write `normaliser = max, learner = gd(rate = exponential)`",
            )
        if largest and not self._decays("head"):
            yield Invalid(
                "exponential-rate",
                "`normaliser = max` needs a decay a head",
                argument="retention",
                help="write `retention = decay(per = head, form = sigmoid)`",
            )

    def _read_complaints(self) -> Iterator[Invalid]:
        before = self.read == "before"
        if before and (not self.hebbian or self.normaliser != "none"):
            yield Invalid(
                "read-before",
                "`read = before` belongs to `bias = dot` without a normaliser",
                argument="read",
                help="leave `read` out",
            )
        if self.bonus == "before_norm" and not before:
            yield Invalid(
                "bonus-without-read",
                "a token that reads its own write needs no bonus before the norm",
                argument="bonus",
                help="write `read = before`, or `bonus = after_norm`",
            )

    def _rate_complaints(self) -> Iterator[Invalid]:
        learner, l2 = self.descent, isinstance(self.bias, L2)
        if learner.rate == "channel" and not l2 and not self.learns:
            yield Invalid(
                "channel-rate",
                "a rate a channel says how much of a key is erased, and `bias = dot` erases nothing",
                argument="learner",
                help="write `bias = l2`",
            )
        if isinstance(learner.start, str) and learner.rate != "channel":
            yield Invalid(
                "channel-rate",
                "`start = zigzag` spreads a rate over the channels, and there is no rate a channel",
                argument="learner",
                help="write `gd(rate = channel, start = zigzag)`, or leave `start` out",
            )
        feedback = isinstance(self.bias, L2) and self.bias.feedback == "learned"
        if feedback and learner.rate == "channel":
            yield Invalid(
                "channel-rate",
                "a rate a channel has an erase key of its own, so `feedback` has nothing to work on",
                argument="bias",
                help="write `bias = l2`",
            )

    def _steps_complaints(self) -> Iterator[Invalid]:
        learner = self.descent
        if learner.steps == 1:
            return
        refused = not isinstance(self.bias, L2) and not self.learns
        if refused or learner.rate in ("channel", "step"):
            yield Invalid(
                "steps-bias",
                f"`steps = {learner.steps}` needs `bias = l2` and one rate a write",
                argument="learner",
                help="write `bias = l2, learner = gd(rate = token, steps = 2)`",
            )
        once = {
            "skip": self.skip,
            "bonus": self.bonus != "none",
            "correction": self.correction,
            "value_residual": self.value_residual is not None,
            "key": self.key == "complement" or isinstance(self.retention, RunningSoftmax),
        }
        for argument in (name for name, asked in once.items() if asked):
            yield Invalid(
                "steps-once",
                f"with several writes a token there are several values, and `{argument}` takes one",
                argument=argument,
                help=f"leave `{argument}` out, or use `steps = 1`",
            )

    def infer(self, stream: Type) -> Type:
        """Heads and expansions give whole numbers of channels."""
        width = features(stream, self.name)
        routed.fits(self, stream.routed)
        if self.stored is not None:
            key, _ = self.stored.dims(width)
            if self.position == "rope" and key % 2:
                raise Invalid(
                    "odd-rotary",
                    f"RoPE turns pairs of channels, and a key here has {key}",
                    argument="position",
                )
        elif isinstance(self.memory, Vector):
            self.memory.channels(width)
        return stream

    def per(self) -> ops.Per:
        """What the decay is a number for."""
        if isinstance(self.retention, RunningSoftmax):
            return "channel"
        return "none" if self.decay is None else self.decay.per

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """Projections, memory, epilogue."""
        if self.stored is not None:
            return MatrixShell(self, self.stored, build, stream).lower()
        assert isinstance(self.memory, Vector)
        return VectorShell(self, build, stream).lower(self.memory.channels(stream.type.width))
