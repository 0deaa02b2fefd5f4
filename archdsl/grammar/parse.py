"""Text to syntax tree. The only module that knows Lark.

A text that is right goes through the parser once. A text that is not is looked at again, item by
item, so that one run can name several mistakes: each is explained by :mod:`archdsl.grammar.mistakes`,
and parsing goes on where that module says how to mend the text, or at the next line that can begin
something.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, cast

from lark import Lark, Token, __version__
from lark.exceptions import UnexpectedInput, UnexpectedToken
from lark.lexer import ContextualLexer, LexerState
from lark.parsers.lalr_analysis import Shift
from lark.parsers.lalr_interactive_parser import InteractiveParser
from lark.parsers.lalr_parser_state import ParserState
from lark.utils import TextSlice

from archdsl.diagnostics import ArchError, Diagnostic, Source, Span
from archdsl.grammar import ast
from archdsl.grammar.build import Builder, check_depth
from archdsl.grammar.mistakes import explain
from archdsl.grammar.place import Finding, Place
from archdsl.grammar.text import check, comments, read_source, without_mark
from archdsl.grammar.walk import Reduction, Terminal, Walk
from archdsl.grammar.words import CLOSED, CLOSING, KEYWORDS, Opening, Words, close

__all__ = ["parse", "parse_file", "parse_source", "read_source"]

MOST_DIAGNOSTICS = 10
"""How many mistakes one run names; more are most likely echoes of the first."""

MOST_STUMBLES = 30
"""How often the parser is helped over a mistake in one item, told or not."""

ECHOES = frozenset({"unexpected-word", "stray-word", "missing-operator"})
"""What is said only of a line of which nothing else is said."""

_builder = Builder()


def parse(text: str, name: str = "<text>") -> ast.Program:
    """Parse a text that is shown under ``name``.

    Raises:
        ArchError: with a located diagnostic for each mistake found.
    """
    return parse_source(Source(name, text))


def parse_file(path: str | PathLike[str]) -> ast.Program:
    """Parse a file.

    Raises:
        ArchError: the file cannot be read, or as :func:`parse`.
    """
    return parse_source(read_source(path))


def parse_source(source: Source) -> ast.Program:
    """Parse a source, as :func:`parse` does."""
    source = without_mark(source)
    nesting = check(source)
    _builder.reset(source)
    items = cast(tuple[ast.Item, ...] | None, _walk().parse(source.text))
    if items is None:
        items = _carefully(source)
    if _builder.found:
        raise ArchError(_builder.found[:MOST_DIAGNOSTICS])
    if not items:
        raise ArchError(_empty(source))
    program = ast.Program(
        span=Span(source, 0, len(source.text)), items=items, comments=comments(source)
    )
    check_depth(program, _builder.chain, nesting)
    return program


def _carefully(source: Source) -> tuple[ast.Item, ...]:
    """The items of a text by Lark's own parser, which can say where it stumbled."""
    _builder.reset(source)
    try:
        return cast(tuple[ast.Item, ...], _grammar().parse(source.text))
    except UnexpectedInput as error:
        raise ArchError(_diagnose(source, error)) from None


def _empty(source: Source) -> Diagnostic:
    what = "nothing but comments" if source.text.strip() else "nothing"
    return Diagnostic(
        "empty-file",
        f"there is {what} in this file",
        Span(source, 0, 0),
        help="a file holds at least one item, such as `let width = 128` or `model { … }`",
    )


# --- the parser -----------------------------------------------------------------------------------


@cache
def _grammar() -> Lark:
    """The parser, from its ready-made table where that fits the Lark that is installed."""
    table = json.loads(_resource("table.json"), object_pairs_hook=_with_numbers)
    if table["lark"] != lark_series():
        return Lark(_resource("arch.lark"), transformer=_builder, **OPTIONS)
    table["data"]["options"] |= {"transformer": _builder, "_plugins": OPTIONS["_plugins"]}
    return Lark.load(table)


@cache
def _walk() -> Walk:
    """The quick way through the same table."""
    lark = _grammar()
    parser: Any = lark.parser.parser.parser
    table = parser.parse_table
    actions = table.states.items()
    return Walk(
        start=table.start_states["start"],
        end=table.end_states["start"],
        goes={
            state: {name: found for name, (kind, found) in row.items() if kind is Shift}
            for state, row in actions
        },
        reduces={
            state: {
                name: _reduction(found, parser.callbacks)
                for name, (kind, found) in row.items()
                if kind is not Shift
            }
            for state, row in actions
        },
        terminals=[
            Terminal(t.name, t.pattern.to_regexp(), t.priority, t.pattern.max_width)
            for t in lark.terminals
        ],
        soft=_SOFT,
    )


