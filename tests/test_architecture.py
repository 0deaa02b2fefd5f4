"""The architecture as a test: imports, sizes, and the surface of the command line."""

import ast
import subprocess
import sys
from pathlib import Path

import click
import pytest

from archdsl.cli import cli

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "archdsl").rglob("*.py"), *(ROOT / "search").rglob("*.py")])
OURS = [path for path in SOURCES if ROOT / "archdsl" / "search" not in path.parents]

LONGEST_FILE = 500
LONGEST_FUNCTION = 80
LONGEST_KERNEL = 150

SURFACE = {
    "archdsl": {"--version", "--debug"},
    "check": {"files", "--format"},
    "fmt": {"files", "--check", "--diff"},
    "explain": {"id"},
    "components": {"name"},
    "count": {"file"},
    "sample": {"file", "-n", "--number", "--seed", "--out"},
    "cost": {"file", "--length", "--batch", "--dtype", "-n", "--number", "--seed", "--format", "--times"},
    "show": {"file", "--stage", "--as", "--seed", "--out"},
    "compile": {"file", "--out", "--dtype", "--device", "--seed"},
    "import": {"source", "-o", "--out"},
    "export": {"file", "--as", "--seed", "-o", "--out"},
    "bench": set(),
    "generate": {"checkpoint", "--prompt", "--count", "--temperature", "--top", "--seed"},
    "search": {
        "spec", "--data", "--trials", "--out", "--storage", "--seed", "--study", "--device", "--quiet",
        "--jobs", "--lease", "--enqueue",
    },
    "compare": {
        "spec", "--samplers", "--seeds", "--trials", "--score", "--lottery", "--out", "--jobs", "--quiet",
    },
    "validate": set(),
    "validate metrics": {"data", "--jobs", "--json", "--limit"},
    "verify": set(),
    "verify tasks": {"--tasks", "--jobs", "--json"},
}  # fmt: skip
"""Every command, its arguments and options: who changes what users type changes this too."""


def names(path):
    return str(path.relative_to(ROOT))


def surface(command):
    """The words a command understands."""
    options = [p for p in command.params if isinstance(p, click.Option)]
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    return {word for o in options for word in o.opts} | {str(a.name) for a in arguments}


def test_the_command_line_is_what_it_was():
    context = click.Context(cli)
    found = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    groups = {name: command for name, command in found.items() if isinstance(command, click.Group)}
    for name, group in groups.items():
        found |= {f"{name} {inner}": command for inner, command in group.commands.items()}
    assert {
        name: surface(command) for name, command in {"archdsl": cli, **found}.items()
    } == SURFACE


def test_every_command_says_what_it_does():
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command.help
        assert command.short_help


def modules_after(statement):
    """The modules that are loaded when a fresh process has run a statement."""
    code = f"import sys; sys.argv = ['archdsl']; {statement}; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    return set(ran.stdout.split())


def test_importing_archdsl_loads_nothing_heavy():
    loaded = modules_after("import archdsl")
    assert not loaded & {"torch", "triton", "optuna", "networkx", "pydantic", "lark", "numpy"}


READERS = (
    "archdsl.compiler.checking.checker",
    "archdsl.cli.check",
    "archdsl.cli.show",
    "archdsl.cli.search",
)


@pytest.mark.parametrize("module", READERS)
def test_what_reads_files_never_loads_torch(module):
    assert not modules_after(f"import {module}") & {"torch", "triton", "optuna"}


def test_checking_and_costing_a_file_never_loads_torch(tmp_path):
    spec = tmp_path / "a.arch"
    spec.write_text(
        "model { embed(dim = 8) residual { gla(heads = 2) } lm_head }\n"
        "task t = mqar\nsearch { sampler = tpe  rank = snip  maximize t.accuracy }\n"
    )
    loaded = modules_after(
        f"import archdsl; assert archdsl.check({str(spec)!r}) == [];"
        f" arch = archdsl.load({str(spec)!r}).sample(0); arch.cost.flops(); arch.text; arch.hash"
    )
    assert "archdsl.compiler.graphs.cost" in loaded
    assert not loaded & {"torch", "triton"}


@pytest.mark.parametrize("path", OURS, ids=names)
def test_files_and_functions_are_small(path):
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= LONGEST_FILE
    most = LONGEST_KERNEL if path.name.startswith("triton") else LONGEST_FUNCTION
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    assert [f.name for f in functions if f.end_lineno - f.lineno + 1 > most] == []


@pytest.mark.parametrize("path", OURS, ids=names)
def test_nothing_is_left_undone(path):
    text = path.read_text(encoding="utf-8")
    assert not [word for word in ("TODO", "FIXME", "XXX", "NotImplementedError(") if word in text]


def test_most_functions_are_short():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in OURS]
    functions = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    lengths = sorted(f.end_lineno - f.lineno + 1 for f in functions)
    assert lengths[len(lengths) // 2] <= 10
    assert lengths[len(lengths) * 95 // 100] <= 40
