"""Files and characters: everything that is refused before a parser sees it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.grammar.ast import Use
from archdsl.grammar.parse import parse, parse_file, read_source


def refusal(text: str) -> Diagnostic:
    with pytest.raises(ArchError) as caught:
        parse(text)
    return caught.value.diagnostics[0]


def file_refusal(path: Path) -> Diagnostic:
    with pytest.raises(ArchError) as caught:
        parse_file(path)
    (diagnostic,) = caught.value.diagnostics
    return diagnostic


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_marks_and_line_ends_of_every_system(tmp_path: Path, start: bytes, end: bytes) -> None:
    path = tmp_path / "a.arch"
    path.write_bytes(start + b"let a = 1" + end + b" let b = 2 # note" + end)
    program = parse_file(path)
    assert [item.name for item in program.items] == ["a", "b"]  # type: ignore[union-attr]
    assert program.comments[0].text == "note"
    assert program.items[1].span.line == (2 if end else 1)


def test_a_mark_in_a_text_is_no_character() -> None:
    assert parse("\ufefflet a = 1").items[0].span.column == 1


def test_a_byte_that_is_not_utf8_is_located(tmp_path: Path) -> None:
    path = tmp_path / "a.arch"
    path.write_bytes("let é = 1\nlet b".encode() + b"\xff = 2")
    diagnostic = file_refusal(path)
    assert diagnostic.id == "bad-utf8"
    assert diagnostic.span
    assert (diagnostic.span.line, diagnostic.span.column) == (2, 6)
    assert "0xff" in diagnostic.message


def test_utf16_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "a.arch"
    path.write_bytes("let a = 1".encode("utf-16"))
    assert "UTF-16" in file_refusal(path).label


def test_missing_file(tmp_path: Path) -> None:
    assert file_refusal(tmp_path / "a.arch").id == "missing-file"
    assert file_refusal(tmp_path / "a" / "b.arch").id == "missing-file"


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert file_refusal(tmp_path).id == "not-a-file"


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_impossible_paths_are_unreadable(name: str) -> None:
    assert file_refusal(Path(name)).id == "unreadable-file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.arch"
    path.write_text("let a = 1")
    path.chmod(0)
    assert file_refusal(path).id == "unreadable-file"


def test_large_files_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.arch"
    path.write_bytes(b"#" * ((1 << 20) + 1))
    diagnostic = file_refusal(path)
    assert diagnostic.id == "file-too-large"
    assert diagnostic.span
    path.write_bytes(b"#" * (1 << 20))
    assert read_source(path).text.startswith("#")


def test_many_words_are_refused() -> None:
    assert refusal("let a = 1\n" * 10_000).id == "file-too-large"


@pytest.mark.parametrize(
    "char", ["\0", "\x07", "\x1b", "\x7f", "\x85", "\u202e", "\u2066", "\u2028", "\ud800", "\r"]
)
@pytest.mark.parametrize("form", ["let a{} = 1", "let a = 1 # {}!", 'use "{}"'])
def test_unprintable_characters_are_refused_everywhere(char: str, form: str) -> None:
    diagnostic = refusal(form.format(char))
    assert diagnostic.id == "control-character"
    assert diagnostic.span
    assert diagnostic.span.text == char


def test_every_unprintable_character_is_named_up_to_ten() -> None:
    with pytest.raises(ArchError) as caught:
        parse("\0" * 3)
    assert len(caught.value.diagnostics) == 3
    with pytest.raises(ArchError) as caught:
        parse("\0" * 30)
    assert len(caught.value.diagnostics) == 10


def test_harmless_characters_are_welcome_in_comments_and_texts() -> None:
    program = parse('use "größe/注意 ✨👩‍🔬.arch" as a  # naïve\t✓ 👩‍🔬')
    [use] = program.items
    assert isinstance(use, Use)
    assert (use.path, use.alias) == ("größe/注意 ✨👩‍🔬.arch", "a")


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("f(", ")"),
        ("(", ")"),
        ("[", "]"),
        ("f(a = ", ")"),
        ("(1 + ", ")"),
        ("f { ", " }"),
        ("-(", ")"),
    ],
)
def test_nesting_is_limited(opening: str, closing: str) -> None:
    def nested(depth: int) -> str:
        return f"let x = {opening * depth}x{closing * depth}"

    assert parse(nested(30))
    for depth in (101, 5000, 100_000):
        assert refusal(nested(depth)).id == "nested-too-deeply"
        assert refusal(f"let x = {opening * depth}").id == "nested-too-deeply"


def test_brackets_in_texts_and_comments_do_not_nest() -> None:
    assert parse(f'use "{"(" * 200}"\n# {"{" * 200}')


@pytest.mark.parametrize("text", ["1 + " * 101 + "1", "-" * 101 + "1", "8 / " * 101 + "2"])
def test_chains_of_operators_are_limited(text: str) -> None:
    assert refusal(f"let x = {text}").id == "nested-too-deeply"


def test_chains_of_operators_in_brackets_are_limited_together() -> None:
    text = "x"
    for _ in range(4):
        text = f"({text}" + " + 1" * 40 + ")"
    assert refusal(f"let x = {text}").id == "nested-too-deeply"
