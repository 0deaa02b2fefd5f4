"""What a component of the language is, and what it may use while it is lowered.

A component is a frozen pydantic model: its fields are its parameters in the order of the positional
arguments, a field without a default is required, a field's type says what may be written there
(numbers, ``Literal`` symbols, ``None``, other components). Everything here is free of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from archdsl.blocks.op import Op, Type

Kind = Literal[
    "layer",
    "memory",
    "bias",
    "retention",
    "learner",
    "draw",
    "halting rule",
    "task",
    "sampler",
    "metric",
]
"""The places a component may stand in; a name may mean different things in different places."""

LARGEST = 2**31 - 1

Count = Annotated[int, Field(ge=1, le=LARGEST)]
"""A whole number from 1."""

Copies = Annotated[int, Field(ge=1, le=10_000)]
"""How often something is repeated."""


def _exact(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        raise ValueError("a number is expected")
    return Fraction(str(value)) if isinstance(value, float) else Fraction(value)


Real = Annotated[
    Fraction,
    BeforeValidator(_exact),
    PlainSerializer(lambda value: str(value)),
    Field(ge=-(10**9), le=10**9),
]
"""An exact number, whole or not: ``8/3`` stays 8/3."""

Word = Annotated[str, Field(pattern="^[a-z_][a-z0-9_]*$")]
"""A bare name taken as it stands: a label, a state of a cell. (A plain ``str`` is a quoted string.)"""


@dataclass(frozen=True)
class Formula:
    """Marks a field that holds an expression of ``blocks.equations`` over some names."""

    names: tuple[str, ...]


Activation = Literal[
    "none", "silu", "gelu", "relu", "relu2", "sigmoid", "tanh", "elu1", "softplus", "leaky_relu"
]
"""Elementwise activations; ``elu1`` is ``elu(x) + 1``, ``relu2`` is ``relu(x)²``."""


class Ratio(BaseModel):
    """``3:1``: whole parts, at least two, at least one positive."""

    model_config = ConfigDict(frozen=True, defer_build=True)
    parts: tuple[int, ...]

    def __str__(self) -> str:
        return ":".join(map(str, self.parts))


class Invalid(Exception):
    """A component's complaint about its arguments or its input, before it has a place in a text.

    Args:
        id: diagnostic id.
        message: one sentence that stands alone.
        argument: the parameter to point at; ``None`` points at the component's name.
        label: a few words at the caret.
        help: what to type instead.
    """

    def __init__(
        self, id: str, message: str, *, argument: str | None = None, label: str = "", help: str = ""
    ) -> None:
        self.id, self.message, self.argument = id, message, argument
        self.label, self.help = label, help
        super().__init__(message)


@dataclass(frozen=True)
class Value:
    """An output port of a node in the graph under construction."""

    node: str
    port: int
    type: Type


class Region(Protocol):
    """A lowered child: a graph of its own, opaque to components."""

    @property
    def output(self) -> Value:
        """Its result."""


class Builder(Protocol):
    """What a component uses to lower itself; the compiler implements it.

    Every ``add`` verifies types at once. ``name`` is the node's name in the graph, in ``state_dict``
    and in messages; the operation's kind is taken where none is given.
    """

    def add(
        self, op: Op, *inputs: Value, name: str | None = None, regions: Sequence[Region] = ()
    ) -> Value:
        """Add an operation with one output."""

    def add_many(self, op: Op, *inputs: Value, name: str | None = None) -> tuple[Value, ...]:
        """Add an operation with several outputs."""

    def changed(self, region: Region, change: Callable[[Op], Op], *, ends: bool = False) -> Region:
        """A lowered child with another operation in the place of each, wherever it stands inside.

        With ``ends`` only of those that give the output of a residual branch.
        """

    def inlined(self, region: Region, stream: Value) -> Value:
        """The operations of a lowered child on a stream, without an operation around them."""

    @property
    def policy(self) -> ResidualPolicy | None:
        """How ``residual`` joins its branch, where a surrounding region decides it."""


Scaled = Callable[[Builder, Value], Value]
"""What multiplies a lowered branch by a residual's scale."""


class ResidualPolicy(Protocol):
    """A region's way to join a residual branch (hyper-connections …); ``None`` is plain addition.

    Equal ones are the same policy: they are compared by value.
    """

    def join(self, build: Builder, stream: Value, branch: Region, scaled: Scaled) -> Value:
        """Lower one residual branch on the region's streams; ``scaled`` adds its scale."""


class Children(Protocol):
    """A container's children while it is lowered; ``labels`` has the label of each visit."""

    @property
    def labels(self) -> tuple[str | None, ...]:
        """One label, or ``None``, a visit."""

    def lower(self, visit: int, stream: Type, policy: ResidualPolicy | None = None) -> Region:
        """Lower what visit number ``visit`` holds, as a graph that takes ``stream``.

        Visits that hold the same components give the same object.
        """


Rule = Callable[[Any], Iterable["Invalid"]]
"""A part of ``Component.verify``: a component's complaints."""


