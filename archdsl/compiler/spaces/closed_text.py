"""An architecture as a closed ``.arch`` file: every choice made, definitions written out.

The file parses, checks, has a space of one architecture, and that one has the same hash. A layer that
was written as a definition of the standard library stays that call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from archdsl.blocks import registry
from archdsl.blocks.base import Component, Layer
from archdsl.blocks.equations import text as equation_text
from archdsl.compiler.reading.names import standard_names
from archdsl.compiler.terms.spelling import argument_texts, call_text
from archdsl.compiler.terms.term import Choice, Copies, LayerTerm, Run, Series, Site, Term, repeats

if TYPE_CHECKING:
    from archdsl.compiler.spaces.arch import Arch
    from archdsl.compiler.terms.elements import Element

INDENT = "    "
WIDEST = 96
"""How long a line may be."""

PLAIN = re.compile(r"[a-z_0-9]+(\([^{}]*\))?")
"""A layer without a label and without a body."""

ORDERS = ("ratio", "cycle", "at", "pattern", "place")
"""The arguments of ``stack`` that one list of labels replaces."""

Lines = list[str]


def closed_text(arch: Arch) -> str:
    """The file of an architecture."""
    return _Writer(arch).file()


class _Named(Exception):
    """Layers need a name, which depends on those given before."""


class _Writer:
    """Writes one architecture; sequences that need a name become definitions at the top."""

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.run = Run(self.choose, arch.space.elements)
        self.definitions: dict[str, Lines] = {}
        self.plainly = False

    def choose(self, site: Site) -> int:
        """The architecture's own choice; what it leaves open plays no part in it."""
        return self.arch.assignment.get(site.path, 0)

    def file(self) -> str:
        """The whole text."""
        model = self.arch.space.plan.model
        assert model is not None
        layers = self.layers(model, ())
        parts = [self.definition(name, lines) for name, lines in self.definitions.items()]
        parts.append(["model {", *indented(layers), "}"])
        parts.append([f"require {each}" for each in self.arch.requirements])
        parts.append(
            [f"task {name} = {self.component(task)}" for name, task in self.arch.tasks.items()]
        )
        parts += [self.train(), self.search()]
        return "\n\n".join("\n".join(part) for part in parts if part) + "\n"

    def definition(self, name: str, lines: Lines) -> Lines:
        """``def name { … }``."""
        return [f"def {name} {{", *indented(lines), "}"]

    def train(self) -> Lines:
        """The ``train`` section, if it says anything."""
        settings = list(self.arguments(self.arch.train))
        return ["train {", *indented(settings), "}"] if settings else []

    def search(self) -> Lines:
        """The ``search`` section, if it says anything."""
        settings = list(self.arguments(self.arch.space.search))
        settings += [f"{each.direction} {each.text}" for each in self.arch.space.objectives]
        return ["search {", *indented(settings), "}"] if settings else []

    # --- components -------------------------------------------------------------------------------

    def component(self, component: Component) -> str:
        """A component with the arguments that are not its defaults."""
        return call_text(component.name, iter(self.arguments(component)))

    def arguments(self, model: BaseModel) -> tuple[str, ...]:
        """The arguments that are not defaults, of what architectures of the space have in common once."""
        key = (argument_texts, id(model))
        _, texts = self.run.shared(key, lambda: (model, tuple(argument_texts(model))))
        return texts  # type: ignore[no-any-return]

    # --- layers -----------------------------------------------------------------------------------

    def layers(self, term: Term, copies: Copies) -> Lines:
        """The layers a term stands for."""
        if isinstance(term, Choice):
            return self.layers(term.alternatives[self.run.decide(term.site, copies)], copies)
        if isinstance(term, Series):
            return [line for item in term.items for line in self.layers(item, copies)]
        assert isinstance(term, LayerTerm), term
        return self.layer(term, copies)

    def layer(self, term: LayerTerm, copies: Copies) -> Lines:
        """One layer, which reads the same in every architecture unless a part of it needs a name."""
        key = (_Writer, term, copies if term.each else ())
        plain = self.run.remembered(key, lambda: self.plain(term, copies))
        return self.lines(term, copies) if plain is None else list(plain)

    def plain(self, term: LayerTerm, copies: Copies) -> Lines | None:
        """One layer that needs no name; ``None`` of any other."""
        outer, self.plainly = self.plainly, True
        try:
            return self.lines(term, copies)
        except _Named:
            return None
        finally:
            self.plainly = outer

    def lines(self, term: LayerTerm, copies: Copies) -> Lines:
        """One layer; nothing where a container has nothing in it."""
        found: tuple[Element, ...] = self.run.value(term, copies)
        if not found:
            return []
        element, component = found[0], found[0].component
        if element.origin is not None:
            return [element.origin]
        if component.body == "none":
            return [self.component(component)]
        if component.body == "equations":
            written = getattr(component, "equations", ())
            return braces(
                self.component(component),
                [f"{e.target} = {equation_text(e.value)}" for e in written],
            )
        return self.container(term, component, copies)

    def container(self, term: LayerTerm, component: Layer, copies: Copies) -> Lines:
        """A container with its body."""
        visits = [tuple(visit) for visit in term.visits(component, self.run)]
        copying = repeats(component, visits)
        if copying and term.each and self.differ(term, visits, copies):
            return self.unlike(term, component, visits, copies)
        written = [
            self.layers(
                child.term, (*copies, (term, first_visit(visits, i))) if copying else copies
            )
            for i, child in enumerate(term.body)
        ]
        whole = tuple(range(len(term.body)))
        if any(term.labels) or any(visit != whole for visit in visits):
            pairs = zip(term.labels, written, strict=True)
            written = [self.child(label, lines) for label, lines in pairs]
        body = [line for lines in written for line in lines]
        return braces(self.component(component), body)

    def child(self, label: str | None, lines: Lines, name: str | None = None) -> Lines:
        """One child of a body in which each child counts."""
        single = sum(not line.startswith((INDENT, "}")) for line in lines) == 1
        if not lines:
            lines = ["none"]
        elif not single:
            lines = [self.named(lines, name or label or "part")]
        return lines if label is None else [f"{label}: {lines[0]}", *lines[1:]]

    def named(self, lines: Lines, wish: str) -> str:
        """The name of a definition of these layers."""
        if self.plainly:
            raise _Named
        known = next((name for name, found in self.definitions.items() if found == lines), None)
        if known is not None:
            return known
        number, name = 1, f"{wish}_layer"
        while name in self.definitions or name in standard_names() or registry.kinds_of(name):
            number, name = number + 1, f"{wish}_layer_{number + 1}"
        self.definitions[name] = lines
        return name

    # --- copies that differ -----------------------------------------------------------------------

    def differ(self, term: LayerTerm, visits: Sequence[tuple[int, ...]], copies: Copies) -> bool:
        """Whether visits of the same children hold different layers."""
        found: dict[tuple[int, ...], Lines] = {}
        return any(
            found.setdefault(visit, lines) != lines
            for visit, lines in zip(visits, self.copies(term, visits, copies), strict=True)
        )

    def copies(
        self, term: LayerTerm, visits: Sequence[tuple[int, ...]], copies: Copies
    ) -> Iterator[Lines]:
        """The layers of each visit."""
        for number, visit in enumerate(visits):
            inner = (*copies, (term, number))
            yield [line for i in visit for line in self.layers(term.body[i].term, inner)]

    def unlike(
        self,
        term: LayerTerm,
        component: Layer,
        visits: Sequence[tuple[int, ...]],
        copies: Copies,
    ) -> Lines:
        """A container whose copies differ: a plain sequence, or a ``stack`` in the order of labels."""
        written = list(self.copies(term, visits, copies))
        if component.name != "stack":
            return [line for lines in written for line in lines]
        labels: dict[str, Lines] = {}
        tied: dict[str | None, Lines] = {}
        order = []
        for visit, lines in zip(visits, written, strict=True):
            wish = term.labels[visit[0]] if len(visit) == 1 else None
            if wish in getattr(component, "tied", ()):
                lines = tied.setdefault(wish, lines)  # those behind the first run its layers
            order.append(self.label(labels, lines, wish))
        arguments = [*argument_texts(component, ORDERS), f"cycle = [{', '.join(order)}]"]
        body = [line for label, lines in labels.items() for line in self.child(label, lines)]
        return braces(call_text(component.name, iter(arguments)), body)

    def label(self, labels: dict[str, Lines], lines: Lines, wish: str | None) -> str:
        """The label of a kind of layer: the one it has already, or a new one."""
        known = next((label for label, found in labels.items() if found == lines), None)
        if known is not None:
            return known
        name, number = wish or "layer", 1
        while name in labels:
            number, name = number + 1, f"{wish or 'layer'}_{number + 1}"
        labels[name] = lines
        return name


def first_visit(visits: Sequence[tuple[int, ...]], child: int) -> int:
    """The number of the first visit that runs a child; 0 for one that never runs."""
    return next((number for number, visit in enumerate(visits) if child in visit), 0)


def indented(lines: Sequence[str]) -> Lines:
    """The lines one level further in."""
    return [f"{INDENT}{line}" for line in lines]


def braces(head: str, body: Sequence[str]) -> Lines:
    """A head with a body, in one line where that is short and the body is a few plain layers."""
    line = f"{head} {{ {'  '.join(body)} }}"
    plain = all(PLAIN.fullmatch(part) for part in body)
    return [line] if plain and len(line) <= WIDEST else [f"{head} {{", *indented(body), "}"]
