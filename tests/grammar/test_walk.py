"""The quick walk gives what Lark's own parser gives, or gives up."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from lark.exceptions import UnexpectedInput

from archdsl.diagnostics import Source
from archdsl.grammar import parse

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "specs").rglob("*.arch"), *(ROOT / "archdsl/blocks/std").glob("*.arch")])
WORDS = [
    *parse.KEYWORDS, "maximize", "minimize", "by", "log", "true", "none", "x", "3", "3:1", "2.5", "4M",
    '"a"', "..", ".", ":", "=", "==", "<=", "|", "+", "*", "(", ")", "[", "]", "{", "}", ",", "#", "é",
]  # fmt: skip


def walked(text: str) -> Any:
    """By the walk; ``None`` where it gives up."""
    parse._builder.reset(Source("text", text))
    return parse._walk().parse(text)


def parsed(text: str) -> Any:
    """By Lark; ``None`` where it stumbles."""
    parse._builder.reset(Source("text", text))
    try:
        return parse._grammar().parse(text)
    except UnexpectedInput:
        return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_are_walked_to_the_end(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = walked(text)
    assert found is not None
    assert found == parsed(text)
    assert [item.span for item in found] == [item.span for item in parsed(text)]


@pytest.mark.parametrize("seed", range(8))
def test_of_a_mutilated_file_it_gives_the_same_tree_or_none(seed: int) -> None:
    draw = random.Random(seed)
    agreed = 0
    for _ in range(60):
        path = draw.choice([each for each in FILES if each.stat().st_size < 1500])
        words = re.findall(r"\s+|\w+|.", path.read_text(encoding="utf-8"))
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(words))
            words[place : place + draw.randint(0, 2)] = [draw.choice(WORDS), " "]
        text = "".join(words)
        found = walked(text)
        if found is not None:
            assert found == parsed(text), text
            agreed += 1
    assert agreed > 5


@pytest.mark.parametrize(
    "text",
    [
        "let task = 3 model { gla(log = 2) }",
        "let x = 1 .. 8 log let y = 1 .. 8 by 2",
        "let x = 1 .. 8 model { gla task: gla(step = 1) }",
        "model { by: gla  log(by = 1) }",
        "search { maximize task.accuracy  trials = 3 }",
    ],
)
def test_a_keyword_is_one_where_the_parser_can_go_on_with_it(text: str) -> None:
    assert walked(text) == parsed(text) is not None
