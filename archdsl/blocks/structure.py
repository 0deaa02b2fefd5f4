"""Containers: ``residual``, ``repeat``, ``parallel``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar, Literal

from archdsl.blocks.base import (
    Builder,
    Children,
    Copies,
    Invalid,
    Layer,
    Real,
    Region,
    Value,
    features,
)
from archdsl.blocks.op import Type
from archdsl.blocks.ops.structure import Branches, Layers, ResidualSum


def same_width(name: str, stream: Type, output: Type) -> Type:
    """The stream, if the layers inside gave it back as wide as it was."""
    if output.kind != stream.kind or output.width != stream.width:
        raise Invalid(
            "width-changes",
            f"`{name}` needs layers that keep the stream's width, and these make {stream} into {output}",
            help=f"bring it back with `linear(dim = {stream.width})`",
        )
    return stream


def lower_layers(build: Builder, stream: Value, children: Children) -> Value:
    """The visits one after the other, each with weights of its own; equal ones share a region."""
    visits = len(children.labels)
    lowered = [children.lower(i, stream.type, build.policy) for i in range(visits)]
    distinct: list[Region] = []
    copies: list[int] = []
    for region in lowered:
        known = next((i for i, other in enumerate(distinct) if other is region), None)
        copies.append(len(distinct) if known is None else known)
        distinct += [region] if known is None else []
    width = lowered[-1].output.type.width
    layers = Layers(
        copies=tuple(copies),
        order=tuple(range(visits)),
        labels=children.labels,
        width=None if width == stream.type.width else width,
    )
    return build.add(layers, stream, regions=distinct)


class Residual(Layer):
    """``x + scale · f(x)``; where norms stand among the children says the placement.

    Inside a region that carries several streams, the region's policy joins the branch instead.
    """

    name: ClassVar[str] = "residual"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "layers"
    scale: Real | Literal["learned"] = Fraction(1)

    def infer(self, stream: Type) -> Type:
        """Any features."""
        features(stream, self.name)
        return stream

    def combine(self, stream: Type, outputs: Sequence[Type]) -> Type:
        """The branch must come back as wide as it left."""
        return same_width(self.name, stream, outputs[0])

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One branch, added or joined."""
        if build.policy is not None:
            branch = children.lower(0, replace(stream.type, streams=1), None)
            return build.policy.join(build, stream, branch, self.name)
        branch = children.lower(0, stream.type, None)
        total = ResidualSum(width=stream.type.width, scale=self.scale)
        return build.add(total, stream, regions=[branch])


class Repeat(Layer):
    """The body ``times`` over, each copy with weights of its own."""

    name: ClassVar[str] = "repeat"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "layers"
    times: Copies

    def visits(self, labels: Sequence[str | None]) -> Sequence[tuple[int, ...]]:
        """The whole body each time."""
        return (tuple(range(len(labels))),) * self.times

    def combine(self, stream: Type, outputs: Sequence[Type]) -> Type:
        """A copy hands the next one what it was given."""
        return same_width(self.name, stream, outputs[0]) if self.times > 1 else outputs[0]

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """A sequence of copies."""
        return lower_layers(build, stream, children)


class Parallel(Layer):
    """Every child on the same input, side by side; ``mix`` says how they come together."""

    name: ClassVar[str] = "parallel"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "layers"
    mix: Literal["sum", "mean", "product", "concat", "gate"] = "sum"

    def infer(self, stream: Type) -> Type:
        """Any features."""
        features(stream, self.name)
        return stream

    def visits(self, labels: Sequence[str | None]) -> Sequence[tuple[int, ...]]:
        """Each child alone."""
        return tuple((i,) for i in range(len(labels)))

    def combine(self, stream: Type, outputs: Sequence[Type]) -> Type:
        """Equal widths, or for ``concat`` their sum."""
        if any(output.kind != "features" for output in outputs):
            raise Invalid("behind-head", "`parallel` needs children that give features")
        widths = [output.width for output in outputs]
        if self.mix == "concat":
            return replace(stream, width=sum(widths))
        if len(set(widths)) > 1:
            found = ", ".join(map(str, widths))
            raise Invalid(
                "widths-differ",
                f"`parallel(mix = {self.mix})` needs children of one width, and these give {found}",
                argument="mix",
                help="use `mix = concat`, or bring them to one width with `linear(dim = …)`",
            )
        return replace(stream, width=widths[0])

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One operation over all branches."""
        count = len(children.labels)
        regions = [children.lower(i, stream.type, None) for i in range(count)]
        width = self.combine(stream.type, [region.output.type for region in regions]).width
        return build.add(
            Branches(mix=self.mix, branches=count, width=width), stream, regions=regions
        )
