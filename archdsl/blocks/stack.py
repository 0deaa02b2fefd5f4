"""``stack``: layers of a few kinds, in an order that a short notation gives.

Four notations of the field are read: a ratio (``3:1``), a cycle (``[a, a, b]``), indices of the last
kind (``at = [3, 7]``, from 0), and a string of initials (``"LLLA"``) or of Megatron's symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import (
    Builder,
    Children,
    Copies,
    Count,
    Invalid,
    Ratio,
    Value,
    Word,
)
from archdsl.blocks.structure import Passing, lower_layers

Index = Annotated[int, Field(ge=0, le=9_999)]

MEGATRON: dict[str, tuple[str, ...]] = {
    "*": ("attention", "attn", "full", "softmax"),
    "M": ("mamba", "mamba2", "linear"),
    "G": ("gated_deltanet", "gdn", "linear"),
    "-": ("mlp", "swiglu", "channel", "feed_forward"),
    "E": ("moe", "experts"),
    "+": ("mla",),
}
"""Symbols of Megatron-LM's hybrid layer pattern, and the labels each may mean."""


def even(parts: Sequence[int], depth: int) -> list[int]:
    """Kinds spread as evenly as possible: at each layer the kind furthest behind its share."""
    placed, order, total = [0] * len(parts), [], sum(parts)
    for layer in range(depth):
        behind = [
            part * (2 * layer + 1) - 2 * total * n for part, n in zip(parts, placed, strict=True)
        ]
        kind = max(range(len(parts)), key=lambda i: (behind[i], -i))
        placed[kind] += 1
        order.append(kind)
    return order


