"""``embed``: tokens to features, the first layer of every model."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Builder, Children, Count, Invalid, Layer, Real, Value
from archdsl.blocks.op import Type
from archdsl.blocks.ops.dense import Embedding


class Embed(Layer):
    """A table of learned rows.

    ``vocab`` is the task's unless given; ``position`` adds a learned or sinusoidal signal
    (arXiv 1706.03762 §3.5); learned positions end at ``positions`` tokens. ``scale = root`` multiplies
    rows by the root of the width (arXiv 1706.03762 §3.4), which a tied head does not see. Rows start
    normal with ``variance`` over the width.
    """

    name: ClassVar[str] = "embed"
    dim: Count
    vocab: Count | None = None
    position: Literal["none", "learned", "sinusoidal"] = "none"
    positions: Count = 4096
    scale: Literal["one", "root"] = "one"
    variance: Annotated[Real, Field(gt=0, le=100)] = Fraction(1)

    def infer(self, stream: Type) -> Type:
        """Tokens to features of width ``dim``."""
        if stream.kind != "tokens":
            raise Invalid("second-embed", "a model has one `embed`, and this is the second")
        if not (self.vocab or stream.width):
            raise Invalid(
                "unknown-vocabulary",
                "`embed` has no vocabulary: the file has no task to take it from",
                help="write `embed(dim = …, vocab = 256)`, or add a task",
            )
        return Type("features", self.dim, embedding=(self.symbols(stream), self.dim))

    def otherwise(self, stream: Type) -> Type | None:
        """Features, whatever the vocabulary; behind a second one what there was."""
        if stream.kind != "tokens":
            return stream if stream.kind == "features" else None
        return Type("features", self.dim, embedding=(self.vocab or stream.width, self.dim))

    def symbols(self, stream: Type) -> int:
        """The vocabulary; one that is too small for the task is a mistake."""
        if self.vocab and self.vocab < stream.width:
            raise Invalid(
                "vocabulary-too-small",
                f"`vocab = {self.vocab}` is smaller than the task's {stream.width} symbols",
                argument="vocab",
                help=f"use {stream.width} or more, or leave `vocab` out",
            )
        return self.vocab or stream.width

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One table."""
        table = Embedding(
            symbols=self.symbols(stream.type),
            width=self.dim,
            position=self.position,
            positions=self.positions if self.position == "learned" else 0,
            scale=1.0 if self.scale == "one" else self.dim**0.5,
            init="fan_in" if self.variance == 1 else float(self.variance / self.dim) ** 0.5,
        )
        return build.add(table, stream)
