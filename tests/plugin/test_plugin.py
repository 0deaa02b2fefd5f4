"""A package adds a layer through an entry point: found by name, checked, compiled, trained, saved."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent

SPEC = """\
let start = 1/4 | 1/2

model {
    embed(dim = 16, vocab = 12)
    repeat(2) {
        residual { rms_norm  echo(start = start)  mlp }
    }
    lm_head
}
"""

USE = """
import torch, archdsl
from archdsl.compiler.models.checkpoint import load_model

space = archdsl.load("spec.arch")
assert space.count() == 2
arch = space.sample(0)
assert "echo" in arch.text
assert archdsl.loads(arch.text).sample(0).hash == arch.hash
model = arch.compile()
assert sum(p.numel() for p in model.parameters()) == arch.cost.params
tokens = torch.randint(12, (2, 9))
model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
assert all(p.grad is not None for p in model.parameters())
whole, state = model(tokens), model.init_state(2)
parts = []
for t in range(9):
    logits, state = model.step(tokens[:, t], state)
    parts.append(logits)
torch.testing.assert_close(torch.stack(parts, 1), whole)
assert model.state_bytes(state) == 2 * arch.cost.state_bytes(9)
model.save("model.safetensors")
torch.testing.assert_close(load_model("model.safetensors")(tokens), whole)
"""


@pytest.fixture
def site(tmp_path):
    """A folder in which the package is installed as pip installs it."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    name, version = project["name"], project["version"]
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = project["entry-points"].items()
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items())
        for group, points in groups
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (tmp_path / "archdsl_echo").symlink_to(HERE / "archdsl_echo")
    (tmp_path / "spec.arch").write_text(SPEC)
    return tmp_path


def ran(site, code, *arguments):
    path = os.pathsep.join([str(site), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=site, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def command(site, *arguments):
    return ran(site, "from archdsl.cli import main; main()", *arguments)


def test_its_layer_is_part_of_the_language(site):
    assert command(site, "check", "spec.arch").stdout == "1 file checked, no errors\n"
    about = command(site, "components", "echo").stdout
    assert about.startswith("echo(start = 0.5)\n\na layer. `x_t + m")
    assert "(from archdsl_echo)" in " ".join(command(site, "components").stdout.split())
    assert "echo" in command(site, "show", "spec.arch").stdout


def test_its_mistakes_are_explained_like_any_other(site):
    (site / "wrong.arch").write_text(SPEC.replace("start = start", "begin = 1/2"))
    found = command(site, "check", "wrong.arch", "--format", "concise")
    assert found.returncode == 1
    assert (
        "wrong.arch:6:35: error[unknown-parameter] `echo` has no parameter `begin`" in found.stdout
    )


def test_its_models_train_decode_and_are_saved(site):
    result = ran(site, USE)
    assert result.returncode == 0, result.stderr


def test_without_the_package_its_name_is_unknown(site):
    next(site.glob("*.dist-info/entry_points.txt")).unlink()
    assert "unknown-name" in command(site, "check", "spec.arch").stdout
