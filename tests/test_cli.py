"""Every command as a user calls it: what it prints, where, and the exit status."""

import json
import os
import pty
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import archdsl
from archdsl.cli import cli
from archdsl.diagnostics import ArchError, Diagnostic

SPACE = """\
let heads = 2 | 4
let mixer = gla | retnet

model {
    embed(dim = 32)
    repeat(2) {
        residual { rms_norm  mixer(heads = heads) }
        residual { rms_norm  swiglu(expand = 2) }
    }
    rms_norm
    lm_head(tied = true)
}

task language = text(length = 32)
"""

CLOSED = SPACE.replace("2 | 4", "2").replace("gla | retnet", "gla")

WRONG = "model { embed(dim = 32, vocab = 8)  gla(head = 4)  lm_head }\nlet x = \n"

UGLY = "model{embed(dim=32,vocab=8)  lm_head}\n"

NEAT = "model {\n    embed(dim = 32, vocab = 8)\n    lm_head\n}\n"


@pytest.fixture(autouse=True)
def _plain(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files(tmp_path):
    texts = {"space": SPACE, "closed": CLOSED, "wrong": WRONG, "ugly": UGLY, "neat": NEAT}
    for name, text in texts.items():
        (tmp_path / f"{name}.arch").write_text(text)
    return tmp_path


def run(*arguments, stdin=None):
    return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin, prog_name="archdsl")


def succeeded(*arguments, stdin=None):
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result


def failed(*arguments, stdin=None, status=1):
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result


# --- check ----------------------------------------------------------------------------------------


def test_check_of_right_files(files):
    assert succeeded("check", "space.arch").stdout == "1 file checked, no errors\n"
    assert succeeded("check", "space.arch", "closed.arch", "space.arch").stdout.startswith(
        "2 files"
    )


def test_check_names_several_mistakes_of_several_files(files):
    (files / "other.arch").write_text("model { embed(dim = 8, vocab = 8)  rmsnorm  lm_head }\n")
    (files / "wrong.arch").write_text(
        "model { embed(dim = 32, vocab = 8)  gla(head = 4)  lm_heat }\n"
    )
    lines = failed("check", "wrong.arch", "other.arch", "--format", "concise").stdout.splitlines()
    assert [line.split(" error")[0] for line in lines] == [
        "wrong.arch:1:41:",
        "wrong.arch:1:52:",
        "other.arch:1:36:",
    ]
    assert lines[0].endswith("error[unknown-parameter] `gla` has no parameter `head`")


def test_check_points_at_the_place(files):
    (files / "one.arch").write_text(
        "model { embed(dim = 32, vocab = 8)  gla(head = 4)  lm_head }\n"
    )
    assert failed("check", "one.arch").stdout == (
        "error[unknown-parameter]: `gla` has no parameter `head`\n"
        " --> one.arch:1:41\n"
        "  |\n"
        "1 | model { embed(dim = 32, vocab = 8)  gla(head = 4)  lm_head }\n"
        "  |                                         ^^^^ did you mean `heads`?\n"
        "  |\n"
        "help: parameters of `gla`: heads, expand_k, expand_v, conv, gate, rank\n"
        "\n"
        "1 error\n"
    )


def test_check_as_data(files):
    found = json.loads(failed("check", "wrong.arch", "--format", "json").stdout)
    assert found[0]["path"] == "wrong.arch"
    assert found[0]["severity"] == "error"
    assert found[0]["line"] >= 1
    assert json.loads(succeeded("check", "closed.arch", "--format", "json").stdout) == []


def test_check_shows_warnings_and_succeeds(files):
    text = "model { embed(dim = 8, vocab = 8) stack(depth = 5, ratio = 1:1) { a: rms_norm b: mlp } lm_head }"
    (files / "ragged.arch").write_text(text)
    result = succeeded("check", "ragged.arch")
    assert "warning[ragged-order]" in result.stdout
    assert result.stdout.endswith("1 warning\n")


