"""Wrong, absurd and enormous texts, made from right ones. Each is a function of its seed alone."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

WIDE = """\
# Everything the language has, in one file.
use "std/gla" as library

let width  = 64 | 96 .. 192 by 32
let heads  = 2 | 4
let memory = gla | gated_deltanet | mamba2 | hgrn2 | (retnet | linear_attention)
let expand = 2 | 8/3 | 4
let rate   = 1e-4 .. 1e-2 log
let small  = 3 * (width / 4) - 8

def block(mixer, norm = rms_norm) {
    residual { norm  mixer }
    residual(scale = learned | 1/2) {
        rms_norm
        swiglu(expand = expand) | mlp(activation = gelu | relu2)
        linear(dim = small)
        linear(dim = width)
    }
}

def my_gru(width = none) = cell(state = [h], output = h, width = width) {
    z = sigmoid(linear(x, h))
    r = sigmoid(linear(x, h))
    c = tanh(linear(x) + r * linear(h))
    h = z * h + (1 - z) * (c | -c)
}

def point(p = 4) = miras(
    memory = matrix(heads = p) | vector(expand = 1),
    bias = dot, retention = none | decay(per = head | channel), conv = 4 | none, gate = silu | none)

model {
    embed(dim = width, position = none | learned | sinusoidal)
    stack(depth = 4 .. 12 by 4, ratio = 1:1 | 3:1, place = last | even) {
        linear: block(memory(heads = heads, conv = 4))
        full: block((attention(position = rope | alibi) | attention(window = 8))(heads = heads))
    }
    stack(depth = 4, at = [1, 3]) { a: block(my_gru)  b: block(each(point(4) | library.gla(4))) }
    stack(depth = 4, cycle = [a, a, b]) { a: block(min_gru) b: block(conv(kernel = 3)) }
    stack(depth = 4, pattern = "LLLA") { linear: block(hgrn) attention: block(attention(heads = 4)) }
    repeat(2 .. 6) { residual { rms_norm  each(gru | lstm | none) } }
    parallel(mix = sum | gate) { retnet(heads = 2)  attention(heads = 2, kv_heads = 1) }
    rms_norm | layer_norm
    lm_head(tied = true)
}

require params <= 4M
require state_bytes(length = 4096) / 2 <= 900KiB
require flops(length = 256, mode = decode) + 1 >= params / 100

task recall = mqar(vocab = 512, length = 256, pairs = 16 | 32)
task words  = text(length = 128)

train { batch = 16 | 32  learning_rate = rate  schedule = cosine | linear }

search {
    trials  = 20
    sampler = tpe
    rank    = hidden_covariance
    promote = 1/8
    rungs   = [100, 400]
    maximize recall.accuracy
    minimize words.bits_per_byte
    minimize state_bytes(length = 4096)
}
"""

DESIGN = """\
let width  = 128
let heads  = 4
let memory = gla | gated_deltanet | mamba2 | hgrn2        # one draw for the whole stack
let expand = 2 | 8/3 | 4

def block(mixer) {
    residual { rms_norm  mixer }
    residual { rms_norm  swiglu(expand = expand) }
}

model {
    embed(dim = width)
    stack(depth = 8, ratio = 1:1 | 3:1 | 7:1) {
        linear: block(memory(heads = heads, conv = 4))
        full:   block(attention(heads = heads, position = rope))
    }
    rms_norm
    lm_head(tied = true)
}

