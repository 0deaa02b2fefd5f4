"""Compiling Triton kernels for a GPU on a machine that has none.

Registers and spilled bytes are read from the compiled code, shared memory from its metadata. The
compiler runs in a process of its own, with a cache of its own: a test file as a script.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

SHARED = {80: 99 * 1024, 90: 227 * 1024}
"""Shared memory a block may use, bytes: sm_80 by the smaller cards of its generation (sm_86)."""


class Job(NamedTuple):
    """A kernel, its constants (and more), types of arguments by name, and of all other arguments."""

    kernel: Any
    constants: Mapping[str, Any]
    types: Mapping[str, str]
    tensors: str = "*bf16"


def measure(job: Job, capability: int) -> dict[str, Any]:
    """Name, constants, registers, spilled and shared bytes of a compiled kernel."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = job.kernel.arg_names
    known = {name: value for name, value in job.constants.items() if name in names}
    types = {**job.types, **dict.fromkeys(known, "constexpr")}
    signature = {name: types.get(name, job.tensors) for name in names}
    source = ASTSource(fn=job.kernel, signature=signature, constexprs=known)
    known_options = ("num_warps", "num_stages")
    options = {name: job.constants[name] for name in known_options if name in job.constants}
    compiled = triton.compile(source, GPUTarget("cuda", capability, 32), options)
    usage = resources(compiled.asm["cubin"], Path(triton.__file__).parent)
    return {
        "kernel": job.kernel.__name__, "constants": known, "registers": usage["REG"],
        "spilled": usage["STACK"] + usage["LOCAL"], "shared": compiled.metadata.shared,
    }  # fmt: skip


def resources(binary: bytes, triton: Path) -> dict[str, int]:
    """What a compiled kernel takes (REG, STACK, LOCAL), as the disassembler beside Triton says."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [str(triton / "backends/nvidia/bin/cuobjdump"), "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}


def compiled(script: str, capability: int, cache: Path) -> Any:
    """What a test file prints as JSON for a capability, run as a script outside the interpreter."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-W", "ignore", script, str(capability)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
