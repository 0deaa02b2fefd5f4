"""``conv``: a depthwise convolution along time."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from archdsl.blocks.base import (
    Activation,
    Builder,
    Children,
    Invalid,
    Layer,
    Value,
    features,
    not_routable,
)
from archdsl.blocks.op import Type
from archdsl.blocks.ops.dense import Convolution

Kernel = Annotated[int, Field(ge=1, le=4096)]


class Conv(Layer):
    """A filter of ``kernel`` taps a channel, ``dilation`` apart.

    Causal unless told otherwise; a centred one needs an odd kernel.
    """

    name: ClassVar[str] = "conv"
    keeps: ClassVar[bool] = True
    routes: ClassVar[frozenset[str]] = frozenset({"mom"})
    kernel: Kernel
    dilation: Kernel = 1
    activation: Activation = "none"
    causal: bool = True
    bias: bool = False

    def verify(self) -> None:
        """A centred filter has a middle."""
        if not self.causal and self.kernel % 2 == 0:
            raise Invalid(
                "even-centred-kernel",
                f"a convolution that is not causal needs an odd kernel, and {self.kernel} is even",
                argument="kernel",
                help=f"use {self.kernel - 1} or {self.kernel + 1}",
            )

    def infer(self, stream: Type) -> Type:
        """Any features."""
        features(stream, self.name)
        if stream.routed is not None and not self.causal:
            raise not_routable(self.name, stream.routed.within)
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One convolution."""
        op = Convolution(
            width=stream.type.width,
            kernel=self.kernel,
            dilation=self.dilation,
            activation=self.activation,
            bias=self.bias,
            causal_=self.causal,
        )
        return build.add(op, stream)
