"""Layers with every choice made: a tree of components."""

from __future__ import annotations

from dataclasses import dataclass, field

from archdsl.blocks.base import Layer
from archdsl.diagnostics import Span


@dataclass(frozen=True)
class Element:
    """One layer of an architecture.

    Args:
        component: its kind and arguments.
        visits: for a container, what it runs (see ``Layer.visits``); visits that hold the same
            components are the same object.
        span: where it was written.
        origin: the named definition of the standard library it was written as, with its arguments
            in the language's spelling (``gla(heads = 4)``), if it was.
    """

    component: Layer
    visits: tuple[Visit, ...] = ()
    span: Span | None = field(default=None, compare=False, repr=False)
    origin: str | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """What it was written as: ``gla``, else the component's name."""
        return self.origin.partition("(")[0] if self.origin else self.component.name


@dataclass(frozen=True)
class Visit:
    """The sequence of layers one visit runs, and its label (``linear``) if it has one."""

    label: str | None
    elements: tuple[Element, ...]
