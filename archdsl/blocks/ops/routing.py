"""Operations that send tokens to memories or experts, and what runs on the rows that arrive.

Inside a routed region a value has one of three forms (see ``op.Routed``); a ``Reroute`` turns one into
another, and everything else runs on the form it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import ClassVar, Literal

from archdsl.blocks.op import Buffer, Form, Op, Shape, Type, Work
from archdsl.blocks.ops.dense import Convolution, Initialisation, Linear

NN = "archdsl.blocks.nn.routing:"


class Reroute(Op):
    """Rows of one form as rows of another.

    ``text`` → ``packed`` sends each token's row where it goes, ``every`` → ``packed`` takes the rows of
    the memories it goes to, ``text`` → ``every`` repeats it for each, and ``packed`` → ``text`` is the
    sum over where it went, weighted by the router.
    """

    module: ClassVar[str] = NN + "Reroute"
    source: Form
    target: Form

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The same features in the other form."""
        return (formed(inputs[0], self.target),)


class IdleDecay(Op):
    """A log decay of ``every`` memory and token, as the rows that arrive see it: ``packed``.

    A memory's decays at tokens that go elsewhere are added to that of the next token it takes, and
    what is left at the end decays the state it leaves.
    """

    module: ClassVar[str] = NN + "IdleDecay"

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """Packed."""
        return (formed(inputs[0], "packed"),)


