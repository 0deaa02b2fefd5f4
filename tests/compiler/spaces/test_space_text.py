"""Closed texts: they parse, check, have one architecture, and it is the same."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from test_space_counting import spaces
from test_space_walks import TEXT

from archdsl.compiler.spaces.arch import Arch
from archdsl.compiler.spaces.check import check_text
from archdsl.compiler.spaces.loading import loads
from archdsl.compiler.spaces.space import Space
from archdsl.diagnostics import ArchError, Severity


def reopened(arch: Arch) -> Arch:
    assert [d for d in check_text(arch.text) if d.severity is Severity.ERROR] == []
    space = loads(arch.text)
    assert space.count() == 1
    return space.sample(0)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(spaces)
def test_closed_texts_are_the_same_architecture(text: str) -> None:
    arch = loads(text).draw(0)
    again = reopened(arch)
    assert again.hash == arch.hash
    assert again.text == arch.text


def test_everything_in_the_file_is_kept() -> None:
    space = loads(TEXT + "require params <= 4M\nrequire state_bytes(length = 64) <= 256KiB\n")
    arch = space.sample(1)
    again = reopened(arch)
    assert again.hash == arch.hash
    assert again.tasks == arch.tasks
    assert again.train == arch.train
    assert [str(each) for each in again.requirements] == [
        "params <= 4M",
        "state_bytes(length = 64) <= 256KiB",
    ]
    assert [each.text for each in again.space.objectives] == ["recall.accuracy", "params"]


def test_the_text_reads_as_one_would_write_it() -> None:
    text = """
let memory = gla | retnet
def block(mixer) { residual { rms_norm  mixer } residual { rms_norm  swiglu(expand = 2) } }
model {
    embed(dim = 32, vocab = 16)
    stack(depth = 4, ratio = 3:1) {
        linear: block(memory(heads = 2 * 2))
        full: block(attention(heads = 4, position = rope))
    }
    repeat(2) { cell(state = [h], output = h) { h = (tanh | relu)(linear(x, h)) * 8/3 } }
    lm_head
}
"""
    assert (
        loads(text).decide(lambda site: 0).text
        == """\
def linear_layer {
    residual { rms_norm  gla(heads = 4) }
    residual { rms_norm  swiglu(expand = 2) }
}

def full_layer {
    residual { rms_norm  attention(heads = 4, position = rope) }
    residual { rms_norm  swiglu(expand = 2) }
}

model {
    embed(dim = 32, vocab = 16)
    stack(depth = 4, ratio = 3:1) {
        linear: linear_layer
        full: full_layer
    }
    repeat(times = 2) {
        cell(state = [h], output = h) {
            h = tanh(linear(x, h)) * 8 / 3
        }
    }
    lm_head
}
"""
    )


def test_copies_that_differ_are_written_as_a_cycle() -> None:
    body = "stack(depth = 4) { residual { swiglu(expand = each(1 | 2)) } }"
    space = loads(f"model {{ embed(dim = 8, vocab = 4)  {body} }}")
    arch = space.decide(lambda site: int("[2]" in site.path))
    assert "cycle = [layer, layer, layer_2, layer]" in arch.text
    assert reopened(arch).hash == arch.hash


# --- mutated files --------------------------------------------------------------------------------

PARTS = re.compile(r"\s+|\w+|[^\w\s]")
OTHERS = re.split(
    "  +|\n *",
    """1  4  0  1/2  (2 | 4)  each(2 | 4)  (1 .. 4)  gla  swiglu  none  true  rope  width  [a, b]
    3:1  -1  100000  residual { swiglu }  gla(heads = 2)  memory(heads = each(2 | 4))  mixer  tanh
    x  2147483648  "t"  depth  |  width * width  {  }  (  )  =  :  ..  ,  residual  repeat  stack
    def  let  model  1e300  use "x" as y  each  recall  params""",
)


def mutated(rng: random.Random) -> str:
    words = PARTS.findall(TEXT)
    for _ in range(rng.choice([1, 1, 2, 4])):
        place = rng.randrange(len(words))
        action = rng.randrange(4)
        if action == 0:
            del words[place : place + rng.randrange(1, 4)]
        elif action == 1:
            words.insert(place, rng.choice(OTHERS))
        else:
            words[place] = rng.choice(OTHERS if action == 2 else words)
    return "".join(words)


def opened(text: str) -> Space | ArchError:
    try:
        return loads(text)
    except ArchError as error:
        return error


@pytest.mark.parametrize("seed", range(4))
def test_no_text_makes_anything_but_a_diagnostic(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        text = mutated(rng)
        found = opened(text)
        if isinstance(found, ArchError):
            assert all(each.span is not None for each in found.diagnostics), text
        elif found.plan.model is not None:
            assert found.draw(0).text


# --- what importing costs -------------------------------------------------------------------------


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_imports_nothing_heavy() -> None:
    heavy = {"torch", "networkx", "pydantic", "lark", "numpy", "optuna"}
    assert modules_after("import archdsl").isdisjoint(heavy)


def test_a_space_needs_neither_torch_nor_an_engine() -> None:
    code = f"import archdsl; s = archdsl.loads({TEXT!r}); s.count(); s.draw(0); s.sites()"
    assert modules_after(code).isdisjoint({"torch", "optuna", "numpy", "networkx"})
