"""The Triton kernels compiled ahead of time for sm_80 and sm_90, on a machine with no GPU.

Registers and spilled bytes are read from the compiled code, shared memory from its metadata. The
compiler runs in a process of its own, with a cache of its own: this file as a script.
"""

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)

SHARED = {80: 99 * 1024, 90: 227 * 1024}
"""Shared memory a block may use, bytes: sm_80 by the smaller cards of its generation (sm_86)."""

FLOATS = {"first", "states", "last", "flows", "log", "d_log", "inverses", "d_update", "d_target"}
TABLES = {"owner": "*i64", "bounds": "*i64", "slots": "*i64"}
NUMBERS = {"length": "i32", "tokens": "i32", "scale": "fp32"}

HEADS = {"H": 4, "K": 64, "V": 64, "SHIFTED": 0, "REVERSE": False, "PACKED": True}
HEADS |= {"FLOW": True, "ERASE": False}

SPILLS = {
    ("decay channel", "state_kernel"): 8,
    ("decay channel", "output_kernel"): 104,
    ("decay channel", "value_kernel"): 72,
    ("delta head", "inverse_kernel"): 48,
    ("delta channel", "update_kernel"): 48,
}
"""Bytes of local memory a thread may spill to; none where a kernel is not named."""


def jobs(name: str) -> list[tuple[Any, dict[str, Any], str]]:
    """(kernel, constants, type of the tensors) of a named configuration."""
    if name == "scan":
        gpu = importlib.import_module("archdsl.kernels.scan.triton")
        constants = {"D": 1024, "PARTS": 1, **gpu.tiles(1024, False)}
        return [(k, constants, "*fp32") for k in (gpu.forward_kernel, gpu.backward_kernel)]
    family, gate = name.split()
    gpu = importlib.import_module(f"archdsl.kernels.{family}.triton")
    kind = {"head": 1, "channel": 2}[gate]
    constants = {**HEADS, "C": 64 // kind, "GATE": kind, "HALF": 2}
    return [(k, {**constants, **tiles}, "*bf16") for k, tiles in gpu.kernels(64, 64, kind)]


def measure(name: str, capability: int) -> list[dict[str, Any]]:
    """Name, registers, spilled and shared bytes of every kernel of a configuration."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    rows = []
    for kernel, constants, tensors in jobs(name):
        options = {"num_warps": constants["num_warps"]}
        known = {x: value for x, value in constants.items() if x in kernel.arg_names}
        types = (
            dict.fromkeys(FLOATS, "*fp32") | TABLES | NUMBERS | dict.fromkeys(known, "constexpr")
        )
        signature = {x: types.get(x, tensors) for x in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=known)
        compiled = triton.compile(source, GPUTarget("cuda", capability, 32), options)
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(compiled.asm["cubin"])
            file.flush()
            tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
            command = [str(tool), "-res-usage", file.name]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        usage = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
        rows.append(
            {"kernel": kernel.__name__, "registers": usage["REG"],
             "spilled": usage["STACK"] + usage["LOCAL"], "shared": compiled.metadata.shared}
        )  # fmt: skip
    return rows


NAMES = ("decay head", "decay channel", "delta head", "delta channel", "scan")


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_within_limits(capability: int, tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-W", "ignore", __file__, str(capability)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(NAMES)
    for name, rows in found.items():
        for row in rows:
            assert row["registers"] <= 255, (name, row)
            assert row["shared"] <= SHARED[capability], (name, row)
            assert row["spilled"] <= SPILLS.get((name, row["kernel"]), 0), (name, row)


if __name__ == "__main__":
    print(json.dumps({name: measure(name, int(sys.argv[1])) for name in NAMES}))