require params <= 4M
task recall = mqar(vocab = 512, length = 256, pairs = 16)
search { maximize recall.accuracy  minimize params }
"""

TOKEN = re.compile(r'"[^"\n]*"|#[^\n]*|\d[\w.]*(?::\d+)*|\w+|\.\.|[<>=!]=|\s+|.', re.DOTALL)
NUMBER = re.compile(r"\d")
HUGE = re.split(
    " ",
    "0 1 -1 2 3 7 10000 10001 65536 1000000000 2147483647 2147483648 99999999999999999999999999999 1/0 "
    "0/1 1/3 1e300 1e-300 4T 999GiB 0.1 1e9 -5 (2*3) none true 3:1 0:0 1000000:1 0.0000001 1..1000000",
)
WORDS = re.split(
    " ",
    "use let def model require task train search maximize minimize by log as true false none each gla "
    "attention residual stack repeat parallel cell miras matrix vector dot l2 decay gd embed lm_head "
    "rms_norm swiglu heads dim depth ratio times scale h x linear params state_bytes recall.accuracy "
    '( ) { } [ ] = | .. + - * / , : . <= == " #',
)
STRANGE = "\0\x07\x1b\r\u202e\u2028\ufeff\u00a0é中✨٣𝔸\ud800\u0301"

Change = Callable[[random.Random, list[str]], list[str]]


@cache
def corpus() -> tuple[str, ...]:
    """The texts that are changed: every spec of the repository, the standard library, our own."""
    files = [
        *sorted((ROOT / "specs").rglob("*.arch")),
        *sorted((ROOT / "archdsl/blocks/std").glob("*.arch")),
    ]
    specs = [path.read_text(encoding="utf-8") for path in files]
    return (*[WIDE] * 6, *[DESIGN] * 4, *specs)


@cache
def pool() -> tuple[str, ...]:
    """Every word of the corpus."""
    found = {token for text in corpus() for token in TOKEN.findall(text) if not token.isspace()}
    return tuple(sorted(found))


def _at(chance: random.Random, tokens: list[str]) -> int:
    return chance.randrange(len(tokens) + 1)


def delete(chance: random.Random, tokens: list[str]) -> list[str]:
    at = _at(chance, tokens)
    return tokens[:at] + tokens[at + chance.choice([1, 1, 1, 2, 5, 40]) :]


def insert(chance: random.Random, tokens: list[str]) -> list[str]:
    at = _at(chance, tokens)
    word = chance.choice(pool()) if chance.random() < 0.6 else chance.choice(WORDS)
    return [*tokens[:at], " ", word, " ", *tokens[at:]]


def replace(chance: random.Random, tokens: list[str]) -> list[str]:
    at = _at(chance, tokens)
    return [*tokens[:at], chance.choice(pool()), *tokens[at + 1 :]]


def rename(chance: random.Random, tokens: list[str]) -> list[str]:
    """A name becomes another name of the file: wrong kinds, wrong places, recursion."""
    names = [i for i, token in enumerate(tokens) if token[0].isalpha()]
    if len(names) < 2:
        return tokens
    at, other = chance.choice(names), chance.choice(names)
    return [*tokens[:at], tokens[other], *tokens[at + 1 :]]


def double(chance: random.Random, tokens: list[str]) -> list[str]:
    at, end = sorted((_at(chance, tokens), _at(chance, tokens)))
    return (tokens[:end] + tokens[at:end] + tokens[end:])[:20_000]


def swap(chance: random.Random, tokens: list[str]) -> list[str]:
    a, b, c = sorted(_at(chance, tokens) for _ in range(3))
    return tokens[:a] + tokens[b:c] + tokens[a:b] + tokens[c:]


def cut(chance: random.Random, tokens: list[str]) -> list[str]:
    return tokens[: _at(chance, tokens)]


def other_number(chance: random.Random, tokens: list[str]) -> list[str]:
    places = [i for i, token in enumerate(tokens) if NUMBER.match(token)]
    if not places:
        return tokens
    at = chance.choice(places)
    return [*tokens[:at], chance.choice(HUGE), *tokens[at + 1 :]]


def more_choices(chance: random.Random, tokens: list[str]) -> list[str]:
    """A value or a component becomes a choice of many."""
    places = [i for i, token in enumerate(tokens) if token[0].isalnum()]
    if not places:
        return tokens
    at = chance.choice(places)
    others = [
        tokens[at],
        *(chance.choice([tokens[at], *pool()]) for _ in range(chance.choice([1, 1, 2, 9, 60]))),
    ]
    inside = " | ".join(others)
    head = chance.choice(["(", "each(", "(each(", "("])
    return [*tokens[:at], head, inside, ")" * head.count("("), *tokens[at + 1 :]]


def nest(chance: random.Random, tokens: list[str]) -> list[str]:
    opening, closing = chance.choice(
        [
            ("(", ")"),
            ("residual { ", " }"),
            ("repeat(9) { ", " }"),
            ("[", "]"),
            ("each(", ")"),
            ("block(", ")"),
            ("parallel { gla ", " }"),
            ("1 + (", ")"),
            ("-", ""),
            ("(gla | ", ")"),
        ]
    )
    times = chance.choice([1, 2, 5, 20, 49, 99, 100, 3000])
    at = _at(chance, tokens)
    return [*tokens[:at], opening * times, *tokens[at : at + 1], closing * times, *tokens[at + 1 :]]


def strange(chance: random.Random, tokens: list[str]) -> list[str]:
    at = _at(chance, tokens)
    return [*tokens[:at], chance.choice(STRANGE), *tokens[at:]]


def other_item(chance: random.Random, tokens: list[str]) -> list[str]:
    """One more item, before or behind all others."""
    return chance.choice([lambda i: [*tokens, "\n", i], lambda i: [i, "\n", *tokens]])(
        chance.choice(ITEMS)
    )


ITEMS = [
    "def block(mixer) { block(mixer) }",
    "def a = b  def b = a",
    "let width = width",
    "let heads = 4 / (2 - 2)",
    "let memory = memory | gla",
    "def f(x = f) = x",
    'use "/etc/passwd"',
    'use "../x"',
    'use "std/../../x"',
    'use "input"',
    'use "input.arch" as me',
    'use ""',
    'use "std/gla"',
    'use "std/nothing" as n',
    "require params <= 1",
    "require params / 0 <= 1",
    "require latency <= 1",
    "require recall.accuracy > 0",
    "model { }",
    "model { embed(dim = 8) lm_head }",
    "search { }",
    "search { trials = 0 }",
    "train { seed = each(1|2) }",
    "task recall = recall",
    "task t = mqar",
    "let block = 3",
    "def rms_norm = layer_norm",
    "def gla(heads = 4) = gla(heads)",
    "require state_bytes(length = 1000000000000) <= 1",
    "require 1 <= 2",
    "require params <= params",
    "let q = 9999999999999999999999999999 * 9999999999999999999999999999",
]

CHANGES: tuple[Change, ...] = (
    *[delete] * 3,
    *[insert] * 2,
    *[replace] * 3,
    *[rename] * 6,
    double,
    swap,
    cut,
    *[other_number] * 5,
    *[more_choices] * 4,
    nest,
    strange,
    *[other_item] * 2,
)


def mutated(chance: random.Random) -> str:
    """A text of the corpus with a few changes."""
    tokens = TOKEN.findall(chance.choice(corpus()))
    for _ in range(chance.choice([1, 1, 1, 2, 2, 3, 8])):
        tokens = TOKEN.findall("".join(chance.choice(CHANGES)(chance, tokens))[:100_000])
    return "".join(tokens)


def soup(chance: random.Random) -> str:
    """Words in any order."""
    words = [*pool(), *WORDS, *HUGE]
    return " ".join(chance.choices(words, k=chance.choice([3, 10, 100, 1000])))


def any_bytes(chance: random.Random) -> bytes:
    """Bytes that need not be text, or a text with a few of them wrong."""
    if chance.random() < 0.5:
        return chance.randbytes(chance.choice([0, 1, 10, 100, 5000]))
    data = bytearray(chance.choice(corpus()).encode())
    for _ in range(chance.choice([1, 3, 30])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def halves(chance: random.Random) -> str:
    """The begin of one file and the end of another."""
    one, two = chance.choice(corpus()), chance.choice(corpus())
    return one[: chance.randrange(len(one) + 1)] + two[chance.randrange(len(two) + 1) :]


def doubling(chance: random.Random) -> str:
    """Definitions that use the one before twice: short to write, enormous to write out."""
    depth = chance.choice([3, 10, 25, 60, 300])
    first, link = chance.choice(
        [
            ("let a0 = 2", "let a{n} = a{m} * a{m}"),
            ("let a0 = 2", "let a{n} = a{m} + a{m}"),
            ("let a0 = 2 | 4", "let a{n} = a{m} | a{m}"),
            ("let a0 = 2 | 4", "let a{n} = (a{m} + 1) | (a{m} * 2)"),
            ("let a0 = rms_norm | layer_norm", "let a{n} = (a{m} | a{m} | residual {{ a{m} }})"),
            ("let a0 = [1, 2]", "let a{n} = [a{m}, a{m}]"),
            ("def a0 { rms_norm }", "def a{n} {{ a{m}  a{m} }}"),
            ("def a0 { rms_norm | layer_norm }", "def a{n} {{ a{m}  a{m} }}"),
            ("def a0 { rms_norm | layer_norm }", "def a{n} {{ each(a{m} | a{m})  none }}"),
            (
                "def a0(x = 8) = mlp(expand = x)",
                "def a{n}(x = 8 | 4) = a{m}(x = x) | a{m}(x = x + 1)",
            ),
            ("def a0 { rms_norm }", "def a{n} {{ repeat(1000) {{ a{m} }} }}"),
            (
                "def a0 { residual { rms_norm gla | retnet } }",
                "def a{n} {{ repeat(10) {{ each(a{m} | none) }} }}",
            ),
            ("def a0 { rms_norm }", "def a{n} {{ residual {{ parallel {{ a{m} a{m} }} }} }}"),
        ]
    )
    links = [link.format(n=n, m=n - 1) for n in range(1, depth)]
    end = f"a{depth - 1}"
    use = end if "def" in first or "norm" in first else f"mlp(expand = {end})"
    return "\n".join([first, *links, f"model {{ embed(dim = 8, vocab = 8) {use} lm_head }}"])


def enormous(chance: random.Random) -> str:
    """Small texts that ask for much."""
    number = chance.choice(
        ["1000000000", "10000", "10001", "1000000000000000000000", "2147483647", "300"]
    )
    body = chance.choice(
        [
            "rms_norm",
            "residual { rms_norm gla(heads = 2) }",
            "each(gla | retnet)(heads = 2)",
            "residual { mlp(expand = each(1 .. 100)) }",
            "none",
            f"repeat({number}) {{ rms_norm }}",
        ]
    )
    model = chance.choice(
        [
            "repeat({n}) {{ {b} }}",
            "stack(depth = {n}) {{ {b} }}",
            "stack(depth = {n}, ratio = {n}:1) {{ a: {b} b: rms_norm }}",
            'stack(depth = {n} | 4, pattern = "AB", place = even) {{ a: {b} b: rms_norm }}',
            "repeat(1 .. {n}) {{ {b} }}",
            "repeat({n} | 2) {{ repeat({n}) {{ repeat({n}) {{ {b} }} }} }}",
            "linear(dim = {n}) {b}",
            "gla(heads = {n}) {b}",
            "mlp(expand = 1 .. {n}) {b}",
            "conv(kernel = {n}) {b}",
            "attention(heads = 1 .. {n}) {b}",
        ]
    ).format(n=number, b=body)
    asked = chance.choice(
        [
            "",
            "require params <= 1",
            f"require flops(length = {number}) <= {number}",
            f"task t = mqar(vocab = {number}, length = {number}, pairs = {number})",
        ]
    )
    dim = chance.choice(["8", "64", number])
    return f"model {{ embed(dim = {dim}, vocab = 16) {model} lm_head }}\n{asked}"


def small(chance: random.Random) -> str:
    """A whole small file of random parts: what is accepted more often."""
    layer = chance.choice(
        ["gla", "retnet", "attention", "mamba2", "hgrn2", "deltanet", "kda", "gated_deltanet"]
    )
    heads = chance.choice(["2", "4", "2 | 4", "1 .. 8", "3", "heads"])
    dim = chance.choice(["64", "64 | 96", "32 .. 128 by 32", "48"])
    kind = chance.choice(["repeat(3)", "repeat(2 | 3)", "residual", "stack(depth = 4)", "parallel"])
    norm = chance.choice(
        ["rms_norm", "layer_norm", "none", "rms_norm | none", "each(rms_norm | layer_norm)"]
    )
    mixer = chance.choice(
        ["{l}(heads = {h})", "{l}", "each({l})(heads = {h})", "({l} | gla)(heads = {h})"]
    )
    inner = f"{norm} {mixer.format(l=layer, h=heads)}"
    return (
        f"let heads = 1 | 2 | 4\nmodel {{ embed(dim = {dim}, vocab = 64) {kind} {{ residual {{ {inner} }} }}"
        f" {norm} lm_head(tied = true) }}\nrequire params <= {chance.choice(['1M', '50K', '10'])}"
    )


SOURCES: tuple[Callable[[random.Random], str | bytes], ...] = (
    *[mutated] * 24,
    *[soup] * 3,
    *[any_bytes] * 3,
    *[halves] * 2,
    *[doubling] * 2,
    *[enormous] * 3,
    *[small] * 4,
)


def text(seed: int, index: int) -> tuple[str, bytes]:
    """Input number ``index``: the name of what made it, and its bytes."""
    chance = random.Random(f"{seed}:{index}")
    source = chance.choice(SOURCES)
    made = source(chance)
    data = made if isinstance(made, bytes) else made.encode("utf-8", errors="surrogatepass")
    return source.__name__, data
