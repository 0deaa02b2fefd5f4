"""The grammar is free of conflicts, and the parser's table is made from it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import lark
import pytest

from archdsl.grammar import parse, table

FOLDER = Path(table.__file__).parent
GRAMMAR = (FOLDER / "arch.lark").read_text(encoding="utf-8")


def test_strict_mode_finds_no_conflict() -> None:
    strict = lark.Lark(GRAMMAR, strict=True, **parse.OPTIONS)
    assert strict.parse("model { gla }")


def test_strict_mode_finds_the_conflict_of_an_ambiguous_grammar() -> None:
    ambiguous = GRAMMAR + '\n%extend use: "use" STRING ["as" NAME]\n%extend let: use\n'
    with pytest.raises(lark.exceptions.GrammarError):
        lark.Lark(ambiguous, strict=True, **parse.OPTIONS)


def test_table_is_made_from_the_grammar() -> None:
    made = json.loads((FOLDER / "table.json").read_text(encoding="utf-8"))
    if made["lark"] != parse.lark_series():
        pytest.skip("another Lark: the parser is made from the grammar itself")
    assert table.generate() == (FOLDER / "table.json").read_text(encoding="utf-8")


def test_another_lark_reads_the_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "__version__", "0.0.0")
    parse._grammar.cache_clear()
    try:
        assert parse.parse("model { gla  task  search: log }") is not None
    finally:
        parse._grammar.cache_clear()


def test_only_the_parser_knows_lark() -> None:
    for path in FOLDER.parent.rglob("*.py"):
        imports = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom)
        ]
        if any((node.module or "").split(".")[0] == "lark" for node in imports):
            assert path.name in ("parse.py", "table.py")


def test_a_cold_start_is_quick_and_light() -> None:
    code = (
        "import time; start = time.process_time()\n"
        "from archdsl.grammar.parse import parse\n"
        "parse('let width = 128')\n"
        "print(time.process_time() - start)\n"
        "import sys; print(*sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, modules = shown.stdout.splitlines()
    assert float(seconds) < 1  # about 0.08 on an idle machine
    assert {"torch", "rich", "networkx", "pydantic"}.isdisjoint(modules.split())
