"""``loop``: recurrent depth, layers that run over and over with the same weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import (
    Builder,
    Children,
    Component,
    Copies,
    Count,
    Invalid,
    Kind,
    Real,
    Region,
    Rule,
    Value,
)
from archdsl.blocks.op import Type
from archdsl.blocks.ops import loop as ops
from archdsl.blocks.structure import Passing, adapted
from archdsl.blocks.times import Curve, Times

Index = Annotated[int, Field(ge=0, le=9_999)]
Share = Annotated[Real, Field(gt=0, lt=1)]


class Halting(Component):
    """When a position stops iterating; the base of all such rules."""

    kind: ClassVar[Kind] = "halting rule"


class Act(Halting):
    """Adaptive computation time (arXiv 1603.08983): a probability to halt before every iteration.

    A position halts where the sum of its probabilities passes ``1 - epsilon``. The output is the
    ``mean`` of its states by probability, as the paper has it, or each state mixed into those before
    (``lerp``), as the Universal Transformer's code has it. ``cost`` weighs the mean number of updates
    and remainder in the loss. Every position is computed at every iteration.
    """

    name: ClassVar[str] = "act"
    combine: Literal["lerp", "mean"] = "lerp"
    epsilon: Share = Fraction(1, 100)
    cost: Annotated[Real, Field(ge=0, le=1000)] = Fraction(1, 100)


class Loop(Passing):
    """The body ``times`` over, with one set of weights and with states for each run.

    ``times`` is a number, what training draws (``uniform(1, 8)``, ``poisson(32)``), or a list: how
    often each child runs before the next one (arXiv 2505.01855). ``chain = [0, 1, 1, 2, 0]`` is any
    order of the children. A trained model runs any number of iterations.

    ``inject`` joins the loop's input to the state before every iteration (arXiv 2502.05171); ``init``
    is the state before the first. ``backprop`` cuts the gradient to so many last iterations. ``adapter``
    is the rank of what every projection inside has for each run alone (arXiv 2410.20672). ``signal``
    adds sines of position and iteration (arXiv 1807.03819). Over the first ``curriculum`` training
    steps the depth grows from one iteration (arXiv 2511.07384).
    """

    name: ClassVar[str] = "loop"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "layers"
    times: Copies | Annotated[tuple[Copies, ...], Field(min_length=1)] | Times
    inject: ops.Inject = "none"
    init: ops.Start = "input"
    variance: Annotated[Real, Field(gt=0, le=1000)] = Fraction(2, 5)
    backprop: Copies | None = None
    adapter: Count | None = None
    halt: Halting | None = None
    signal: Literal["none", "sinusoidal"] = "none"
    chain: Annotated[tuple[Index, ...], Field(min_length=1)] | None = None
    curriculum: Annotated[int, Field(ge=0, le=10**9)] = 0
    curve: Curve = "linear"

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """One order, and a way for the gradient."""
        return (_one_order, _reads_its_input, _reaches_the_input, _reaches_the_start)

    def visits(self, labels: Sequence[str | None]) -> Sequence[tuple[int, ...]]:
        """The whole body, or each child that the order names."""
        order = self.order(len(labels))
        return (
            (tuple(range(len(labels))),) if order is None else [(i,) for i in dict.fromkeys(order)]
        )

    def order(self, children: int) -> tuple[int, ...] | None:
        """The children in the order of one iteration; ``None`` where that is the body as it is."""
        if self.chain is not None:
            outside = [index for index in self.chain if index >= children]
            if outside:
                raise Invalid(
                    "layer-outside",
                    f"`chain` names layer {outside[0]}, and the loop has layers 0 to {children - 1}",
                    argument="chain",
                    help="layers count from 0",
                )
            return self.chain
        if not isinstance(self.times, tuple):
            return None
        if len(self.times) != children:
            raise Invalid(
                "times-parts",
                f"`times` has {len(self.times)} numbers, and the loop has {children} layers",
                argument="times",
                help="give one number a layer, or one number for all",
            )
        return tuple(child for child, count in enumerate(self.times) for _ in range(count))

    @property
    def iterations(self) -> int:
        """How often the order runs where nothing is drawn."""
        if isinstance(self.times, tuple):
            return 1
        return self.times if isinstance(self.times, int) else self.times.usual

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One operation over the regions."""
        visits = len(children.labels)
        order = self._order(visits)
        regions: list[Region] = [
            self._adapted(build, children.lower(i, stream.type, build.policy), order.count(i))
            for i in range(visits)
        ]
        distinct: list[Region] = []
        for region in regions:
            distinct += [] if any(region is other for other in distinct) else [region]
        copies = [next(n for n, d in enumerate(distinct) if d is region) for region in regions]
        return build.add(self._op(tuple(copies), order, stream.type), stream, regions=distinct)

    def _order(self, visits: int) -> tuple[int, ...]:
        """The order in numbers of visits, which stand in the order of their first run."""
        named = self.chain
        if named is None and isinstance(self.times, tuple):
            named = self.order(len(self.times))
        if named is None:
            return tuple(range(visits))
        first = list(dict.fromkeys(named))
        return tuple(first.index(child) for child in named)

    def _adapted(self, build: Builder, region: Region, runs: int) -> Region:
        if self.adapter is None:
            return region
        return adapted(build, region, runs * self.iterations, self.adapter)

    def _op(self, copies: tuple[int, ...], order: tuple[int, ...], stream: Type) -> ops.Loop:
        act = self.halt if isinstance(self.halt, Act) else None
        return ops.Loop(
            copies=copies,
            order=order,
            times=self.iterations,
            drawn=self.times if isinstance(self.times, Times) else None,
            inject=self.inject,
            start=self.init,
            variance=self.variance,
            backprop=self.backprop,
            halt="none" if act is None else act.combine,
            epsilon=act.epsilon if act else Fraction(1, 100),
            ponder=act.cost if act else Fraction(1, 100),
            signal=self.signal == "sinusoidal",
            curriculum=self.curriculum,
            curve=self.curve,
            adapted=self.adapter is not None,
            channels=stream.width,
            streams=stream.streams,
        )


def _one_order(loop: Loop) -> Iterator[Invalid]:
    if loop.chain is not None and isinstance(loop.times, tuple):
        yield Invalid(
            "two-orders",
            "`loop` is ordered twice: by `times` and by `chain`",
            argument="chain",
            help="write `chain` with one number of `times`, or the list alone",
        )


def _reads_its_input(loop: Loop) -> Iterator[Invalid]:
    if loop.init != "input" and loop.inject == "none":
        yield Invalid(
            "unread-input",
            f"the loop never reads its input: it starts from `{loop.init}`, and nothing is injected",
            argument="init",
            help="write `inject = add`, `concat` or `gate`, or `init = input`",
        )


def _reaches_the_input(loop: Loop) -> Iterator[Invalid]:
    if loop.backprop is not None and loop.inject == "none":
        yield Invalid(
            "severed-gradient",
            "`backprop` cuts off the layers before the loop, since `inject = none` gives the last"
            " iterations no way to them",
            argument="backprop",
            help="write `inject = add`, `concat` or `gate`, or leave `backprop` out",
        )


def _reaches_the_start(loop: Loop) -> Iterator[Invalid]:
    if loop.init != "learned" or loop.backprop is None:
        return
    drawn = not isinstance(loop.times, int | tuple)
    if drawn or loop.iterations > loop.backprop:
        yield Invalid(
            "severed-gradient",
            "`backprop` cuts off the start that `init = learned` has, which only the first iteration reads",
            argument="backprop",
            help="write `init = noise`, `zeros` or `input`, or leave `backprop` out",
        )