def test_check_of_a_folder_takes_every_file_below_it(files):
    inner = files / "more" / "deep"
    inner.mkdir(parents=True)
    (inner / "a.arch").write_text(CLOSED)
    (inner / "notes.txt").write_text("not a spec")
    assert succeeded("check", "more").stdout.startswith("1 file ")
    (files / "empty").mkdir()
    assert failed("check", "empty").stderr == "error: there is no .arch file in `empty`\n"


def test_check_of_standard_input(files):
    assert "1 file checked" in succeeded("check", "-", stdin=CLOSED).stdout
    assert "<stdin>:1:41" in failed("check", "-", stdin=WRONG.splitlines()[0]).stdout


def test_check_of_bytes_that_are_not_text(files):
    (files / "bytes.arch").write_bytes(b"model { \xff }")
    assert (
        "bytes.arch:1:9: error[bad-utf8]"
        in failed("check", "bytes.arch", "--format", "concise").stdout
    )
    told = failed("check", "-", "--format", "concise", stdin=b"model { \xff }").stdout
    assert told.startswith("<stdin>:1:9: error[bad-utf8]")


def test_check_of_a_file_that_is_not_there(files):
    assert "missing-file" in failed("check", "nowhere.arch").stdout


@pytest.mark.parametrize(
    "arguments",
    [["check"], ["check", "x.arch", "--format", "xml"], ["chek", "x"], ["--nothing"], ["count"],
     ["sample", "x", "-n", "many"], ["cost", "x", "--length", "0"], ["show", "x", "--stage", "no"]],
)  # fmt: skip
def test_wrong_usage_is_status_2(arguments):
    assert "Error" in failed(*arguments, status=2).stderr


def test_a_misspelt_command_is_recognised():
    assert "did you mean `check`?" in failed("chek", status=2).stderr


# --- fmt ------------------------------------------------------------------------------------------


def test_fmt_writes_in_place_and_keeps_the_mode(files):
    path = files / "ugly.arch"
    path.chmod(0o640)
    result = succeeded("fmt", "ugly.arch", "neat.arch")
    assert result.stdout == "changed ugly.arch\n1 file changed, 1 file left as they are\n"
    assert path.read_text() == NEAT
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not [p for p in files.iterdir() if p.name.startswith(".")]
    assert "0 files changed" in succeeded("fmt", "ugly.arch").stdout


def test_fmt_follows_a_link(files):
    (files / "link.arch").symlink_to("ugly.arch")
    succeeded("fmt", "link.arch")
    assert (files / "link.arch").is_symlink()
    assert (files / "ugly.arch").read_text() != UGLY


def test_fmt_check_lists_and_changes_nothing(files):
    result = failed("fmt", "--check", "ugly.arch", "neat.arch")
    assert result.stdout.startswith("would change ugly.arch\n")
    assert (files / "ugly.arch").read_text() == UGLY
    succeeded("fmt", "ugly.arch")
    succeeded("fmt", "--check", "ugly.arch")


def test_fmt_diff_prints_a_patch(files):
    result = failed("fmt", "--diff", "ugly.arch")
    assert result.stdout.startswith("--- ugly.arch\n+++ ugly.arch\n@@ ")
    assert "-model{embed(dim=32,vocab=8)  lm_head}\n" in result.stdout
    assert (files / "ugly.arch").read_text() == UGLY


def test_fmt_of_a_stream(files):
    once = succeeded("fmt", "-", stdin=UGLY).stdout
    assert succeeded("fmt", "-", stdin=once).stdout == once
    assert failed("fmt", "-", stdin="model {").stdout == ""


def test_fmt_leaves_a_broken_file_alone(files):
    result = failed("fmt", "wrong.arch", "ugly.arch")
    assert (files / "wrong.arch").read_text() == WRONG
    assert (files / "ugly.arch").read_text() != UGLY
    assert "wrong.arch:" in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_fmt_in_a_folder_that_cannot_be_written(files):
    files.chmod(0o555)
    try:
        assert "cannot be written" in failed("fmt", "ugly.arch").stderr
    finally:
        files.chmod(0o755)


# --- explain and components -----------------------------------------------------------------------


