"""The precision in which the chunks' batched matrix products are computed.

bfloat16 inputs have 8 bits; products of them in float32 only cost time where the processor multiplies
bfloat16 itself (AVX512-BF16, AMX: through oneDNN, two to four times as fast, sums in float32). Decays,
the inverses of triangular matrices and what goes from chunk to chunk are in float32 all the same.
"""

import functools

import torch
from torch import Tensor


@functools.cache
def has_bfloat16_units() -> bool:
    """Whether this processor, and this build of PyTorch, multiply bfloat16 matrices directly."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def product_dtype(wide: torch.dtype, *inputs: Tensor) -> torch.dtype:
    """bfloat16 where all `inputs` are, on a CPU with units for it; else `wide`, the states' dtype."""
    if wide != torch.float32 or any(x.dtype != torch.bfloat16 for x in inputs):
        return wide
    on_cpu = all(x.device.type == "cpu" for x in inputs)
    return torch.bfloat16 if on_cpu and has_bfloat16_units() else wide


def sum_product(base: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """`base + a b` [L, M, N], into `out` where given; `base` may be wider than a and b."""
    if base.dtype == a.dtype:
        return torch.baddbmm(base, a, b, out=out)
    return torch.add(base, torch.bmm(a, b), out=out)
