"""Heads: features to logits, for every position or for the sequence."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Builder, Children, Count, Invalid, Layer, Real, Value, features
from archdsl.blocks.op import Type
from archdsl.blocks.ops.dense import Head, Pool


class LMHead(Layer):
    """Logits over the vocabulary at every position; ``tied`` uses the table of ``embed``.

    With a ``cap`` they are ``cap · tanh(logits / cap)``: 30 in xLSTM 7B (arXiv 2503.13427 §3.2) and in
    Gemma 2 (arXiv 2408.00118 §2).
    """

    name: ClassVar[str] = "lm_head"
    tied: bool = False
    bias: bool = False
    cap: Annotated[Real, Field(gt=0)] | None = None

    def infer(self, stream: Type) -> Type:
        """Features to logits."""
        width = features(stream, self.name)
        symbols, table_width = self.table(stream)
        if self.tied and width != table_width:
            raise Invalid(
                "tied-widths",
                f"a tied head needs a stream as wide as `embed`, and here it is {width}, not {table_width}",
                argument="tied",
                help="write `tied = false`, or bring the stream back with `linear(dim = …)`",
            )
        return Type("logits", symbols)

    def table(self, stream: Type) -> tuple[int, int]:
        """Symbols and width of the embedding the stream began in."""
        if stream.embedding is None:
            raise Invalid("no-features", f"`{self.name}` stands before `embed`")
        return stream.embedding

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One matrix product."""
        symbols, _ = self.table(stream.type)
        head = Head(
            width=stream.type.width,
            symbols=symbols,
            tied=self.tied,
            bias=self.bias,
            cap=None if self.cap is None else float(self.cap),
        )
        return build.add(head, stream)


class Classifier(Layer):
    """Logits over ``classes`` for the whole sequence, from its last position or its mean."""

    name: ClassVar[str] = "classifier"
    classes: Count
    pool: Literal["last", "mean"] = "last"
    bias: bool = True

    def infer(self, stream: Type) -> Type:
        """Features to logits over the classes."""
        features(stream, self.name)
        return Type("logits", self.classes)

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """Pool, then one matrix product."""
        pooled = build.add(Pool(form=self.pool), stream, name="pool")
        head = Head(width=stream.type.width, symbols=self.classes, bias=self.bias, pooled=True)
        return build.add(head, pooled, name="head")
