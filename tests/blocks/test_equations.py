"""The closed equations of a cell as values."""

import os
import pickle
import subprocess
import sys

from archdsl.blocks.equations import Apply, Name

SUM = Apply("add", (Name("x"), Apply("tanh", (Name("h"),))), (("gain", 2),))


def test_equal_equations_have_one_hash():
    again = Apply("add", (Name("x"), Apply("tanh", (Name("h"),))), (("gain", 2),))
    assert again == SUM
    assert hash(again) == hash(SUM)
    assert hash(SUM) != hash(Apply("add", SUM.arguments))


def test_a_hash_is_not_carried_into_another_process():
    assert hash(SUM)
    code = (
        "import pickle, sys; found = pickle.load(sys.stdin.buffer);"
        "from archdsl.blocks.equations import Apply, Name;"
        "print(found in {Apply(found.function, found.arguments, found.options)})"
    )
    place = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(SUM), env=place, capture_output=True
    )
    assert done.stdout.split() == [b"True"], done.stderr
