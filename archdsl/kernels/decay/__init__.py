"""Decaying outer-product memories: linear attention, RetNet, GLA, Mamba-2, RWKV-6, mLSTM and kin.

Names load on first use, so that the cost model can import `flops` without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archdsl.kernels.decay.dispatch import MaxState, SumState, choose, decay

__all__ = ["MaxState", "SumState", "choose", "decay"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from archdsl.kernels.decay import dispatch

    return getattr(dispatch, name)
