"""Commands about spaces, costs, graphs, models and searches."""

import json
from types import SimpleNamespace

import pytest
from commands import CLOSED, NEAT, SPACE, failed, run, succeeded

import archdsl

# --- spaces ---------------------------------------------------------------------------------------


def test_count(files):
    assert succeeded("count", "space.arch").stdout.splitlines()[0] == "4 architectures"
    table = succeeded("count", "space.arch").stdout.splitlines()[1:]
    assert table[0].split() == ["choice", "alternatives", "what"]
    assert any(line.split() == ["heads", "2", "2", "|", "4"] for line in table)
    assert succeeded("count", "closed.arch").stdout == "1 architecture\n"


def test_count_of_a_large_space_has_separators(files):
    (files / "large.arch").write_text(
        "model { embed(dim = 8, vocab = 8) repeat(12) { each(rms_norm | layer_norm) } lm_head }"
    )
    assert succeeded("count", "large.arch").stdout.startswith("4,096 architectures\n")


def test_count_of_a_range_shows_both_ends(files):
    (files / "range.arch").write_text("model { embed(dim = 8 .. 800 by 8, vocab = 8) lm_head }")
    assert "8 | 16 | 24 | … | 800" in succeeded("count", "range.arch").stdout


def test_sample_is_closed_and_repeatable(files):
    one = succeeded("sample", "space.arch", "--seed", "3").stdout
    assert one == succeeded("sample", "space.arch", "--seed", "3").stdout
    assert archdsl.loads(one).count() == 1
    assert succeeded("fmt", "-", stdin=one).stdout


def test_sample_several(files):
    several = succeeded("sample", "space.arch", "-n", "3", "--seed", "7").stdout
    assert "# sample 3 of 3: seed 9\n" in several
    result = succeeded("sample", "space.arch", "-n", "2", "--out", "drawn")
    assert result.stdout.split() == ["drawn/space-0.arch", "drawn/space-1.arch"]
    assert "2 files checked" in succeeded("check", "drawn").stdout


def test_sample_of_a_space_where_nothing_fits(files):
    (files / "none.arch").write_text(CLOSED + "require params <= 10\n")
    assert "nothing-feasible" in failed("sample", "none.arch").stderr


def test_a_mistake_in_the_file_is_shown_by_every_command(files):
    for command in ("count", "sample", "cost", "show", "compile"):
        assert "wrong.arch:" in failed(command, "wrong.arch").stderr


# --- cost -----------------------------------------------------------------------------------------


def test_cost_of_one_architecture(files):
    figures = json.loads(succeeded("cost", "closed.arch", "--format", "json").stdout)
    cost = archdsl.load("closed.arch").sample(0).cost
    assert figures["params"] == cost.params
    assert figures["state_bytes"] == cost.state_bytes(1024)
    shown = succeeded("cost", "closed.arch", "--length", "2048", "--dtype", "bfloat16").stdout
    assert shown.startswith("length 2,048, batch 1, bfloat16")
    assert f"{cost.params:,}" in shown


def test_cost_at_a_number_of_iterations(files):
    looped = CLOSED.replace("repeat(2)", "loop(2)")
    (files / "loop.arch").write_text(looped)
    two, eight = (
        json.loads(succeeded("cost", "loop.arch", *given, "--format", "json").stdout)
        for given in ((), ("--times", "8"))
    )
    assert eight["params"] == two["params"]
    assert eight["state_bytes"] == 4 * two["state_bytes"]


def test_cost_of_a_space(files):
    (files / "some.arch").write_text(SPACE + "require params <= 30K\n")
    found = json.loads(succeeded("cost", "some.arch", "--format", "json").stdout)
    assert found["count"] == found["drawn"] == 4
    spread = found["figures"]["params"]
    assert spread["min"] <= spread["median"] <= spread["max"]
    shown = succeeded("cost", "space.arch").stdout.splitlines()
    assert shown[0] == "all 4 architectures; 4 of them keep the constraints"
    assert shown[1].split()[-3:] == ["min", "median", "max"]


# --- show -----------------------------------------------------------------------------------------


def test_show_draws_a_tree(files):
    tree = succeeded("show", "closed.arch").stdout
    params = archdsl.load("closed.arch").sample(0).cost.params
    assert tree.startswith(f"model {params:,} parameters  ")
    assert "├── embed  256 tokens → 32  8,192 parameters\n" in tree
    assert "each × 2 (layers 0–1)" in tree
    assert "this is gated linear attention (GLA, HGRN2)" in tree
    assert "so family `decay`" in tree