class Component(BaseModel):
    """Anything with a name and parameters. ``name`` and ``kind`` say where it may be written."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: ClassVar[str]
    kind: ClassVar[Kind]

    def verify(self) -> None:
        """Raise :class:`Invalid` where the arguments do not fit each other."""
        for rule in self.rules():
            for complaint in rule(self):
                raise complaint

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """The parts of ``verify``, where it has many that read a few arguments each.

        A check asks each for every combination of the arguments it reads: many small ones instead of
        one large one. Each gives complaints, of which the first counts.
        """
        return ()


class Layer(Component):
    """A component that stands in a body and maps a stream to a stream.

    A leaf overrides :meth:`infer` and :meth:`lower`. A container (``body = "layers"`` or
    ``"labelled"``) overrides :meth:`visits`, :meth:`combine` and :meth:`lower`; a cell has
    ``body = "equations"``.
    """

    kind: ClassVar[Kind] = "layer"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "none"
    routes: ClassVar[frozenset[str]] = frozenset()
    """The routed containers it may stand in: its operations know what rows that are not text mean."""
    remembers: ClassVar[bool] = False
    """Whether it has a memory that ``mom`` can have several of."""
    keeps: ClassVar[bool] = False
    """Whether it gives the type back that it was given: what is behind it is known even where something
    about it, or inside it, is wrong."""

    def warnings(self, labels: Sequence[str | None]) -> Sequence[Invalid]:
        """What is legal and yet perhaps not meant; ``labels`` are the children's."""
        return ()

    def infer(self, stream: Type) -> Type:
        """The type behind the layer; raises :class:`Invalid` where the stream does not fit."""
        return stream

    def enter(self, stream: Type) -> Type:
        """:meth:`infer`, where the layer may stand at all."""
        if stream.routed is None:
            return self.infer(stream)
        if stream.routed.within not in self.routes:
            raise not_routable(self.name, stream.routed.within)
        found = self.infer(stream)
        return (
            replace(found, routed=replace(stream.routed, written=True)) if self.remembers else found
        )

    def otherwise(self, stream: Type) -> Type | None:
        """The type behind a leaf that does not fit, so that what follows is checked, too.

        ``None`` where nobody knows, or where what follows would not fit for the same reason: a place
        before `embed`, behind the head, on several streams or among routed rows.
        """
        plain = stream.kind == "features" and stream.streams == 1 and stream.routed is None
        return stream if self.keeps and plain else None

    def visits(self, labels: Sequence[str | None]) -> Sequence[tuple[int, ...]]:
        """What a container runs: each visit is the indices of the children it runs in sequence.

        A child of which no visit speaks is not part of the architecture, nor are its choices.
        """
        return (tuple(range(len(labels))),)

    def combine(self, stream: Type, outputs: Sequence[Type]) -> Type:
        """The type behind a container, from what each visit's sequence gives for ``stream``."""
        return outputs[0]

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """Add the operations of the layer."""
        raise AssertionError(f"{type(self).__name__} does not say how it is lowered")


def features(stream: Type, name: str, *, streams: bool = False) -> int:
    """Width of a feature stream; a layer before ``embed`` or behind the head is a mistake.

    So is one on several residual streams, but for containers that say ``streams``.
    """
    if stream.kind == "tokens":
        raise Invalid(
            "no-features", f"`{name}` stands before `embed`, where there are only tokens",
            help="put `embed(dim = …)` first",
        )  # fmt: skip
    if stream.kind == "logits":
        raise Invalid(
            "behind-head", f"`{name}` stands behind the head, where there are only logits",
            help="put the head last",
        )  # fmt: skip
    if stream.streams > 1 and not streams:
        raise Invalid(
            "several-streams",
            f"`{name}` stands on {stream.streams} residual streams, of which it takes one",
            help=f"put it into a branch: `residual {{ {name} }}`",
        )
    return stream.width


ROUTABLE = {
    "mom": (
        "a token is sent to some of the memories, and this layer needs every token of the text",
        "put one recurrent mixer there (`miras`, a `cell`, or a named one such as `gla`), and this"
        " outside",
    ),
    "moe": (
        "an expert works on single tokens with weights of its own, and this layer is no such thing",
        "put `swiglu`, `mlp`, `linear` and `activation` there, and this outside",
    ),
}
"""Why a layer may not stand in a routed container, and what to write instead."""


def not_routable(name: str, within: str) -> Invalid:
    """The complaint of a layer that cannot stand in a routed container."""
    why, help = ROUTABLE[within]
    return Invalid("not-routable", f"`{name}` cannot stand inside `{within}`: {why}", help=help)


def nothing_to_decay(name: str) -> Invalid:
    """The complaint of a memory that is to forget while it idles, and cannot."""
    return Invalid(
        "nothing-to-decay",
        f"`idle = decay` needs a decay a head or channel that stands ahead of the write, and this `{name}`"
        " has none",
        help="write `idle = keep`, or give the mixer `retention = decay(per = head)` and `read = after`",
    )


def divides(part: int, whole: int, argument: str, what: str) -> int:
    """``whole / part``, or the diagnostic of the field's commonest mistake."""
    if whole % part:
        legal = [n for n in range(1, min(whole, 256) + 1) if whole % n == 0]
        raise Invalid(
            "does-not-divide",
            f"`{argument} = {part}` does not divide {what} {whole}",
            argument=argument,
            label=f"{whole} / {part} is not whole",
            help="use one of " + ", ".join(map(str, legal[:12])),
        )
    return whole // part


def scaled(factor: Fraction, width: int) -> int:
    """``factor · width`` where that is whole, else the next multiple of 8 above it."""
    exact = factor * width
    if exact > LARGEST - 8:
        raise Invalid(
            "too-wide",
            f"`expand = {factor}` of width {width:,} is more than {LARGEST:,} channels",
            argument="expand",
            help="use a smaller width",
        )
    return int(exact) if exact.denominator == 1 else -(-exact // 8) * 8
