"""Diagnostics as they are shown."""

from __future__ import annotations

import json
import re

import pytest

from archdsl.console import printable, render, render_concise, summary, to_json
from archdsl.diagnostics import Diagnostic, Severity, Source, Span

DESIGN = """\
error[unknown-parameter]: `gla` has no parameter `head`
  --> specs/hybrid.arch:17:22
   |
17 |         linear: block(gla(head = 4))
   |                           ^^^^ did you mean `heads`?
   |
help: parameters of `gla`: heads, conv, expand_v, gate

1 error"""


def at(text: str, part: str, name: str = "a.arch", **fields: object) -> Diagnostic:
    """A diagnostic that points at a part of a text."""
    start = text.index(part)
    span = Span(Source(name, text), start, start + len(part))
    return Diagnostic(**{"id": "an-id", "message": "a message", "span": span, **fields})  # type: ignore[arg-type]


def excerpt(diagnostic: Diagnostic, width: int = 100) -> list[str]:
    """The rows of the source lines and carets, without their frame."""
    rows = render([diagnostic], width=width).split("\n\n")[0].splitlines()[3:]
    return [row.split("|", 1)[1][1:] if "|" in row else row for row in rows]


def test_the_full_form_is_the_one_of_the_design() -> None:
    text = "\n" * 16 + "        linear: block(gla(head = 4))\n"
    diagnostic = at(
        text,
        "head",
        "specs/hybrid.arch",
        id="unknown-parameter",
        message="`gla` has no parameter `head`",
        label="did you mean `heads`?",
        help="parameters of `gla`: heads, conv, expand_v, gate",
    )
    assert render([diagnostic]) == DESIGN.replace("17:22", "17:27")


def test_nothing_is_nothing() -> None:
    assert render([]) == ""
    assert summary([]) == "no errors"


def test_counting() -> None:
    error, warning = at("a", "a"), at("a", "a", severity=Severity.WARNING)
    assert summary([error]) == "1 error"
    assert summary([warning, error, error]) == "2 errors, 1 warning"
    assert render([warning]).startswith("warning[an-id]")


def test_without_a_place() -> None:
    assert render([Diagnostic("missing-file", "there is no file `a`")]).splitlines()[0] == (
        "error[missing-file]: there is no file `a`"
    )
    assert render_concise([Diagnostic("missing-file", "no file")]) == "error[missing-file] no file"


def test_the_concise_form() -> None:
    assert render_concise([at("let a\nlet b", "b")]) == "a.arch:2:5: error[an-id] a message"


def test_notes_and_help_are_wrapped_under_themselves() -> None:
    shown = render([at("a", "a", notes=("one " * 20,), help="two " * 20)], width=50)
    assert max(map(len, shown.splitlines())) <= 50
    assert "\n      two" in shown
    assert "\nnote: one" in shown


def test_tabs_are_shown_as_blanks() -> None:
    assert excerpt(at("\tlet\ta", "a")) == ["    let    a", "           ^"]


def test_wide_and_combining_characters_take_their_columns() -> None:
    assert excerpt(at("注意 bad", "bad")) == ["注意 bad", "     ^^^"]
    assert excerpt(at("e\u0301e\u0301 bad", "bad"))[1] == "   ^^^"
    assert excerpt(at("a注意b", "注意"))[1] == " ^^^^"


def test_an_empty_span_has_one_caret() -> None:
    source = Source("a.arch", "let a =")
    assert excerpt(Diagnostic("x", "y", Span(source, 7, 7))) == ["let a =", "       ^"]
    assert excerpt(Diagnostic("x", "y", Span(Source("a.arch", ""), 0, 0))) == ["".rstrip(), "^"]


def test_several_lines_show_the_first_and_the_last() -> None:
    text = "let a = (\n  1\n  2\n  3\n)"
    rows = excerpt(at(text, text[8:], label="too much"))
    assert rows == ["let a = (", "        ^", "...", ")", "^ too much"]


def test_related_places_are_underlined_differently() -> None:
    text = "let a = 1\nlet b = 2\nlet a = 3"
    source = Source("a.arch", text)
    diagnostic = Diagnostic(
        "duplicate-name",
        "`a` is there twice",
        Span(source, 24, 25),
        label="again",
        related=((Span(source, 4, 5), "first"),),
    )
    assert excerpt(diagnostic) == ["let a = 1", "    - first", "...", "let a = 3", "    ^ again"]


def test_places_in_other_files_follow() -> None:
    other = Span(Source("b.arch", "let b = 1"), 4, 5)
    shown = render([at("let a = b", "b", related=((other, "defined here"),))])
    assert "\n ::: b.arch:1:5\n  |\n1 | let b = 1\n  |     - defined here" in shown


@pytest.mark.parametrize("width", [40, 60, 100])
def test_long_lines_are_cut_around_the_mark(width: int) -> None:
    line, carets = excerpt(at("x = " + "a, " * 200 + "bad" + ", b" * 200, "bad"), width)
    assert len(line) <= width
    assert line.startswith("…")
    assert line.endswith("…")
    assert line[carets.index("^") :].startswith("bad")
    assert carets.strip() == "^^^"


def test_a_mark_longer_than_the_line_is_cut_too() -> None:
    line, carets = excerpt(at("x" * 500, "x" * 500), 60)
    assert len(line) <= 60
    assert len(carets) <= 60


def test_long_labels_go_on_below() -> None:
    rows = excerpt(at("let a = 1", "a", label="word " * 30), 60)
    assert len(rows) > 2
    assert max(map(len, rows)) <= 60
    assert rows[2].startswith("      word")


@pytest.mark.parametrize(
    "char", ["\0", "\x1b", "\x07", "\r", "\x7f", "\x9b", "\u202e", "\u2028", "\ud800", "\ufeff"]
)
def test_nothing_raw_reaches_the_terminal(char: str) -> None:
    diagnostic = at(
        f"let {char} bad", "bad", name=f"{char}.arch", message=f"{char}!", label=char, help=char
    )
    for shown in (render([diagnostic]), render_concise([diagnostic])):
        assert char not in shown
        assert shown.encode("utf-8")
    if char != "\u2028":
        assert excerpt(diagnostic)[1].index("^") == len("let ? ")


def test_signs_for_control_characters() -> None:
    assert printable("a\0\x1b\x7f\u202e") == "a␀␛␡\ufffd"


def test_color_changes_nothing_but_color() -> None:
    diagnostics = [at("let a = 1", "a", label="here", help="do", notes=("so",)), at("b", "b")]
    colored = render(diagnostics, color=True)
    assert "\x1b[" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == render(diagnostics)


def test_json_holds_everything() -> None:
    text = "let a\nlet b"
    diagnostic = at(
        text,
        "b",
        label="l",
        help="h",
        notes=("n",),
        related=((Span(Source("b.arch", text), 0, 9), "r"),),
    )
    (shown,) = json.loads(json.dumps(to_json([diagnostic])))
    assert shown == {
        "id": "an-id",
        "severity": "error",
        "message": "a message",
        "path": "a.arch",
        "line": 2,
        "column": 5,
        "end_line": 2,
        "end_column": 6,
        "label": "l",
        "help": "h",
        "notes": ["n"],
        "related": [
            {"path": "b.arch", "line": 1, "column": 1, "end_line": 2, "end_column": 4, "label": "r"}
        ],
    }
    assert to_json([Diagnostic("missing-file", "m")])[0]["line"] is None