@pytest.mark.parametrize("stage", ["lower", "recognise", "merge", "fuse", "kernels"])
@pytest.mark.parametrize(
    ("form", "begin"),
    [("tree", ""), ("text", "embed = "), ("mermaid", "flowchart TD"), ("dot", "digraph")],
)
def test_show_every_stage_in_every_form(files, stage, form, begin):
    assert succeeded("show", "closed.arch", "--stage", stage, "--as", form).stdout.startswith(begin)


def test_show_kernels_and_reasons(files):
    shown = succeeded("show", "closed.arch", "--stage", "kernels").stdout
    assert "repeat.residual.gla.memory\n    decay: chunk-parallel" in shown


def test_show_of_a_space(files):
    result = succeeded("show", "space.arch", "--seed", "1")
    assert result.stderr == "one of 4 architectures (--seed 1)\n"
    assert succeeded("show", "space.arch", "--stage", "space").stdout.startswith(
        "4 architectures\n"
    )
    assert succeeded("show", "space.arch", "--stage", "arch").stdout.startswith(("def ", "model {"))


def test_show_to_a_file(files):
    result = succeeded("show", "closed.arch", "--as", "mermaid", "--out", "picture.mmd")
    assert (result.stdout, result.stderr) == ("", "wrote picture.mmd\n")
    assert (files / "picture.mmd").read_text().startswith("flowchart TD")
    assert "cannot be written" in failed("show", "closed.arch", "--out", "no/where").stderr


def test_show_svg_without_graphviz_says_what_is_missing(files, monkeypatch):
    monkeypatch.setenv("PATH", str(files))
    assert (
        "needs the program `dot` of Graphviz" in failed("show", "closed.arch", "--as", "svg").stderr
    )


def test_show_svg_asks_graphviz(files, monkeypatch):
    program = files / "dot"
    program.write_text("#!/bin/sh\n/bin/cat >/dev/null\necho '<svg/>'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(files))
    assert succeeded("show", "closed.arch", "--as", "svg").stdout == "<svg/>\n"


# --- models ---------------------------------------------------------------------------------------


def test_compile_and_generate(files):
    result = succeeded("compile", "closed.arch", "--out", "model.safetensors")
    assert result.stdout.endswith("wrote model.safetensors\n")
    one = succeeded("generate", "model.safetensors", "--prompt", "Now ", "--count", "20").stdout
    assert one.startswith("Now ")
    assert (
        one
        == succeeded("generate", "model.safetensors", "--prompt", "Now ", "--count", "20").stdout
    )
    assert succeeded("generate", "model.safetensors", "--count", "5", "--temperature", "0").stdout
    assert "not-a-checkpoint" in failed("generate", "closed.arch").stderr
    assert "missing-file" in failed("generate", "nowhere").stderr


def test_generate_needs_a_model_of_bytes(files):
    (files / "small.arch").write_text(NEAT)
    succeeded("compile", "small.arch", "--out", "small.safetensors")
    assert "text needs one of 256 bytes" in failed("generate", "small.safetensors").stderr


def test_compile_on_a_device_that_is_not_there(files):
    assert "`xpu:7` cannot be used" in failed("compile", "neat.arch", "--device", "xpu:7").stderr
    assert (
        "`nonsense` cannot be used" in failed("compile", "neat.arch", "--device", "nonsense").stderr
    )


# --- search ---------------------------------------------------------------------------------------


@pytest.fixture
def searched(monkeypatch):
    import archdsl.search

    calls = []

    def search(spec, **settings):
        calls.append((spec, settings))
        return SimpleNamespace(exit_status=0)

    monkeypatch.setattr(archdsl.search, "run", search)
    return calls


def test_search_hands_everything_on(files, searched):
    succeeded(
        "search", "space.arch", "--data", "text.txt", "--trials", "3", "--out", "here", "--seed", "5",
        "--storage", "all.journal", "--study", "mine", "--device", "cpu", "--quiet", "--jobs", "2",
        "--lease", "30", "--enqueue", "known.arch",
    )  # fmt: skip
    [(spec, settings)] = searched
    assert str(spec) == "space.arch"
    assert {name: value if isinstance(value, int) else str(value) for name, value in settings.items()} == {
        "data": "text.txt", "trials": 3, "out": "here", "seed": 5, "storage": "all.journal",
        "study": "mine", "device": "cpu", "quiet": True, "jobs": 2, "lease": "30.0",
        "enqueue": "(PosixPath('known.arch'),)",
    }  # fmt: skip


@pytest.mark.parametrize("status", [0, 1, 130])
def test_search_gives_the_status_of_the_result(files, monkeypatch, status):
    import archdsl.search

    monkeypatch.setattr(archdsl.search, "run", lambda *_, **__: SimpleNamespace(exit_status=status))
    assert run("search", "space.arch").exit_code == status