class CopiedLinear(Op):
    """A projection with a matrix a memory or expert: ``y = W_c x + b_c``.

    Of ``text`` it gives ``every``: each copy's projection of each token. Of ``every`` and ``packed``
    rows each one's own. The first axis of a parameter is the copy.
    """

    module: ClassVar[str] = NN + "CopiedLinear"
    copies: int
    chosen: int
    source: Form
    width_in: int
    width_out: int
    bias: bool = False
    init: Initialisation = "fan_in"
    bias_init: float = 0.0
    bias_heads: int = 0

    @classmethod
    def of(cls, linear: Linear, copies: int, chosen: int, source: Form) -> CopiedLinear:
        """One for each copy in place of one for all."""
        return cls(copies=copies, chosen=chosen, source=source, **linear.model_dump())

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The input with another width; of text, for every copy."""
        given = formed(inputs[0], "packed" if self.source == "packed" else "every")
        return (replace(given, width=self.width_out),)

    def parameters(self) -> Mapping[str, Shape]:
        """``weight [copies, out, in]`` and, where asked, ``bias [copies, out]``."""
        weight: dict[str, Shape] = {"weight": (self.copies, self.width_out, self.width_in)}
        return weight | ({"bias": (self.copies, self.width_out)} if self.bias else {})

    @property
    def active(self) -> int:
        """Those of the copies a token goes to."""
        return sum(map(prod, self.parameters().values())) // self.copies * self.chosen

    def flops(self, work: Work) -> int:
        """One product a row."""
        return 2 * work.tokens * self.width_in * self.width_out


class RoutedFilter(Op):
    """A memory's own projection, its convolution along the text and the rows that arrive, as one.

    Args:
        linear: the projection of ``text``.
        filter: the convolution behind it.
        names: the names of both; their parameters are saved under these.
    """

    module: ClassVar[str] = NN + "RoutedFilter"
    transparent: ClassVar[bool] = True
    linear: CopiedLinear
    filter: Convolution
    names: tuple[str, str]

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The rows that arrive, as wide as the projection."""
        return (replace(formed(inputs[0], "packed"), width=self.linear.width_out),)

    def parameters(self) -> Mapping[str, Shape]:
        """Those of both."""
        parts = zip(self.names, (self.linear, self.filter), strict=True)
        return {f"{name}.{key}": s for name, op in parts for key, s in op.parameters().items()}

    @property
    def active(self) -> int:
        """Those of the copies a token goes to, and the taps."""
        return self.linear.active + self.filter.active

    def state(self, length: int) -> Mapping[str, Buffer]:
        """The convolution's."""
        return self.filter.state(length)

    def flops(self, work: Work) -> int:
        """Both, for every copy and token; the work is said in rows that arrive."""
        every = Work(work.tokens // self.linear.chosen * self.linear.copies)
        return self.linear.flops(every) + (self.filter.flops(every) if work.steps > 1 else 0)


class Router(Op):
    """Logits of where a token goes: ``[B, T, width]`` → ``[B, T, choices]`` in float32.

    ``linear`` is ``W x``. ``recurrent`` is a GRU along depth (RMoE, arXiv 2408.06793): ``r_l =
    GRU(W_l x, r_{l-1})``, ``V_l r_l``, one state of ``rank`` numbers a token, ``r_0 = 0``; all recurrent
    routers of a model with the same rank share the GRU.
    """

    module: ClassVar[str] = NN + "Router"
    width: int
    choices: int
    form: Literal["linear", "recurrent"] = "linear"
    rank: int = 0

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """A number a choice."""
        return (replace(inputs[0], width=self.choices, dtype="float32"),)

    def parameters(self) -> Mapping[str, Shape]:
        """``weight [choices, width]``, or with a rank in between ``down [rank, width]``."""
        if self.form == "linear":
            return {"weight": (self.choices, self.width)}
        return {"down": (self.rank, self.width), "weight": (self.choices, self.rank)}

    @property
    def common(self) -> Mapping[str, Shape]:
        """The GRU: three matrices of the input and three of the state, each with a bias."""
        if self.form == "linear":
            return {}
        wide = 3 * self.rank
        return {
            f"router_gru_{self.rank}.input": (wide, self.rank),
            f"router_gru_{self.rank}.state": (wide, self.rank),
            f"router_gru_{self.rank}.input_bias": (wide,),
            f"router_gru_{self.rank}.state_bias": (wide,),
        }

    def flops(self, work: Work) -> int:
        """The products of its matrices."""
        own = sum(map(prod, self.parameters().values()))
        return 2 * work.tokens * (own + 6 * self.rank * self.rank)


class Routing(Op):
    """What ``MixtureOfMemories`` and ``MixtureOfExperts`` share: inputs are the stream and the logits.

    A token goes to its ``top`` choices and to ``shared`` more that every token goes to. The weights of
    the chosen are ``renormalised`` to sum to one, or their ``probability`` among all, times ``scale``; a
    shared one counts once, or as much as the sigmoid of a logit of its own says.

    Args:
        choices: how many there are to choose from.
        top: how many a token goes to.
        shared: how many every token goes to besides.
        mixing: the weights, as above.
        score: what logits are made into: a ``softmax`` over all, or each one's ``sigmoid``.
        scale: of the weights of the chosen.
        gated: whether the last ``shared`` logits are gates of the shared ones.
        balance_bias: where positive, a bias a choice says who is chosen, and counts in no weight
            (arXiv 2408.15664): its gradient is this times the sign of how many more places than the
            mean a choice got, so one step of that rate is the paper's.
        balance: of the loss ``choices · Σ_e f_e P_e``, the share of places times the mean probability
            (arXiv 2101.03961 eq. 4; 1 where all are used alike).
        z_loss: of the mean of ``log² Σ exp(logits)`` (arXiv 2202.08906 eq. 5).
        width: channels of the result.
    """

    inputs: ClassVar[int] = 2
    choices: int
    top: int
    shared: int
    width: int
    mixing: Literal["renormalised", "probability"] = "renormalised"
    score: Literal["softmax", "sigmoid"] = "softmax"
    scale: Fraction = Fraction(1)
    gated: bool = False
    balance_bias: Fraction = Fraction(0)
    balance: Fraction = Fraction(0)
    z_loss: Fraction = Fraction(0)

    @property
    def copies(self) -> int:
        """All of them."""
        return self.choices + self.shared

    @property
    def places(self) -> int:
        """How many a token goes to in all."""
        return self.top + self.shared

    def parameters(self) -> Mapping[str, Shape]:
        """``balance_bias [choices]`` where there is one."""
        return {"balance_bias": (self.choices,)} if self.balance_bias else {}

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The stream, as wide as the region leaves it."""
        return (replace(inputs[0], width=self.width),)


class MixtureOfMemories(Routing):
    """A region whose memories are several, of which a token is written to and read from a few.

    Arxiv 2502.13685. With ``capacity`` a memory takes a token only while the earlier tokens that
    chose it are fewer than ``capacity · top / choices`` of all tokens so far.
    """

    module: ClassVar[str] = NN + "MixtureOfMemories"
    capacity: Fraction | None = None

    def state(self, length: int) -> Mapping[str, Buffer]:
        """With a capacity, how many tokens have chosen each memory."""
        return {} if self.capacity is None else {"asked": Buffer((self.choices,), "int64")}


class MixtureOfExperts(Routing):
    """A region with weights of its own for each expert, on the rows sorted by expert."""

    module: ClassVar[str] = NN + "MixtureOfExperts"


def formed(type_: Type, form: Form) -> Type:
    """A type in another form."""
    assert type_.routed is not None, f"{type_} is not inside a routed container"
    return replace(type_, routed=replace(type_.routed, form=form))
