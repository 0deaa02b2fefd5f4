"""Commands in this process, and the files they are tried on."""

from click.testing import CliRunner

from archdsl.cli import cli

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
