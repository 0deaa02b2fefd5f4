"""Wrong texts by the thousand: none may end in anything but a tree or located diagnostics.

``python tests/grammar/fuzz_syntax.py --count 100000`` runs it for long.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from archdsl.console import render, to_json
from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.grammar.format import format_program
from archdsl.grammar.parse import parse
from archdsl.grammar.text import read_source

SLOWEST = 1.0
"""Seconds of a processor that the worst text may take."""

SPEC = """\
# Which linear memory, and how much full attention, does recall need?

use "std/memories" as memories

let width  = 128
let heads  = 4
let memory = gla | gated_deltanet | mamba2 | hgrn2        # one draw for the whole stack
let expand = 2 | 8/3 | 4
let rate   = 1e-4 .. 1e-2 log
let size   = 64 .. 512 by 64

def block(mixer, norm = rms_norm) {
    residual { norm  mixer }
    residual { rms_norm  swiglu(expand = expand) }
}

def gru(width) = cell(state = [h], output = h) {
    z = sigmoid(linear(x, h))
    c = tanh(linear(x) + r * linear(h))
    h = z * h + (1 - z) * c
}

model {
    embed(dim = width)
    stack(depth = 8, ratio = 1:1 | 3:1 | 7:1) {
        linear: block(memory(heads = heads, conv = 4))
        full:   (attention | each(memories.gla))(heads = heads, position = rope)
    }
    repeat(6) { rms_norm | none }
    lm_head(tied = true)
}

require params <= 4M
require state_bytes(length = 4096) <= 256KiB

task recall = mqar(vocab = 512, length = 256, pairs = 16)

train { steps = 200  schedule = none }

