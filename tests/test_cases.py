"""The language by example: every program in ``tests/cases`` with what the tools say of it.

A case file is Markdown. A block marked ``arch program`` begins a case; what follows it says what is
expected: ``diagnostics`` the full form of its diagnostics, ``formatted`` its canonical layout. Blocks
marked ``arch file NAME`` before the program are files that stand beside it.

``python tests/test_cases.py`` rewrites what is expected; read the difference before you keep it.
"""

from __future__ import annotations

import ast
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from archdsl.catalogue import CATALOGUE, ids
from archdsl.console import render
from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.grammar.format import format_program
from archdsl.grammar.parse import parse

ROOT = Path(__file__).parent.parent
CASES = ROOT / "tests" / "cases"
NAME = "case.arch"

TESTED_ELSEWHERE = {
    "another-contest",
    "bad-utf8",
    "control-character",
    "damaged-study",
    "empty-data",
    "file-too-large",
    "keys-disagree",
    "malformed-storage",
    "missing-file",
    "missing-model",
    "nested-too-deeply",
    "no-data",
    "no-score",
    "no-storage-driver",
    "no-worker",
    "not-a-checkpoint",
    "not-a-file",
    "not-a-study",
    "not-enqueued",
    "nothing-to-learn",
    "one-objective",
    "requirement-broken",
    "short-data",
    "storage-silent",
    "study-changed",
    "study-not-written",
    "too-entangled",
    "too-many-files",
    "unknown-benchmark",
    "unknown-binding",
    "unknown-component",
    "unknown-pattern",
    "unreadable-data",
    "unreadable-file",
    "unsupported-storage",
    "unusable-component",
    "unusable-device",
    "unused-data",
    "wrong-assignment",
}
"""Ids that checking one text in a Markdown file cannot show: of files, runs, and calls on a space.

Other tests show them, by name.
"""

_BLOCK = re.compile(r"^```(?P<info>[^\n]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """One program and what is expected of it; spans are offsets in the case file."""

    path: Path
    title: str
    program: str
    files: tuple[tuple[str, str], ...]
    expected: tuple[tuple[str, str, int, int], ...]

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}: {self.title}"


def cases() -> Iterator[Case]:
    """Every case in ``tests/cases``."""
    for path in sorted(CASES.rglob("*.md")):
        yield from cases_of(path)


def cases_of(path: Path) -> Iterator[Case]:
    """The cases of one file, in order."""
    text = path.read_text(encoding="utf-8")
    files: list[tuple[str, str]] = []
    blocks = list(_BLOCK.finditer(text))
    for index, block in enumerate(blocks):
        info = block["info"].split()
        if info[:2] == ["arch", "file"]:
            files.append((info[2], block["text"]))
        elif info == ["arch", "program"]:
            titles = [heading[1] for heading in _HEADING.finditer(text, 0, block.start())]
            expected = tuple(_expected(blocks[index + 1 :]))
            yield Case(path, titles[-1], block["text"], tuple(files), expected)
            files = []


def _expected(blocks: list[re.Match[str]]) -> Iterator[tuple[str, str, int, int]]:
    for block in blocks:
        if block["info"].split()[0] not in ("diagnostics", "formatted"):
            return
        yield block["info"], block["text"], block.start("text"), block.end("text")


def found(case: Case, kind: str) -> str:
    """What the tools say of a program."""
    for name, text in case.files:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
    if kind == "formatted":
        return format_program(parse(case.program, NAME))
    shown = render(checker(case.path)(case.program, NAME))
    return f"{shown}\n" if shown else ""


def checker(path: Path) -> Callable[[str, str], list[Diagnostic]]:
    """How a case is checked: the syntax alone, or all there is to say of a file."""
    if path.parent.name == "syntax":
        return check_syntax
    from archdsl.compiler.spaces.check import check_text

    return check_text


def check_syntax(text: str, name: str) -> list[Diagnostic]:
    """The diagnostics of the parser."""
    try:
        parse(text, name)
    except ArchError as error:
        return list(error.diagnostics)
    return []


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert case.expected, "say what is expected, or rewrite the cases"
    for kind, expected, _, _ in case.expected:
        assert found(case, kind) == expected


# --- every diagnostic is explained and shown ------------------------------------------------------

CALLS = re.compile("diagnostic|finding|invalid|error|warning|say|stop|refuse", re.IGNORECASE)
"""Functions that make a diagnostic; the first text with hyphens that they are given is its id."""


def used_ids() -> dict[str, str]:
    """Every id that the source gives a diagnostic, and where."""
    known: dict[str, str] = {}
    for folder in (ROOT / "archdsl", ROOT / "search"):
        for path in folder.rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
            known |= {id: str(path.relative_to(ROOT)) for call in calls for id in _ids(call)}
    return known


def _ids(call: ast.Call) -> list[str]:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    direct = name in ("Diagnostic", "finding")
    form = "[a-z0-9]+(-[a-z0-9]+)*" if direct else "[a-z0-9]+(-[a-z0-9]+)+"
    named = [keyword.value for keyword in call.keywords if keyword.arg == "id"]
    texts = [node.value for node in named + call.args[:2] if isinstance(node, ast.Constant)]
    given = [text for text in texts if isinstance(text, str) and re.fullmatch(form, text)]
    return given[:1] if CALLS.search(name) else []


@cache
def shown_ids() -> set[str]:
    """Every id that some case expects."""
    blocks = [text for case in cases() for _, text, _, _ in case.expected]
    return {id for text in blocks for id in re.findall(r"^(?:error|warning)\[(.+?)\]", text, re.M)}


@cache
def other_tests() -> str:
    """The text of every other test."""
    others = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    return "\n".join(path.read_text(encoding="utf-8") for path in others)


@pytest.mark.parametrize(("id", "path"), sorted(used_ids().items()))
def test_id_is_explained_and_shown(id: str, path: str) -> None:
    assert id in CATALOGUE, f"{path}: write archdsl/explanations/{id}.md"
    if id in TESTED_ELSEWHERE:
        assert f'"{id}"' in other_tests(), f"{path}: write a test that names {id}"
    else:
        assert id in shown_ids(), f"{path}: write a case in tests/cases for {id}"


def test_nothing_is_explained_in_vain() -> None:
    assert set(ids()) <= set(used_ids())


@pytest.mark.parametrize("id", ids())
def test_examples(id: str) -> None:
    explanation = CATALOGUE[id]
    if not explanation.is_spec:
        return
    assert check_syntax(explanation.right, NAME) == []
    wrong = check_syntax(explanation.wrong, NAME)
    if not wrong:
        from archdsl.compiler.spaces.check import check_text

        wrong = check_text(explanation.wrong, NAME)
        assert [d for d in check_text(explanation.right, NAME) if d.id == id] == []
    assert {diagnostic.id for diagnostic in wrong} == {id}


# --- rewriting ------------------------------------------------------------------------------------


def rewrite(path: Path) -> None:
    """Put what the tools say now into a case file; an empty program gets a diagnostics block."""
    text = path.read_text(encoding="utf-8")
    for case in reversed(list(cases_of(path))):
        for kind, _, start, end in reversed(case.expected):
            text = text[:start] + found(case, kind) + text[end:]
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for case_file in sorted(CASES.rglob("*.md")):
            rewrite(case_file)
