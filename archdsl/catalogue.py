"""What each diagnostic means, with a wrong and a right example: one Markdown file an id.

To add one, write ``archdsl/explanations/ID.md``: a title behind ``#``, a paragraph, a block
```` ```arch wrong ```` and a block ```` ```arch right ````. Where the wrong thing is not a spec (a missing
file), the blocks say ``text`` instead of ``arch``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).with_name("explanations")
_FORM = re.compile(
    r"# (?P<title>[^\n]+)\n\n(?P<text>.+?)\n\n"
    r"```(?P<kind>arch|text) wrong\n(?P<wrong>.+?)\n```\n\n```(?P=kind) right\n(?P<right>.+?)\n```\n",
    re.DOTALL,
)


@dataclass(frozen=True)
class Explanation:
    """What one diagnostic means.

    Args:
        id: the diagnostic's id.
        title: one line.
        text: a paragraph or more of Markdown.
        wrong: an example that gives the diagnostic.
        right: what to write instead.
        is_spec: whether the examples are specs, rather than commands or words.
    """

    id: str
    title: str
    text: str
    wrong: str
    right: str
    is_spec: bool


def explain(id: str) -> Explanation | None:
    """The explanation of a diagnostic; ``None`` where there is no such id."""
    return CATALOGUE.get(id)


def ids() -> list[str]:
    """Every id that is explained, in alphabetical order."""
    return sorted(path.stem for path in _FOLDER.glob("*.md"))


class _Catalogue(Mapping[str, Explanation]):
    """The explanations by id, each read when it is first asked for."""

    def __getitem__(self, id: str) -> Explanation:
        return _read(id)

    def __iter__(self) -> Iterator[str]:
        return iter(ids())

    def __len__(self) -> int:
        return len(ids())


CATALOGUE: Mapping[str, Explanation] = _Catalogue()
"""Every explanation by its id."""


@cache
def _read(id: str) -> Explanation:
    if not re.fullmatch("[a-z0-9-]+", id):
        raise KeyError(id)
    try:
        text = (_FOLDER / f"{id}.md").read_text(encoding="utf-8")
    except OSError:
        raise KeyError(id) from None
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"archdsl/explanations/{id}.md does not have the form of an explanation")
    parts = match.groupdict()
    is_spec = parts.pop("kind") == "arch"
    return Explanation(id=id, is_spec=is_spec, **parts)
