"""Commands that read files: what they print, where, and the exit status."""

import json
import os
import stat

import pytest
from commands import CLOSED, NEAT, UGLY, WRONG, failed, succeeded

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