search {
    trials  = 200
    rungs   = [100, 400]
    maximize recall.accuracy
    minimize state_bytes(length = -4096)
}
"""

SIGNS = [*"(){}[]|=:,.;+-*/<>\"'#!%^&@$?~\\`\n\t \r\0\u202e\u00a0é中✨٣", "..", "==", "<=", "//"]
WORDS = [
    "use",
    "let",
    "def",
    "model",
    "require",
    "task",
    "train",
    "search",
    "maximize",
    "minimize",
    "by",
    "log",
    "as",
    "true",
    "false",
    "none",
    "and",
    "or",
    "not",
    "if",
    "for",
    "lambda",
    "import",
    "True",
    "None",
    "x",
    "gla",
    "heads",
    "1",
    "4M",
    "8/3",
    "3:1",
    "1e-3",
    "0x1",
    "4m",
    "1..8",
    "99999999999999999999999999999999999",
    "1e999999999",
    '"s"',
    "'q'",
]
PIECES = SPEC.replace("\n", " \n ").split(" ")


def _spot(random: random.Random, text: str) -> int:
    return random.randrange(len(text) + 1)


def delete(random: random.Random, text: str) -> str:
    at = _spot(random, text)
    return text[:at] + text[at + random.choice([1, 1, 2, 5, 30]) :]


def insert(random: random.Random, text: str) -> str:
    at = _spot(random, text)
    return text[:at] + random.choice([*SIGNS, *WORDS]) + text[at:]


def insert_word(random: random.Random, text: str) -> str:
    at = _spot(random, text)
    return f"{text[:at]} {random.choice(WORDS)} {text[at:]}"


def replace(random: random.Random, text: str) -> str:
    at = _spot(random, text)
    return text[:at] + random.choice(SIGNS) + text[at + 1 :]


def double(random: random.Random, text: str) -> str:
    at, end = sorted([_spot(random, text), _spot(random, text)])
    return text[:end] + text[at:end] + text[end:]


def cut(random: random.Random, text: str) -> str:
    return text[: _spot(random, text)]


def swap_lines(random: random.Random, text: str) -> str:
    lines = text.split("\n")
    a, b = random.randrange(len(lines)), random.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return "\n".join(lines)


MUTATIONS = (delete, insert, insert_word, replace, double, cut, swap_lines, delete, insert, replace)


def mutated(random: random.Random) -> str:
    """A spec with a few changes."""
    text = SPEC
    for _ in range(random.choice([1, 1, 2, 3, 10])):
        text = random.choice(MUTATIONS)(random, text)[:20_000]
    return text


def soup(random: random.Random) -> str:
    """Words and signs in any order."""
    count = random.choice([3, 10, 100, 1000])
    return random.choice(["", " "]).join(random.choices([*SIGNS, *WORDS, *PIECES], k=count))


def any_bytes(random: random.Random) -> str:
    """Bytes that need not be text."""
    return random.randbytes(random.choice([1, 10, 100, 2000])).decode("latin-1")


def deep(random: random.Random) -> str:
    """Brackets in brackets, closed or not."""
    depth = random.choice([50, 98, 99, 100, 101, 1000, 100_000])
    opening, closing = random.choice(
        [("f(", ")"), ("(", ")"), ("[", "]"), ("a { ", "}"), ("f(a = ", ")"), ("(1 + ", ")")]
    )
    inside = random.choice(["x", "", "1 | 2"])
    end = closing * random.choice([depth, depth - 1, 0])
    return random.choice(["let x = ", "model { ", ""]) + opening * depth + inside + end


def chain(random: random.Random) -> str:
    """One sign over and over."""
    link = random.choice(
        ["1 + ", "-", "a | ", "a.", "1:", "1 ..", "f()", "a b ", "let ", "1, ", '"']
    )
    return random.choice(["let x = ", "model { ", ""]) + link * random.choice([10, 101, 5000]) + "1"


def huge_number(random: random.Random) -> str:
    """Numbers that nobody should compute."""
    digits = "9" * random.choice([29, 30, 31, 10_000])
    form = random.choice(["{}", "0.{}", "1e{}", "{}:1", "{}M", "1.5e-{}", "repeat({}) {{ a }}"])
    return "let x = " + form.format(digits)


SOURCES: tuple[Callable[[random.Random], str], ...] = (
    *[mutated] * 12,
    *[soup] * 4,
    *[any_bytes] * 2,
    deep,
    chain,
    huge_number,
)


@dataclass
class Tally:
    """What came of the texts."""

    parsed: int = 0
    refused: int = 0
    slowest: float = 0.0
    slowest_text: str = ""
    ids: dict[str, int] = field(default_factory=dict)


def try_text(text: str) -> tuple[Diagnostic, ...]:
    """Parse a text; check that what comes of it is sound.

    Returns:
        its diagnostics; none where it parses.
    """
    try:
        program = parse(text)
    except ArchError as error:
        _check_diagnostics(error.diagnostics)
        return error.diagnostics
    layout = format_program(program)
    again = parse(layout)
    assert again == program
    assert sorted(c.text for c in again.comments) == sorted(c.text for c in program.comments)
    assert format_program(again) == layout
    return ()


def _check_diagnostics(diagnostics: tuple[Diagnostic, ...]) -> None:
    assert 1 <= len(diagnostics) <= 10
    for diagnostic in diagnostics:
        span = diagnostic.span
        assert span is not None
        assert 0 <= span.start <= span.end <= len(span.source.text)
    shown = render(diagnostics, color=True) + str(to_json(diagnostics))
    assert not any(char in shown for char in "\0\r\u202e")


def try_bytes(data: bytes, path: Path) -> bool:
    """Read bytes from a file; they decode or are refused at a place. Whether they decode."""
    path.write_bytes(data)
    try:
        read_source(path)
    except ArchError as error:
        _check_diagnostics(error.diagnostics)
        return False
    return True


def run(count: int, seed: int) -> Tally:
    """Try so many texts."""
    gc.collect()
    gc.freeze()  # what others left in this process is not walked through on a text's time
    chance = random.Random(seed)
    tally = Tally()
    for _ in range(count):
        text = chance.choice(SOURCES)(chance)
        start = time.process_time()
        try:
            diagnostics = try_text(text)
        except BaseException:
            print(f"this text: {text[:3000]!r}", file=sys.stderr)
            raise
        seconds = time.process_time() - start
        if seconds > tally.slowest:
            tally.slowest, tally.slowest_text = seconds, text
        tally.parsed += not diagnostics
        tally.refused += bool(diagnostics)
        for diagnostic in diagnostics:
            tally.ids[diagnostic.id] = tally.ids.get(diagnostic.id, 0) + 1
    gc.unfreeze()
    return tally


def main() -> None:
    """Try texts and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tally = run(options.count, options.seed)
    print(f"{tally.parsed:,} parsed, {tally.refused:,} refused, slowest {tally.slowest:.3f} s")
    print(f"slowest: {tally.slowest_text[:200]!r}")
    for name, number in sorted(tally.ids.items(), key=lambda pair: -pair[1]):
        print(f"{number:8,} {name}")
    assert tally.slowest < SLOWEST


if __name__ == "__main__":
    main()
