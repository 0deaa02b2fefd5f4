"""Words of other languages, and what to type instead."""

from __future__ import annotations

from archdsl.diagnostics import Diagnostic, Span

SYNONYMS = {
    "include": "use",
    "require_file": "use",
    "var": "let",
    "val": "let",
    "const": "let",
    "set": "let",
    "param": "let",
    "choice": "let",
    "block": "def",
    "define": "def",
    "component": "def",
    "module": "def",
    "network": "model",
    "net": "model",
    "arch": "model",
    "architecture": "model",
    "assert": "require",
    "constraint": "require",
    "ensure": "require",
    "where": "require",
    "subject_to": "require",
    "dataset": "task",
    "goal": "task",
    "optimize": "search",
    "optimise": "search",
    "study": "search",
    "tune": "search",
    "training": "train",
    "fit": "train",
}
"""Other languages' words for our keywords."""

OBJECTIVES = {
    "maximise": "maximize",
    "minimise": "minimize",
    "max": "maximize",
    "min": "minimize",
    "objective": "maximize",
    "goal": "maximize",
}

CODE = {
    **dict.fromkeys(
        ("for", "while", "foreach"),
        "write `repeat(6) { … }` to repeat layers, `stack(depth = 6, …) { … }` to repeat kinds",
    ),
    **dict.fromkeys(
        ("if", "elif", "else", "switch", "case", "match", "when"),
        "write a choice, `a | b`, and let the search decide",
    ),
    **dict.fromkeys(
        ("lambda", "function", "func", "fn", "fun", "return", "class", "yield"),
        "write `def name(parameter) = …`",
    ),
    **dict.fromkeys(("import", "from"), 'write `use "path.arch" as name`'),
    **dict.fromkeys(("print", "del", "try", "raise", "with"), "delete it"),
}
"""Words of programming languages, and what to type instead."""

CODE_IN_BODIES = frozenset({"for", "while", "if", "elif", "else", "lambda", "return", "import"})
"""Those that are refused as layers too where something follows them on their line."""


def code_in_file(word: str, span: Span) -> Diagnostic:
    """The answer to a word of :data:`CODE`."""
    return Diagnostic(
        "code-in-file",
        f"the language runs no code: it has no `{word}`",
        span,
        help=CODE[word],
    )


def misplaced_item(word: str, span: Span) -> Diagnostic:
    """The answer to an item inside a body."""
    return Diagnostic(
        "misplaced-item",
        f"no `{word}` stands inside braces",
        span,
        label="is a `}` missing before it?",
        help="write it outside, on a line of its own",
    )
