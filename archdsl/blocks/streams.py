"""``hyper`` and ``mhc``: regions in which the residual stream is several streams side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Builder, Children, Layer, Region, Scaled, Value, features
from archdsl.blocks.op import Type
from archdsl.blocks.ops.streams import (
    Collapse,
    Connect,
    Disperse,
    Expand,
    HyperConnect,
    ManifoldConnect,
)
from archdsl.blocks.ops.structure import Layers
from archdsl.blocks.structure import same_width

ONCE = Layers(copies=(0,), order=(0,))
"""A region that runs once, in place."""


@dataclass(frozen=True)
class Joined:
    """The residual policy of a region: every branch reads the streams and is written to them.

    Args:
        connect: the operation that says how.
    """

    connect: Connect

    def join(self, build: Builder, stream: Value, branch: Region, scaled: Scaled) -> Value:
        """One branch between its reading and its writing."""
        read, carried, write = build.add_many(self.connect, stream, name="connect")
        output = scaled(build, build.add(ONCE, read, name="branch", regions=[branch]))
        return build.add(Disperse(), output, carried, write, name="join")


class _Region(Layer):
    """Shared by both regions; :meth:`connect` says how a branch stands on the streams."""

    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "layers"
    keeps: ClassVar[bool] = True
    streams: Annotated[int, Field(ge=2, le=64)]
    reduce: Literal["mean", "sum"]

    def connect(self, width: int) -> Connect:
        """The operation in front of every branch."""
        raise AssertionError(f"{type(self).__name__} does not say how it is connected")

    def infer(self, stream: Type) -> Type:
        """Several streams of any features."""
        features(stream, self.name)
        return replace(stream, streams=self.streams)

    def combine(self, stream: Type, outputs: Sequence[Type]) -> Type:
        """One stream again."""
        return same_width(self.name, stream, outputs[0])

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """The streams, the layers on them, one stream."""
        policy = Joined(self.connect(stream.type.width))
        region = children.lower(0, self.infer(stream.type), policy)
        x = build.add(Expand(streams=self.streams), stream, name="expand")
        x = build.add(ONCE, x, name="layers", regions=[region])
        return build.add(Collapse(reduce=self.reduce), x, name="collapse")


class Hyper(_Region):
    """Hyper-connections (arXiv 2409.19606): every ``residual`` inside joins ``streams`` streams.

    Learned weights say what a branch reads of them, how they mix, and where it is written; ``dynamic``
    ones also depend on the streams, bounded by ``tanh``. A fresh model computes what it would without
    the region. The streams end as their ``mean``; the paper has the ``sum``, which makes what follows
    ``streams`` times as large.
    """

    name: ClassVar[str] = "hyper"
    streams: Annotated[int, Field(ge=2, le=64)] = 4
    dynamic: bool = True
    tanh: bool = True
    reduce: Literal["mean", "sum"] = "mean"

    def connect(self, width: int) -> Connect:
        """Free weights."""
        return HyperConnect(streams=self.streams, width=width, dynamic=self.dynamic, tanh=self.tanh)


class ManifoldHyper(_Region):
    """Manifold-constrained hyper-connections (arXiv 2512.24880): streams mix by doubly stochastic weights.

    What is read is weighed by shares, what is written by twice a share, and ``rounds`` of
    Sinkhorn-Knopp keep the mixing a mean. A fresh model computes what it would without the region.
    """

    name: ClassVar[str] = "mhc"
    streams: Annotated[int, Field(ge=2, le=64)] = 4
    dynamic: bool = True
    rounds: Annotated[int, Field(ge=1, le=100)] = 20
    reduce: Literal["mean", "sum"] = "mean"

    def connect(self, width: int) -> Connect:
        """Weights on the manifold."""
        return ManifoldConnect(
            streams=self.streams, width=width, dynamic=self.dynamic, rounds=self.rounds
        )
