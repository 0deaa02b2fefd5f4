"""Memories: what a mixer stores."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Activation, Component, Count, Invalid, Kind, Real, divides, scaled
from archdsl.kernels.learner.rule import Store

Expand = Annotated[Real, Field(gt=0, le=64)]


def share(factor: Fraction, width: int, heads: int, argument: str) -> int:
    """Channels a head of ``factor · width`` channels."""
    total = factor * width
    if total.denominator != 1:
        raise Invalid(
            "does-not-divide",
            f"`{argument} = {factor}` of width {width} is not a whole number of channels",
            argument=argument,
        )
    return divides(heads, int(total), "heads", "the memory's width")


class Memory(Component):
    """A store with a shape; the base of all memories."""

    kind: ClassVar[Kind] = "memory"

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return f"{self.name} memory"


class Vector(Memory):
    """One number a channel, over ``expand`` times the stream's width."""

    name: ClassVar[str] = "vector"
    expand: Expand = Fraction(1)

    def channels(self, width: int) -> int:
        """How many numbers there are."""
        total = self.expand * width
        if total.denominator != 1:
            raise Invalid(
                "does-not-divide",
                f"`expand` of width {width} is not a whole number of channels",
                argument="memory",
            )
        return int(total)


class Matrix(Memory):
    """A matrix ``[key_dim, value_dim]`` a head.

    The dims are a head's; without them they are the stream's width times ``expand_k`` or ``expand_v``
    over the heads. ``key_heads`` fewer than ``heads`` shares queries and keys among heads.
    """

    name: ClassVar[str] = "matrix"
    heads: Count
    key_dim: Count | None = None
    value_dim: Count | None = None
    expand_k: Expand = Fraction(1)
    expand_v: Expand = Fraction(1)
    key_heads: Count | None = None

    def verify(self) -> None:
        """Shared keys share evenly."""
        if self.key_heads:
            divides(self.key_heads, self.heads, "key_heads", "the number of heads")

    def dims(self, width: int) -> tuple[int, int]:
        """Key and value channels a head."""
        key = self.key_dim or share(self.expand_k, width, self.heads, "expand_k")
        value = self.value_dim or share(self.expand_v, width, self.heads, "expand_v")
        return key, value

    def store(self, width: int, features: int | None = None) -> Store:
        """One layer without anything around it; ``features`` are what its keys are made into."""
        key, value = self.dims(width)
        return Store((features or key, value))

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return "matrix memory"


class MLP(Memory):
    """A multilayer perceptron a head, whose weights are what is written: ``M(x) = x + norm(f(x))``.

    ``depth`` layers, the inner ones ``expand`` times a head's key channels wide; one layer is a matrix
    with a norm, a residual or a bias. The defaults are Miras' (arXiv 2504.13173 §6.1); TTT's inner model
    has a ``bias`` too (arXiv 2407.04620 §2.7). The weights a sequence begins with are learned.
    """

    name: ClassVar[str] = "mlp"
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    expand: Expand = Fraction(4)
    activation: Activation = "gelu"
    residual: bool = True
    norm: Literal["none", "layer", "rms"] = "layer"
    bias: bool = False
    heads: Count = 4
    key_dim: Count | None = None
    value_dim: Count | None = None

    def verify(self) -> None:
        """What is added to the input is as wide as it."""
        if self.residual and self.key_dim != self.value_dim:
            raise Invalid(
                "residual-memory",
                "a memory with a residual gives as many channels as it takes, and these are different",
                argument="value_dim",
                help="write `residual = false`, or one `key_dim` and `value_dim`",
            )

    def dims(self, width: int) -> tuple[int, int]:
        """Key and value channels a head."""
        own = share(Fraction(1), width, self.heads, "memory") if not self.key_dim else 0
        return self.key_dim or own, self.value_dim or own or share(
            Fraction(1), width, self.heads, "memory"
        )

    def store(self, width: int, features: int | None = None) -> Store:
        """Its layers."""
        key, value = self.dims(width)
        hidden = (scaled(self.expand, key),) * (self.depth - 1)
        return Store(
            (features or key, *hidden, value),
            activation=self.activation,
            residual=self.residual,
            norm=self.norm,
            bias=self.bias,
            learned=True,
        )

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return "linear memory with a norm" if self.depth == 1 else "MLP memory"


class Slots(Memory):
    """``count`` slots a head, each read at unit length by a code: ``M(x) = Σ_j x_j s_j / ‖s_j‖``.

    A write adds to a slot only what is orthogonal to it (Lattice, arXiv 2504.05646): the gradient
    through the normalisation. The slots a sequence begins with are learned.
    """

    name: ClassVar[str] = "slots"
    count: Annotated[int, Field(ge=1, le=4096)] = 16
    heads: Count = 4
    value_dim: Count | None = None

    def dims(self, width: int) -> tuple[int, int]:
        """Slots and value channels a head."""
        return self.count, self.value_dim or share(Fraction(1), width, self.heads, "memory")

    def store(self, width: int, features: int | None = None) -> Store:
        """A column a slot."""
        return Store(self.dims(width), form="slots", learned=True)

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return "slot memory"


class Polynomial(Memory):
    """A memory of all monomials of a key up to a ``degree`` (ATLAS, arXiv 2505.23735 §3.1).

    ``φ(q) · φ(k) = Σ_i a_i² (q · k)^i`` with ``a_i`` learned, which start at ``1/√(i!)``, the Taylor
    series of the exponential kernel, and are divided by their norm, so that a key of unit length keeps
    it. (The paper leaves open on which side its ``1/i!`` stands; here it is the kernel's.)
    """

    name: ClassVar[str] = "polynomial"
    memory: Memory
    degree: Annotated[int, Field(ge=1, le=4)] = 2

    def verify(self) -> None:
        """Around what has keys of its own width."""
        inner = self.memory
        if not isinstance(inner, Matrix | MLP):
            raise Invalid(
                "polynomial-memory",
                f"`polynomial` makes features of keys, and `{inner.name}` has none",
                argument="memory",
                help="write `polynomial(matrix(heads = 4))`, or an `mlp` there",
            )
        if isinstance(inner, MLP) and inner.residual:
            raise Invalid(
                "residual-memory",
                "the features of a key are more than its channels, so the memory has no residual",
                argument="memory",
                help="write `polynomial(mlp(residual = false))`",
            )

    def features(self, channels: int) -> int:
        """Monomials of so many channels, of every degree."""
        return comb(channels + self.degree, self.degree)

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        inner = "" if not isinstance(self.memory, Matrix | MLP) else self.memory.words
        return f"{inner} of polynomial features"


Stored = Matrix | MLP | Slots
"""Memories with queries, keys and heads."""


def stored(memory: Memory) -> Stored | None:
    """The memory inside a feature map, or itself; ``None`` for a vector."""
    inner = memory.memory if isinstance(memory, Polynomial) else memory
    return inner if isinstance(inner, Matrix | MLP | Slots) else None
