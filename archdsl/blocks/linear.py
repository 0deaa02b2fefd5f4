"""``linear`` and ``activation``: the pieces, for blocks nobody has named."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from archdsl.blocks.base import Activation, Builder, Children, Count, Layer, Value, features
from archdsl.blocks.op import Type
from archdsl.blocks.ops import dense


class Linear(Layer):
    """``W x (+ b)``; ``dim`` is the new width of the stream, by default the old one."""

    name: ClassVar[str] = "linear"
    routes: ClassVar[frozenset[str]] = frozenset({"mom", "moe"})
    dim: Count | None = None
    bias: bool = False

    def infer(self, stream: Type) -> Type:
        """Features of width ``dim``."""
        return replace(stream, width=self.dim or features(stream, self.name))

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One matrix product."""
        width = stream.type.width
        op = dense.Linear(width_in=width, width_out=self.dim or width, bias=self.bias)
        return build.add(op, stream)


class ActivationLayer(Layer):
    """An elementwise function of the stream."""

    name: ClassVar[str] = "activation"
    keeps: ClassVar[bool] = True
    routes: ClassVar[frozenset[str]] = frozenset({"mom", "moe"})
    function: Activation

    def infer(self, stream: Type) -> Type:
        """Any features."""
        features(stream, self.name)
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One elementwise operation."""
        return build.add(dense.Activate(function=self.function), stream)
