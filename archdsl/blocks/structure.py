"""Containers: ``residual``, ``repeat``, ``parallel``."""

from __future__ import annotations

from collections import Counter
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
from archdsl.blocks.op import Op, Type
from archdsl.blocks.ops.adapted import AdaptedLinear
from archdsl.blocks.ops.dense import Activate, HeadScale, Linear
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


def lower_layers(
    build: Builder,
    stream: Value,
    children: Children,
    tied: Sequence[str] = (),
    adapter: int | None = None,
) -> Value:
    """The visits one after the other; equal ones share a region.

    Each has weights of its own, but for those with a label in ``tied``, which run the first one's:
    with ``adapter``, and low-rank weights of their own of that rank beside them.
    """
    labels = children.labels
    first = [labels.index(label) if label in tied else i for i, label in enumerate(labels)]
    counts = Counter(first)
    runs = sorted(counts)
    lowered = {i: children.lower(i, stream.type, build.policy) for i in runs}
    if adapter is not None:
        several = {i: n for i, n in counts.items() if n > 1}
        lowered |= {i: adapted(build, lowered[i], n, adapter) for i, n in several.items()}
    distinct = list({id(region): region for region in lowered.values()}.values())
    places = {id(region): place for place, region in enumerate(distinct)}
    width = lowered[first[-1]].output.type.width
    layers = Layers(
        copies=tuple(places[id(lowered[i])] for i in runs),
        order=tuple(map({run: place for place, run in enumerate(runs)}.__getitem__, first)),
        labels=labels,
        width=None if width == stream.type.width else width,
        adapted=adapter is not None and bool(several),
    )
    return build.add(layers, stream, regions=distinct)


def adapted(build: Builder, region: Region, runs: int, rank: int) -> Region:
    """A region whose projections have low-rank weights for each of its runs (arXiv 2410.20672)."""

    def change(op: Op) -> Op:
        if not isinstance(op, Linear):
            return op
        return AdaptedLinear(linear=op, adapters=runs, rank=rank)

    return build.changed(region, change)


class Residual(Layer):
    """``x + scale · f(x)``; where norms stand among the children says the placement.

    ``{ rms_norm f }`` is pre-norm, ``{ f } rms_norm`` post-norm, ``{ rms_norm f rms_norm }`` sandwich
    norm. A learned scale has a number a channel, all of which begin at ``start`` (LayerScale, arXiv
    2103.17239; ReZero, arXiv 2003.04887, with ``start = 0``). Inside a region that carries several
    streams, the region's policy joins the branch instead.
    """

    name: ClassVar[str] = "residual"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "layers"
    keeps: ClassVar[bool] = True
    scale: Real | Literal["learned"] = Fraction(1)
    start: Real = Fraction(1)

    def infer(self, stream: Type) -> Type:
        """Any features."""
        features(stream, self.name, streams=True)
        return replace(stream, streams=1)

    def combine(self, stream: Type, outputs: Sequence[Type]) -> Type:
        """The branch must come back as wide as it left."""
        same_width(self.name, replace(stream, streams=1), outputs[0])
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One branch, added or joined."""
        if build.policy is not None:
            branch = children.lower(0, replace(stream.type, streams=1), None)
            return build.policy.join(build, stream, branch, self.scaled)
        branch = children.lower(0, stream.type, None)
        total = ResidualSum(width=stream.type.width, scale=self.scale, start=float(self.start))
        return build.add(total, stream, regions=[branch])

    def scaled(self, build: Builder, branch: Value) -> Value:
        """A branch's output times the scale, for a policy that joins it."""
        if self.scale == 1:
            return branch
        if self.scale == "learned":
            width = branch.type.width
            learned = HeadScale(width=width, heads=width, start=float(self.start))
            return build.add(learned, branch, name="scale")
        return build.add(Activate(function="none", scale=self.scale), branch, name="scale")


class Passing(Layer):
    """A container of which every run hands the next one what it was given."""

    keeps: ClassVar[bool] = True

    def infer(self, stream: Type) -> Type:
        """Any features, on any number of streams."""
        features(stream, self.name, streams=True)
        return stream

    def combine(self, stream: Type, outputs: Sequence[Type]) -> Type:
        """The stream, from each of them as wide as it was."""
        for output in outputs:
            same_width(self.name, stream, output)
        return stream


class Repeat(Layer):
    """The body ``times`` over, each copy with weights of its own."""

    name: ClassVar[str] = "repeat"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "layers"
    routes: ClassVar[frozenset[str]] = frozenset({"mom"})
    times: Copies

    def visits(self, labels: Sequence[str | None]) -> Sequence[tuple[int, ...]]:
        """The whole body each time."""
        return (tuple(range(len(labels))),) * self.times

    def combine(self, stream: Type, outputs: Sequence[Type]) -> Type:
        """A copy hands the next one what it was given."""
        if self.times > 1:
            same_width(self.name, stream, outputs[0])
        return outputs[0]

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
