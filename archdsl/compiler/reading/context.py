"""Where an expression stands while names are resolved: its frame, its path, and what is expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from archdsl.compiler.reading.names import Scope
from archdsl.compiler.terms.expect import Expect
from archdsl.compiler.terms.term import Term
from archdsl.diagnostics import Span
from archdsl.grammar import ast

Path = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Frame:
    """One file, or one use of a definition: what names mean, and whose draws its choices are.

    Args:
        scope: the file.
        key: tells the choices of this use apart from those of another.
        parameters: what the definition's parameters were given.
        each: whether it stands inside ``each(…)``.
        anchor: the place in the user's file, for what is written in the standard library.
        word: the name that stands there, for messages about what it is made of.
        trail: the uses of the user's definitions that led here, innermost first.
        locals: names that mean themselves: what an equation may read.
    """

    scope: Scope
    key: int
    parameters: Mapping[str, Closure] = field(default_factory=dict)
    each: bool = False
    anchor: Span | None = None
    word: str = ""
    trail: tuple[Span, ...] = ()
    locals: frozenset[str] = frozenset()

    def spot(self, span: Span) -> Span:
        """Where a message about something written here points."""
        return self.anchor or span


@dataclass(eq=False)
class Closure:
    """An expression and where it is written: an argument, a default, or a ``let``.

    It is elaborated where it ends up, against what is expected there, and is one term for every
    place that expects the same. It is ``opaque`` where it is called: no value of its own to show.
    Without an expression it is anything: a parameter of a definition that nothing uses.
    """

    name: str
    expression: ast.Expression | None
    frame: Frame
    path: Path
    what: str = ""
    default: bool = False
    opaque: bool = False
    busy: bool = False
    terms: dict[tuple[Expect, bool], Term] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Call:
    """Arguments and a body given to whatever a name turns out to mean."""

    arguments: tuple[ast.Argument, ...]
    body: ast.Body | None
    frame: Frame
    path: Path
    span: Span


@dataclass(frozen=True)
class At:
    """The place an expression stands in.

    Args:
        frame: what names mean there.
        path: the readable path of a choice written there.
        expect: what may stand there.
        what: the place in words, for messages: ```heads` of `gla```.
        calls: arguments waiting for the component that is found, innermost call first.
        each: the key of the ``each`` at whose head this stands: names here are drawn anew.
        fixed: whether choices are out of place.
        inside: whether it is a part of a calculation or a list, and so not all of what is named.
        via: the name by which a ``let`` or argument came here, to point at as well.
    """

    frame: Frame
    path: Path
    expect: Expect
    what: str
    calls: tuple[Call, ...] = ()
    each: int | None = None
    fixed: bool = False
    inside: bool = False
    via: Span | None = None

    def plain(self, expect: Expect, what: str | None = None) -> At:
        """The same place for a part of the expression, without its calls."""
        return At(
            self.frame, self.path, expect, what or self.what, (), None, self.fixed, self.inside, self.via
        )  # fmt: skip
