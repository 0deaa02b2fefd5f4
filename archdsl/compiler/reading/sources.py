"""The texts a space is made of: enough to make it again, anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import cached_property
from hashlib import sha256
from typing import Any

from archdsl.grammar import ast
from archdsl.grammar.parse import parse

Bound = int | float | Fraction | str | bool | None
"""What a ``let`` may be bound to from outside; a ``str`` is a string in quotes."""


@dataclass(frozen=True)
class Sources:
    """A main file, the files it uses, and the values bound to its ``let`` items from outside.

    Args:
        name: the path of the main file as it was given.
        text: its text.
        used: texts by their path relative to the main file's folder.
        bindings: values by the name of the ``let``.
    """

    name: str
    text: str
    used: Mapping[str, str] = field(default_factory=dict)
    bindings: Mapping[str, Bound] = field(default_factory=dict)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of what the texts say: comments, layout and numbers' spellings do not count."""
        digest = sha256()
        for path, text in [("", self.text), *sorted(self.used.items())]:
            digest.update(f"\n{path}\n".encode())
            for part in _dump(parse(text, path or self.name)):
                digest.update(part.encode())
        for name, value in sorted(self.bindings.items()):
            digest.update(f"\n{name} = {_spelt(value)}".encode())
        return digest.hexdigest()

    def to_json(self) -> str:
        """As JSON; fractions as text."""
        bindings = {name: _spelt(value) for name, value in self.bindings.items()}
        data = {"name": self.name, "text": self.text, "used": dict(self.used), "bindings": bindings}
        return json.dumps(data, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Sources:
        """The sources of :meth:`to_json`."""
        data = json.loads(text)
        bindings = {name: _read(value) for name, value in data["bindings"].items()}
        return Sources(data["name"], data["text"], data["used"], bindings)


def _spelt(value: Bound) -> Any:
    """A JSON value that says its type."""
    if isinstance(value, Fraction | float) and not isinstance(value, bool):
        return {"number": str(Fraction(str(value)))}
    return value


def _read(value: Any) -> Bound:
    return Fraction(value["number"]) if isinstance(value, dict) else value


def _dump(node: object) -> Iterator[str]:
    """Everything of a tree that its equality looks at."""
    if isinstance(node, ast.Node):
        yield f"({type(node).__name__}"
        for item in fields(node):
            if item.compare:
                yield from _dump(getattr(node, item.name))
        yield ")"
    elif isinstance(node, tuple):
        yield "["
        for child in node:
            yield from _dump(child)
        yield "]"
    else:
        yield f" {node!r}"