def test_explain_lists_and_explains(files):
    listing = succeeded("explain").stdout.splitlines()
    ids = [line.split()[0] for line in listing]
    assert "bad-name" in ids
    for id in ids:
        assert succeeded("explain", id).stdout.startswith(f"{id}: ")
    assert "did you mean `bad-name`?" in failed("explain", "bad-nam").stderr


def test_components_lists_every_kind(files):
    listing = succeeded("components").stdout
    for heading in (
        "layers:",
        "layers written in the language itself",
        "memories of miras:",
        "tasks:",
    ):
        assert heading in listing
    assert "  attention(heads!, kv_heads = none," in listing
    assert "  gla(heads = 4, expand_k = 1/2," in listing
    assert "  state_bytes(length = 1024, dtype = float32)\n" in listing
    assert all(len(line) <= 100 for line in listing.splitlines())


def test_components_says_all_about_one(files):
    about = succeeded("components", "embed").stdout
    assert about.startswith("embed(dim!, vocab = none, ")
    assert "must be given" in about
    assert "def gated_deltanet(" in succeeded("components", "gated_deltanet").stdout
    assert "did you mean `attention`?" in failed("components", "atention").stderr


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


# --- what goes wrong ------------------------------------------------------------------------------


def broken(error):
    def check(path):
        raise error

    return check


def test_a_bug_of_ours_is_one_line(files, monkeypatch):
    monkeypatch.setattr(
        archdsl, "check", broken(ZeroDivisionError("division by zero")), raising=False
    )
    result = failed("check", "closed.arch")
    [line] = result.stderr.splitlines()
    assert line.startswith(
        "error: this is a bug in archdsl (ZeroDivisionError: division by zero at "
    )
    assert isinstance(run("--debug", "check", "closed.arch").exception, ZeroDivisionError)


def test_ctrl_c_is_status_130(files, monkeypatch):
    monkeypatch.setattr(archdsl, "check", broken(KeyboardInterrupt()), raising=False)
    assert failed("check", "closed.arch", status=130).stderr == "interrupted\n"


def test_a_diagnostic_without_a_place_is_shown(files, monkeypatch):
    monkeypatch.setattr(
        archdsl, "check", broken(ArchError(Diagnostic("full", "no room"))), raising=False
    )
    assert "error[full]: no room" in failed("check", "closed.arch").stderr


def test_version():
    assert succeeded("--version").stdout == f"archdsl {archdsl.__version__}\n"


# --- real processes -------------------------------------------------------------------------------

COMMAND = [sys.executable, "-c", "from archdsl.cli import main; main()"]
PATHS = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "100"}


def process(*arguments, **options):
    settings = {"capture_output": True, "env": PATHS, "timeout": 60, **options}
    return subprocess.run([*COMMAND, *arguments], check=False, **settings)


def test_a_process_exits_with_the_status(files):
    assert process("check", "closed.arch").returncode == 0
    wrong = process("check", "wrong.arch")
    assert (wrong.returncode, wrong.stderr) == (1, b"")
    assert process("check").returncode == 2


def test_no_colour_in_a_pipe_and_some_on_a_terminal(files):
    assert b"\x1b[" not in process("check", "wrong.arch").stdout
    assert b"\x1b[" in on_terminal("check", "wrong.arch")
    assert b"\x1b[" not in on_terminal("check", "wrong.arch", NO_COLOR="1")


def on_terminal(*arguments, **variables):
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as reading:
        settings = {**PATHS, "TERM": "xterm-256color", **variables}
        started = subprocess.Popen([*COMMAND, *arguments], stdout=theirs, env=settings)
        os.close(theirs)
        found = b""
        try:
            while part := reading.read(65536):
                found += part
        except OSError:
            pass  # the other end of a terminal is gone
        started.wait(60)
    return found


def test_a_reader_that_goes_away_is_no_mistake(files):
    started = subprocess.Popen(
        [*COMMAND, "components"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=PATHS
    )
    started.stdout.close()
    said = started.stderr.read()
    started.wait(60)
    started.stderr.close()
    assert said == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_is_one_line(files):
    with open("/dev/full", "wb") as full:
        result = process(
            "count", "space.arch", stdout=full, capture_output=False, stderr=subprocess.PIPE
        )
    assert result.returncode == 1
    assert b"Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
