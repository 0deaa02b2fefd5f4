"""The parser's table, made once from ``arch.lark`` so that no start has to analyse the grammar.

Run ``python -m archdsl.grammar.table`` after a change to the grammar.
"""

from __future__ import annotations

import json
from operator import itemgetter
from pathlib import Path
from typing import Any

from lark import Lark
from lark.grammar import Rule
from lark.lexer import TerminalDef

from archdsl.grammar.parse import OPTIONS, lark_series

_FOLDER = Path(__file__).parent
_SHIFT = 0


def generate() -> str:
    """The table as JSON, with the series of Lark whose format it has."""
    lark = Lark((_FOLDER / "arch.lark").read_text(encoding="utf-8"), **OPTIONS)
    data, memo = lark.memo_serialize([TerminalDef, Rule])
    data["options"]["_plugins"] = {}
    data["parser"]["parser"] = _in_order(data["parser"]["parser"])
    table = {"lark": lark_series(), "data": data, "memo": memo}
    return json.dumps(table, separators=(",", ":"), sort_keys=True) + "\n"


def _in_order(automaton: dict[str, Any]) -> dict[str, Any]:
    """The same automaton with its tokens sorted and its states numbered in the order of a walk.

    Lark numbers them as its sets happen to be ordered, which differs from run to run.
    """
    tokens = sorted(automaton["tokens"].values())
    states = {
        state: sorted(
            ((automaton["tokens"][token], action) for token, action in actions.items()),
            key=itemgetter(0),
        )
        for state, actions in automaton["states"].items()
    }
    number = _walk(states, automaton["start_states"]["start"])
    return {
        **automaton,
        "tokens": dict(enumerate(tokens)),
        "states": {
            number[state]: {
                tokens.index(token): [kind, number[target] if kind == _SHIFT else target]
                for token, (kind, target) in states[state]
            }
            for state in number
        },
        "start_states": {name: number[n] for name, n in automaton["start_states"].items()},
        "end_states": {name: number[n] for name, n in automaton["end_states"].items()},
    }


def _walk(states: dict[int, list[tuple[str, tuple[int, Any]]]], start: int) -> dict[int, int]:
    """A number for each state that can be reached, breadth first."""
    number = {start: 0}
    queue = [start]
    for state in queue:
        for _, (kind, target) in states[state]:
            if kind == _SHIFT and target not in number:
                number[target] = len(number)
                queue.append(target)
    return number


if __name__ == "__main__":
    (_FOLDER / "table.json").write_text(generate(), encoding="utf-8")
