"""The shell's Triton kernels compiled ahead of time for sm_80 and sm_90, on a machine with no GPU."""

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

SHARED = 99 * 1024
"""Shared memory a block may use, bytes: by the smaller cards of sm_80's generation."""

TYPES = {
    "tokens": "i32", "length": "i32", "eps": "fp32", "scales": "*fp32", "parts": "*fp32",
    "losses": "*fp32", "logits": "*fp32", "targets": "*i64",
}  # fmt: skip


def jobs() -> list[tuple[Any, dict[str, Any]]]:
    """Every kernel with the constants of a 768-wide model in bfloat16."""
    from archdsl.kernels.shell import (
        triton_convolution,
        triton_gate,
        triton_loss,
        triton_norm,
    )

    norm = {"S": 768, **triton_norm.tiles(768), "FUNCTION": 1}
    unit = {"F": 2048, "SWAPPED": False, "FUNCTION": 1, **triton_gate.SHAPE}
    taps = {"D": 576, "K": 4, "UNIT": True, "BIASED": False, "FUNCTION": 1}
    taps |= triton_convolution.slices(576, 6)
    whole = {**taps, "BS": 128}
    return [
        *[(triton_norm.forward_kernel, {**norm, "MODE": mode}) for mode in range(4)],
        *[(triton_norm.backward_kernel, {**norm, "MODE": m, "COUNT": 8}) for m in range(4)],
        (triton_gate.forward_kernel, unit),
        (triton_gate.backward_kernel, unit),
        (triton_convolution.forward_kernel, taps),
        (triton_convolution.activation_kernel, taps),
        (triton_convolution.filter_kernel, whole),
        (triton_loss.softmax_kernel, {"V": 32000, **triton_loss.SHAPE}),
    ]


def measure(capability: int) -> list[dict[str, Any]]:
    """Registers, spilled and shared bytes of every kernel."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    rows = []
    for kernel, constants in jobs():
        known = {name: value for name, value in constants.items() if name in kernel.arg_names}
        types = TYPES | dict.fromkeys(known, "constexpr")
        signature = {name: types.get(name, "*bf16") for name in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=known)
        options = {"num_warps": constants["num_warps"]}
        compiled = triton.compile(source, GPUTarget("cuda", capability, 32), options)
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(compiled.asm["cubin"])
            file.flush()
            tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
            command = [str(tool), "-res-usage", file.name]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        usage = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
        rows.append(
            {"kernel": kernel.__name__, "constants": known, "registers": usage["REG"],
             "spilled": usage["STACK"] + usage["LOCAL"], "shared": compiled.metadata.shared}
        )  # fmt: skip
    return rows


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_within_limits(capability: int, tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-W", "ignore", __file__, str(capability)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    assert len(rows) == 14
    for row in rows:
        assert row["registers"] <= 255, row
        assert row["shared"] <= SHARED, row
        assert row["spilled"] == 0, row


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
