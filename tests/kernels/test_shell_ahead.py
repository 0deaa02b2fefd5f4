"""The shell's Triton kernels compiled ahead of time for sm_80 and sm_90, on a machine with no GPU."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ahead import SHARED, Job, compiled, measure

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)

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
    whole = {**taps, **triton_convolution.filter_tile(576)}
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


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_within_limits(capability: int, tmp_path: Path) -> None:
    rows = compiled(__file__, capability, tmp_path)
    assert len(rows) == 14
    for row in rows:
        assert row["registers"] <= 255, row
        assert row["shared"] <= SHARED[80], row
        assert row["spilled"] == 0, row


if __name__ == "__main__":
    FOUND = [measure(Job(kernel, known, TYPES), int(sys.argv[1])) for kernel, known in jobs()]
    print(json.dumps(FOUND))