def _reduction(rule: Any, callbacks: Mapping[Any, Any]) -> Reduction:
    size = len(rule.expansion)
    kept = size == 1 and rule.options.expand1 and rule.alias is None
    return size, str(rule.origin.name), None if kept else callbacks[rule]


class KeywordLexer(ContextualLexer):
    """A lexer for which a keyword is one only where the parser can go on with it.

    The states of an LALR parser stand for many places at once, so Lark's own contextual lexer would
    read the layer ``task`` of ``{ gla  task }`` as the keyword that may follow ``let x = gla``.
    """

    def lex(self, lexer_state: LexerState, parser_state: ParserState[Any]) -> Iterator[Token]:
        """The tokens, each read when the parser has taken the one before."""
        for token in super().lex(lexer_state, parser_state):
            if token.type in _SOFT and not _can_shift(parser_state, token.type):
                token.type = "NAME"
            yield token


def _can_shift(parser: ParserState[Any], terminal: str) -> bool:
    """Whether a terminal really fits, once everything before it is reduced."""
    states, stack = parser.parse_conf.states, list(parser.state_stack)
    while terminal in states[stack[-1]]:
        action, rule = states[stack[-1]][terminal]
        if action is Shift:
            return True
        del stack[len(stack) - len(rule.expansion) :]
        stack.append(states[stack[-1]][rule.origin.name][1])
    return False


_SOFT = frozenset({*map(str.upper, KEYWORDS), "MAXIMIZE", "MINIMIZE", "AS", "STEP", "LOG"})


def lark_series() -> str:
    """The series of the Lark that is installed (``1.3``), within which tables keep their form."""
    return ".".join(__version__.split(".")[:2])


OPTIONS: dict[str, Any] = {
    "parser": "lalr",
    "keep_all_tokens": True,
    "maybe_placeholders": False,
    "_plugins": {"ContextualLexer": KeywordLexer},
}
"""How ``arch.lark`` is meant to be read."""


