"""Recurrent depth as an operation: the same weights run over and over on one stream."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar, Literal

from archdsl.blocks.op import Shape, Work
from archdsl.blocks.ops.dense import Initialisation
from archdsl.blocks.ops.structure import Layers
from archdsl.blocks.times import Curve, Times

Inject = Literal["none", "add", "concat", "gate"]
Start = Literal["input", "zeros", "noise", "learned"]
Combine = Literal["none", "lerp", "mean"]

NN = "archdsl.blocks.nn."


class Loop(Layers):
    """The runs of ``order``, ``times`` over: ``s ← layers(join(s, e) + signal)``, ``e`` the input.

    ``join`` is one of ``s``; ``s + e``; ``W [s; e]``; ``g s + (1 - g) e`` with ``g = σ(W [s; e] + b)``.
    ``s`` starts as ``e``, zeros, noise of ``variance`` cut at three deviations, or a learned vector.

    Args:
        times: iterations in evaluation and decoding, and in training where nothing is drawn.
        drawn: how training draws its own.
        inject: how the input joins the state before every iteration.
        start: the state before the first one.
        variance: of the noise.
        backprop: so many last iterations carry a gradient; all where ``None``.
        halt: adaptive computation time a position (arXiv 1603.08983), with the paper's weighted mean
            of states or the interpolation of arXiv 1807.03819's code; a position halts where its
            summed probability exceeds ``1 - epsilon``.
        ponder: weight of the mean number of updates and remainder as an auxiliary loss.
        signal: whether sines of the position and of the iteration are added before every iteration.
        init: how ``mix`` starts.
        curriculum: training steps over which the depth grows, along ``curve``.
        channels: of the stream; ``streams`` of them side by side.
    """

    module: ClassVar[str] = NN + "loop:Loop"
    times: int
    drawn: Times | None = None
    inject: Inject = "none"
    start: Start = "input"
    variance: Fraction = Fraction(2, 5)
    backprop: int | None = None
    halt: Combine = "none"
    epsilon: Fraction = Fraction(1, 100)
    ponder: Fraction = Fraction(1, 100)
    signal: bool = False
    init: Initialisation = "fan_in"
    curriculum: int = 0
    curve: Curve = "linear"
    channels: int
    streams: int = 1

    @property
    def plain(self) -> bool:
        """Whether it is a sequence of layers with weights of their own and nothing more."""
        return super().plain and self.times == 1 and not self.ties

    @property
    def iterates(self) -> bool:
        """Whether its order is run over and over, and is not only an order."""
        return self.times > 1 or self.drawn is not None

    @property
    def ties(self) -> str:
        """What it does beside running its layers; empty where that is all."""
        free = type(self)(copies=(), order=(), times=1, channels=self.channels)
        unlike = {"copies", "order", "labels", "width", "times", "channels", "streams"}
        given = [n for n in type(self).model_fields if n not in unlike]
        return ", ".join(
            f"{n}={getattr(self, n)!r}" for n in given if getattr(self, n) != getattr(free, n)
        )

    def runs(self, regions: int) -> tuple[int, ...]:
        """The order, as often as it runs where nothing is drawn."""
        return self.order * self.times

    @property
    def trained(self) -> Loop:
        """With the iterations that carry a gradient."""
        return self.model_copy(update={"times": min(self.times, self.backprop or self.times)})

    def parameters(self) -> Mapping[str, Shape]:
        """``mix [D, 2D]`` and ``mix_bias [D]``, ``initial [D]``, ``halting [D]`` and its bias."""
        size = self.channels
        found: dict[str, Shape] = {}
        if self.inject in ("concat", "gate"):
            found["mix"] = (size, 2 * size)
        if self.inject == "gate":
            found["mix_bias"] = (size,)
        if self.start == "learned":
            found["initial"] = (size,)
        if self.halt != "none":
            found |= {"halting": (size,), "halting_bias": (1,)}
        return found

    def flops(self, work: Work) -> int:
        """The product that joins the input, an iteration."""
        if self.inject not in ("concat", "gate"):
            return 0
        return 4 * work.tokens * self.streams * self.channels**2 * self.times
