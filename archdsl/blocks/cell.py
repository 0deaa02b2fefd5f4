"""``cell``: a recurrent cell written as its equations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SkipValidation

from archdsl.blocks.base import (
    Builder,
    Children,
    Count,
    Invalid,
    Layer,
    Value,
    Word,
    divides,
    features,
    nothing_to_decay,
)
from archdsl.blocks.cell_analysis import Analysis, analysed
from archdsl.blocks.cell_rewriting import calls, renamed
from archdsl.blocks.conv import Kernel
from archdsl.blocks.equations import (
    DRAWS,
    INPUTS,
    Apply,
    Assignment,
    Expression,
    Name,
    text,
    walk,
)
from archdsl.blocks.op import Type
from archdsl.blocks.ops.cell import CellRecurrence
from archdsl.blocks.ops.dense import Convolution


class Cell(Layer):
    """The equations in its body, once a token.

    ``x`` is the input, names in ``state`` are the previous step's values until they are assigned,
    ``output`` is what the layer gives. With ``conv`` taps ``x_conv`` is SiLU of the input's short
    convolution, with a bias; without, it is ``x``. ``linear(a, b)`` owns its weights; ``width`` is the
    width of everything it gives, by default the stream's; weights on states have a block a head. With
    ``copies`` every state has so many numbers a channel, and ``sum`` brings them together.
    """

    name: ClassVar[str] = "cell"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "equations"
    routes: ClassVar[frozenset[str]] = frozenset({"mom"})
    remembers: ClassVar[bool] = True
    state: Annotated[tuple[Word, ...], Field(min_length=1)]
    output: Word
    width: Count | None = None
    heads: Count = 1
    copies: Count = 1
    conv: Kernel | None = None
    equations: Annotated[tuple[Assignment, ...], SkipValidation] = ()

    def infer(self, stream: Type) -> Type:
        """Features of the cell's width; ``x`` itself may only stand where the widths agree."""
        width_in = features(stream, self.name)
        if stream.routed is not None and stream.routed.idle == "decay":
            raise nothing_to_decay(self.name)
        width = self.width or width_in
        divides(self.heads, width, "heads", "the cell's width")
        _check_functions(self.analysis)
        self._check_weights(width_in)
        _check_axes(self.analysis, self.copies)
        self._check_convolution()
        wrong = self.closed if width != width_in else ()
        bare = next((e for e in wrong if _bare_input(e.value)), None)
        if bare is not None:
            raise Invalid(
                "cell-widths",
                f"`{bare.target} = {text(bare.value)}` uses `x` as it is, {width_in} wide, in a cell"
                f" {width} wide",
                argument="width",
                help="write `linear(x)` there",
            )
        return replace(stream, width=width)

    def otherwise(self, stream: Type) -> Type | None:
        """Features of the cell's width."""
        plain = stream.kind == "features" and stream.routed is None and stream.streams == 1
        return replace(stream, width=self.width or stream.width) if plain else None

    def _check_convolution(self) -> None:
        """A convolution is made to be read."""
        if self.conv and not self.convolves:
            raise Invalid(
                "unread-convolution",
                "`conv` makes `x_conv` of the input, and no equation reads it",
                argument="conv",
                help="write `x_conv` where the convolved input is meant, or leave `conv` out",
            )

    def _check_weights(self, width_in: int) -> None:
        """A weight has one form, and blocks divide what they are given."""
        for product in (p for linear in self.analysis.linears for p in linear.products):
            forms = [name for name in ("diagonal", "blocks", "rank") if product.setting(name)]
            forms += ["copies"] if forms and product.setting("copies") is True else []
            forms += ["norm"] if product.diagonal and product.setting("norm") is True else []
            if len(forms) > 1:
                raise Invalid(
                    "two-forms",
                    f"a weight of `{product.name}` is asked to be `{forms[0]}` and `{forms[1]}` at once",
                    argument="output",
                    help=f"keep one of {' and '.join(f'`{name}`' for name in forms)}",
                )
            if product.setting("blocks") is True and product.given:
                divides(self.heads, width_in, "heads", "the stream's width")
            if not product.diagonal and self.analysis.timeless(product.argument):
                raise Invalid(
                    "linear-of-number",
                    f"`linear` maps what the token says, and `{text(product.argument)}` is always the same",
                    argument="output",
                    help="multiply by a `parameter()` to learn a scale",
                )

    @cached_property
    def analysis(self) -> Analysis:
        """What the equations are."""
        return analysed(self.state, self.output, self.closed)

    @cached_property
    def closed(self) -> tuple[Assignment, ...]:
        """The equations, with the input itself in place of a convolution that there is not."""
        if self.conv or not _reads_convolution(self.equations):
            return self.equations
        return tuple(
            Assignment(e.target, renamed(e.value, {INPUTS[1]: INPUTS[0]})) for e in self.equations
        )

    @cached_property
    def convolves(self) -> bool:
        """Whether the equations read a convolution."""
        return _reads_convolution(self.closed)

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One operation, behind a convolution where it reads one."""
        width = stream.type.width
        op = CellRecurrence(
            width_in=width,
            width=self.width or width,
            states=self.state,
            output=self.output,
            equations=self.closed,
            heads=self.heads,
            copies=self.copies,
        )
        if not self.conv:
            return build.add(op, stream)
        taps = Convolution(width=width, kernel=self.conv, activation="silu", bias=True)
        return build.add(op, stream, build.add(taps, stream, name="conv"), name="core")


@lru_cache(maxsize=256)
def _check_functions(analysis: Analysis) -> None:
    """Draws stand in the start of a parameter, and a start is made of numbers and draws."""
    for call in (call for value in analysis.assignments.values() for call in outside(value)):
        if call.function in DRAWS:
            raise Invalid(
                "draw-outside-parameter",
                f"`{text(call)}` is drawn once, so it can only say where a `parameter` starts",
                argument="output",
                help=f"write `parameter({text(call)})`",
            )
    for learned in analysis.vectors:
        if not analysis.timeless(learned.start):
            raise Invalid(
                "start-from-input",
                f"`{text(learned.start)}` says where a parameter starts, and it depends on the input",
                argument="output",
                help="use numbers, draws such as `uniform(0, 1)`, and parameters",
            )


@lru_cache(maxsize=256)
def _check_axes(analysis: Analysis, copies: int) -> None:
    """Numbers a copy are summed before a ``linear``, a ``norm`` or the output takes them."""
    given: Expression = Name(analysis.final[analysis.output])
    taken = [(given, f"the output `{analysis.output}`")]
    for value in analysis.assignments.values():
        for call in calls(value):
            if call.function in ("linear", "norm") and not _diagonal(call):
                taken += [(argument, f"`{call.function}`") for argument in call.arguments]
            if copies == 1 and (call.function == "sum" or _copied(call)):
                raise Invalid(
                    "no-copies",
                    f"`{text(call)}` is about copies of a channel, and this cell has none",
                    argument="output",
                    help="write `cell(copies = 16, …)`",
                )
    wide = next((what for part, what in taken if "copy" in analysis.axes(part)), None)
    if copies > 1 and wide is not None:
        raise Invalid(
            "copies-not-summed",
            f"{wide} takes one number a channel, and here every channel has {copies}",
            argument="copies",
            help="write `sum(…)` around it",
        )


def _reads_convolution(equations: tuple[Assignment, ...]) -> bool:
    near = INPUTS[1]
    parts = (part for equation in equations for part in walk(equation.value))
    return any(isinstance(part, Name) and part.name == near for part in parts)


def _bare_input(expression: Expression) -> bool:
    """Whether ``x`` stands anywhere but alone as an argument of a full ``linear``."""
    if _is_input(expression):
        return True
    if not isinstance(expression, Apply):
        return False
    full = expression.function == "linear" and not dict(expression.options).get("diagonal")
    return any(_bare_input(a) for a in expression.arguments if not (full and _is_input(a)))


def _is_input(expression: Expression) -> bool:
    return isinstance(expression, Name) and expression.name in INPUTS


def outside(expression: Expression) -> Iterator[Apply]:
    """The function applications of an expression, but for those in the start of a parameter."""
    if isinstance(expression, Apply):
        yield expression
        if expression.function != "parameter":
            for argument in expression.arguments:
                yield from outside(argument)


def _diagonal(call: Apply) -> bool:
    return dict(call.options).get("diagonal") is True


def _copied(call: Apply) -> bool:
    return dict(call.options).get("copies") is True