def _resource(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _with_numbers(pairs: list[tuple[str, Any]]) -> dict[Any, Any]:
    return {int(key) if key.isdigit() else key: value for key, value in pairs}


# --- several mistakes a run -----------------------------------------------------------------------


def _diagnose(source: Source, error: UnexpectedInput) -> list[Diagnostic]:
    """Every mistake in a text that does not parse, in the order of the text."""
    words = Words(source.text)
    found: list[Diagnostic] = []
    for begin, end in _pieces(words):
        found += _Recovery(source, words, begin, end).run(MOST_DIAGNOSTICS - len(found))
        if len(found) >= MOST_DIAGNOSTICS:
            break
    if not found:
        found = [_Recovery(source, words, 0, len(words.list)).first(error)]
    return sorted(found, key=lambda diagnostic: diagnostic.span.start if diagnostic.span else 0)


def _pieces(words: Words) -> Iterator[tuple[int, int]]:
    """The items of the text, cut where a keyword begins a line, whatever brackets are open."""
    starts = sorted({0, *words.item_starts()})
    yield from zip(starts, [*starts[1:], len(words.list)], strict=True)


class _Recovery:
    """Parses one piece of a text over and over, past each of its mistakes."""

    def __init__(self, source: Source, words: Words, begin: int, end: int) -> None:
        self.source, self.words, self.begin, self.end = source, words, begin, end
        self.stop = words.list[end].start if end < len(words.list) else len(source.text)
        self.parser = self.fresh(words.list[begin].start if begin else 0)

    def fresh(self, offset: int) -> InteractiveParser:
        """A parser that is about to read an item at an offset."""
        parser = _grammar().parse_interactive(TextSlice(self.source.text, 0, self.stop))
        _move(parser, offset)
        return parser

    def first(self, error: UnexpectedInput) -> Diagnostic:
        """What is wrong where a parser of the whole text stumbled."""
        self.parser = error.interactive_parser
        return self.explain(error, self.index_of(error)).diagnostic

    def run(self, most: int) -> list[Diagnostic]:
        """The mistakes of this piece."""
        _builder.reset(self.source)
        found: dict[int, Diagnostic] = {}
        seen: set[int] = set()
        for _ in range(MOST_STUMBLES):
            try:
                self.parser.resume_parse()  # type: ignore[no-untyped-call]
                break
            except UnexpectedInput as error:
                index = self.index_of(error)
                finding = self.explain(error, index)
                mended = index not in seen and self.mend(finding)
                seen.add(index)
                if index not in found and not _is_echo(finding.diagnostic, found.values()):
                    found[index] = finding.diagnostic
                full = len(found) + len(_builder.found) >= most
                if full or index == self.end or not (mended or self.skip(index)):
                    break
        spans = [diagnostic.span for diagnostic in found.values()]
        built = [diagnostic for diagnostic in _builder.found if diagnostic.span not in spans]
        return [*built, *found.values()][:most]

    def index_of(self, error: UnexpectedInput) -> int:
        """The word that the parser stumbled over; ``self.end`` for the end of the piece."""
        if isinstance(error, UnexpectedToken) and error.token.type == "$END":
            return self.end
        return min(self.words.index_at(error.pos_in_stream or 0), self.end)

    def explain(self, error: UnexpectedInput, index: int) -> Finding:
        """The mistake that made the parser stumble."""
        place = Place(
            source=self.source,
            words=self.words,
            begin=self.begin,
            index=index,
            end=self.end,
            offset=error.pos_in_stream or 0,
            expected=_accepted(self.parser),
        )
        return explain(place)

    def mend(self, finding: Finding) -> bool:
        """Go on as if the right thing stood there; false where that leads nowhere."""
        if finding.resume is None:
            return False
        try:
            for kind, text in finding.instead:
                self.parser.feed_token(_token(kind, text, finding.diagnostic))
        except UnexpectedToken:
            return False
        return _move(self.parser, finding.resume)

    def skip(self, index: int) -> bool:
        """Go on at the next line that can begin an item, a layer or a setting."""
        opened = list(self.words.surroundings(self.begin, index).opened)
        deepest = len(opened)
        for i in range(index, self.end):
            word = self.words.list[i]
            if word.text == "}":
                _drop_unclosed(opened)
            if self.can_resume(i, index, opened, deepest):
                return self.unwind(opened, word.start)
            if word.text in CLOSING:
                opened.append(Opening(i, word.text, i))
            elif word.text in CLOSED:
                close(opened, word.text)
        return False

    def can_resume(self, i: int, index: int, opened: list[Opening], deepest: int) -> bool:
        """Whether word ``i`` begins something in the file or in a body that was open at ``index``."""
        word = self.words.list[i]
        if not opened:
            at_line_start = word.column == 0 and word.is_name
            return i > index and word.first and (at_line_start or self.words.begins_item(i))
        if opened[-1].bracket != "{" or len(opened) > deepest:
            return False
        return word.text == "}" or (i > index and word.first and word.is_name)

    def unwind(self, opened: list[Opening], offset: int) -> bool:
        """Forget what stands between the innermost open brace and an offset, and read on there."""
        if not opened:
            self.parser = self.fresh(offset)
            return True
        state = self.parser.parser_state
        braces = sum(opening.bracket == "{" for opening in opened)
        while state.value_stack:
            if _open_braces(state.value_stack) == braces and "RBRACE" in _accepted(self.parser):
                return _move(self.parser, offset)
            del state.value_stack[-1], state.state_stack[-1]
        return False


def _is_echo(diagnostic: Diagnostic, before: Iterable[Diagnostic]) -> bool:
    """Whether this is most likely the rest of a mistake that is already named on its line."""
    if diagnostic.id not in ECHOES or diagnostic.span is None:
        return False
    return any(other.span and other.span.line == diagnostic.span.line for other in before)


def _drop_unclosed(opened: list[Opening]) -> None:
    """Take off the round and square brackets that a closing brace leaves open."""
    if any(opening.bracket == "{" for opening in opened):
        while opened[-1].bracket != "{":
            opened.pop()


def _open_braces(values: list[Any]) -> int:
    return sum(getattr(value, "type", None) == "LBRACE" for value in values)


def _token(kind: str, text: str, diagnostic: Diagnostic) -> Token:
    assert diagnostic.span is not None
    return Token(kind, text, diagnostic.span.start, end_pos=diagnostic.span.end)


def _accepted(parser: InteractiveParser) -> set[str]:
    """The terminals that a parser could take now."""
    return cast(set[str], parser.accepts())  # type: ignore[no-untyped-call]


def _move(parser: InteractiveParser, offset: int) -> bool:
    """Let the lexer go on from an offset."""
    assert parser.lexer_thread.state is not None
    parser.lexer_thread.state.line_ctr.char_pos = offset
    return True