class Stack(Passing):
    """``depth`` layers; each child is one kind of layer, and its label is the kind's name.

    With one kind every layer is of it. With several, exactly one of ``ratio``, ``cycle``, ``at`` and
    ``pattern`` orders them; an order shorter than the stack is repeated. ``place`` says where a
    ratio's later kinds stand in each period: ``last``, ``first``, or spread over the whole depth.
    An order must fit the kinds there are, and a body without labels has none to order.
    """

    name: ClassVar[str] = "stack"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "labelled"
    depth: Copies
    ratio: Ratio | None = None
    cycle: Annotated[tuple[Word, ...], Field(min_length=1)] | None = None
    at: tuple[Index, ...] | None = None
    pattern: Annotated[str, Field(min_length=1)] | None = None
    place: Literal["last", "first", "even"] = "last"
    tied: tuple[Word, ...] = ()
    adapter: Count | None = None

    def verify(self) -> None:
        """One notation at most; adapters where something is tied."""
        given = self.orders
        if len(given) > 1:
            raise Invalid(
                "two-orders",
                f"`stack` is ordered twice: by `{given[0]}` and by `{given[1]}`",
                argument=given[1],
                help=f"keep one of {' and '.join(f'`{name}`' for name in given)}",
            )
        if self.adapter is not None and not self.tied:
            raise Invalid(
                "idle-adapter",
                "`adapter` is for layers that share weights, and this stack ties none",
                argument="adapter",
                help="name their labels: `tied = [shared]`",
            )

    @property
    def orders(self) -> list[str]:
        """The arguments given that order layers."""
        return [n for n in ("ratio", "cycle", "at", "pattern") if getattr(self, n) is not None]

    def visits(self, labels: Sequence[str | None]) -> Sequence[tuple[int, ...]]:
        """The children of each layer: the one of its kind, or all of an unlabelled body."""
        for label in self.tied if len(labels) > 1 or any(labels) else ():
            self.labelled(label, [label or "" for label in labels], "tied")
        if not any(labels):
            self.unordered()
            return (tuple(range(len(labels))),) * self.depth
        return [(kind,) for kind in self.order([label or "" for label in labels])]

    def unordered(self) -> None:
        """Complain of an order where no kind of layer has a name."""
        for name in self.orders:
            raise Invalid(
                "unlabelled-order",
                f"`{name}` orders kinds of layer, and nothing in this stack has a label",
                argument=name,
                help=f"label each kind, as in `a: …  b: …`, or leave `{name}` out: "
                "every layer is the whole body",
            )

    def order(self, labels: Sequence[str]) -> list[int]:
        """The kind of each layer, as an index of ``labels``."""
        if len(labels) == 1 and not self.orders:
            return [0] * self.depth
        if self.ratio is not None and self.place == "even":
            return even(self.parts(labels), self.depth)
        if self.at is not None:
            return self.indexed(labels)
        period = self.period(labels)
        return [period[layer % len(period)] for layer in range(self.depth)]

    def period(self, labels: Sequence[str]) -> list[int]:
        """The order that is repeated."""
        if self.ratio is not None:
            kinds = list(enumerate(self.parts(labels)))
            ordered = kinds if self.place == "last" else kinds[::-1]
            return [kind for kind, count in ordered for _ in range(count)]
        if self.cycle is not None:
            return [self.labelled(label, labels) for label in self.cycle]
        if self.pattern is not None:
            return [self.symbol(s, labels) for s in self.pattern if s not in "| "]
        raise Invalid(
            "no-order",
            f"`stack` has {len(labels)} kinds of layer, and nothing says their order",
            help='write `ratio = 3:1`, `cycle = [a, a, b]`, `at = [3, 7]` or `pattern = "LLLA"`',
        )

    def parts(self, labels: Sequence[str]) -> tuple[int, ...]:
        """The ratio's parts, one a kind."""
        parts = self.ratio.parts if self.ratio else ()
        if len(parts) != len(labels):
            kinds = f"{len(labels)} kind{'s' * (len(labels) > 1)}"
            raise Invalid(
                "ratio-parts",
                f"`ratio = {self.ratio}` has {len(parts)} parts, and the stack has {kinds}"
                f" of layer ({', '.join(labels)})",
                argument="ratio",
                help="give the ratio one part a kind, in the order of the body",
            )
        if sum(parts) == 0:
            raise Invalid(
                "ratio-parts", f"`ratio = {self.ratio}` asks for no layer", argument="ratio"
            )
        return parts

    def indexed(self, labels: Sequence[str]) -> list[int]:
        """The last kind at the given layers, the first one elsewhere."""
        if len(labels) != 2:
            raise Invalid(
                "order-kinds",
                f"`at` orders two kinds of layer, and the stack has {len(labels)}",
                argument="at",
                help="use `cycle` or `pattern` for more kinds",
            )
        outside = [layer for layer in self.at or () if layer >= self.depth]
        if outside:
            raise Invalid(
                "layer-outside",
                f"`at` names layer {outside[0]}, and the stack has layers 0 to {self.depth - 1}",
                argument="at",
                help="layers count from 0",
            )
        return [int(layer in (self.at or ())) for layer in range(self.depth)]

    def labelled(self, label: str, labels: Sequence[str], argument: str = "cycle") -> int:
        """The index of a label that an argument names."""
        if label not in labels:
            raise Invalid(
                "unknown-label",
                f"`{argument}` names `{label}`, and the stack has no layer with that label",
                argument=argument,
                help=f"labels here: {', '.join(filter(None, labels)) or 'none'}",
            )
        return list(labels).index(label)

    def symbol(self, symbol: str, labels: Sequence[str]) -> int:
        """The kind a pattern's letter means: an initial that only one label has, or a symbol."""
        initial = [i for i, label in enumerate(labels) if label[:1] == symbol.lower()]
        table = [i for i, label in enumerate(labels) if label in MEGATRON.get(symbol, ())]
        found = initial if len(initial) == 1 else table
        if len(found) != 1:
            what = "could mean several layers" if initial or table else "means no layer"
            raise Invalid(
                "pattern-symbol",
                f"`{symbol}` in the pattern {what} of this stack ({', '.join(labels)})",
                argument="pattern",
                help="use the labels' initials, and labels with different initials",
            )
        return found[0]

    def warnings(self, labels: Sequence[str | None]) -> Sequence[Invalid]:
        """A period that does not fit the depth; a kind that no layer is of."""
        named = [label or "" for label in labels]
        if not any(named) or len(named) < 2:
            return ()
        order = self.order(named)
        return [*self._ragged(named, order), *self._unused(named, order)]

    def _ragged(self, labels: Sequence[str], order: Sequence[int]) -> list[Invalid]:
        argument = next((n for n in ("ratio", "cycle", "pattern") if getattr(self, n)), None)
        if argument is None or self.place == "even":
            return []
        period = len(self.period(labels))
        if self.depth % period == 0:
            return []
        chosen = ", ".join(labels[kind] for kind in order[:24]) + (", …" if self.depth > 24 else "")
        return [
            Invalid(
                "ragged-order",
                f"a period of {period} layers does not divide depth {self.depth}; the layers are {chosen}",
                argument=argument,
                help=f"use a depth that is a multiple of {period}, or `place = even`",
            )
        ]

    def _unused(self, labels: Sequence[str], order: Sequence[int]) -> list[Invalid]:
        return [
            Invalid("unused-kind", f"no layer of the stack is of the kind `{label}`", argument=None)
            for kind, label in enumerate(labels)
            if kind not in order and self.at is None and self.ratio is None
        ]

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """A sequence of layers."""
        return lower_layers(build, stream, children, self.tied, self.adapter)
