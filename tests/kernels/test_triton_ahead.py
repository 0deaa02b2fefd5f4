"""The recurrences' Triton kernels compiled ahead of time for sm_80 and sm_90."""

import importlib
import importlib.util
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from ahead import SHARED, Job, compiled, measure

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)

FLOATS = {"first", "states", "last", "flows", "log", "d_log", "inverses", "d_update", "d_target"}
FLOATS |= {"base"}
TABLES = {"owner": "*i64", "bounds": "*i64", "slots": "*i64"}
NUMBERS = {"length": "i32", "tokens": "i32", "scale": "fp32"}

HEADS = {"H": 4, "K": 64, "V": 64, "SHIFTED": 0, "REVERSE": False, "PACKED": True}
HEADS |= {"STATE": True, "FLOW": True, "ADD": False, "WRITE": False}

EARLY = {"SHIFTED": 1}
ERASE = ("key_kernel", {"FLOW": False}, ("d_out",))

VARIANTS: dict[str, list[tuple[str, dict[str, Any], tuple[str, ...]]]] = {
    "decay": [(f"{name}_kernel", {}, ()) for name in ("state", "output", "value", "key")],
    "delta": [*[(f"{name}_kernel", {}, ()) for name in ("inverse", "update", "retreat")], ERASE],
    "general": [
        ("inverse_kernel", EARLY, ()),
        ("update_kernel", EARLY | {"WRITE": True}, ()),
        ("retreat_kernel", EARLY, ()),
        ("output_kernel", EARLY | {"STATE": False}, ()),
        ("output_kernel", {"STATE": False}, ("out",)),
        ("output_kernel", {"ADD": True}, ()),
        ("value_kernel", EARLY | {"FLOW": False}, ("d_out", "d_v")),
        ("value_kernel", {"ADD": True}, ()),
        ("key_kernel", EARLY | {"FLOW": False}, ("d_out",)),
        ("key_kernel", {"STATE": False}, ()),
        ("key_kernel", EARLY | {"STATE": False, "FLOW": False}, ("d_out",)),
    ],
}
"""Kernels of a family, how they are asked for, and what is float32 then; `general` is RWKV-7."""

SPILLS = {
    ("decay channel", "state_kernel"): 8,
    ("decay channel", "output_kernel"): 104,
    ("decay channel", "value_kernel"): 72,
    ("delta head", "inverse_kernel"): 48,
    ("delta channel", "update_kernel"): 48,
    ("general channel", "update_kernel"): 56,
    ("general channel", "retreat_kernel"): 16,
    ("general channel", "output_kernel"): 104,
    ("general channel", "value_kernel"): 72,
}
"""Bytes of local memory a thread may spill to; none where a kernel is not named."""

OLDER = {("delta head", "inverse_kernel"): 96, ("delta head", "key_kernel"): 40}
"""The same for kernels that Triton before 3.7 compiles worse."""


WIDE = (("delta head", 256, 0), ("general channel", 256, 0), ("delta channel", 128, 2))
"""Configurations of wide keys, with their width and precision (HALF), where shared memory is scarce."""


def jobs(name: str, width: int = 64, half: int = 2) -> list[Job]:
    """The kernels of a named configuration, for heads of so many channels."""
    if name == "scan":
        gpu = importlib.import_module("archdsl.kernels.scan.triton")
        both = (gpu.forward_kernel, gpu.backward_kernel)
        pairs = [{"D": 1024, "PARTS": p, **gpu.tiles(1024, p == 2)} for p in (1, 2)]
        return [Job(k, constants, NUMBERS, "*fp32") for constants in pairs for k in both]
    family, gate = name.split()
    kind = {"head": 1, "channel": 2}[gate]
    common, decay, delta = (
        importlib.import_module(f"archdsl.kernels.{x}")
        for x in ("triton_common", "decay.triton", "delta.triton")
    )
    found = decay.kernels(width, width, kind) + delta.kernels(width, width, kind, half)
    tiles = {kernel.__name__: (kernel, sides) for kernel, sides in found}
    dtype = {0: torch.float32, 2: torch.bfloat16}[half]
    size = common.chunk_size(64, dtype, kind == 2)
    constants = {**HEADS, "K": width, "V": width, "C": size, "GATE": kind, "HALF": half}
    types = dict.fromkeys(FLOATS, "*fp32") | TABLES | NUMBERS
    asked = VARIANTS[family] + ([("between_kernel", {}, ())] if name == "decay head" else [])
    return [
        Job(
            tiles[kernel][0],
            constants | tiles[kernel][1] | flags,
            types | dict.fromkeys(wide, "*fp32"),
            {0: "*fp32", 2: "*bf16"}[half],
        )
        for kernel, flags, wide in asked
    ]


def widest() -> list[Job]:
    """The kernel that holds most at once, in the configurations of wide keys."""
    each = (job for name, width, half in WIDE for job in jobs(name, width, half))
    return [job for job in each if job.kernel.__name__ == "retreat_kernel"]


def triton_version() -> tuple[int, ...]:
    """Its first two numbers."""
    return tuple(int(part) for part in version("triton").split(".")[:2])


NAMES = ("decay head", "decay channel", "delta head", "delta channel", "general channel", "scan")


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_within_limits(capability: int, tmp_path: Path) -> None:
    found = compiled(__file__, capability, tmp_path)
    allowed = SPILLS | (OLDER if triton_version() < (3, 7) else {})
    for row in found.pop("widest"):
        assert row["shared"] <= SHARED[capability], row
    assert set(found) == set(NAMES)
    for name, rows in found.items():
        for row in rows:
            assert row["registers"] <= 255, (name, row)
            assert row["shared"] <= SHARED[capability], (name, row)
            assert row["spilled"] <= allowed.get((name, row["kernel"]), 0), (name, row)


if __name__ == "__main__":
    CAPABILITY = int(sys.argv[1])
    ASKED = {name: jobs(name) for name in NAMES} | {"widest": widest()}
    print(json.dumps({name: [measure(job, CAPABILITY) for job in ASKED[name]] for name in ASKED}))
