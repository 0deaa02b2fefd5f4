"""Diagonal recurrences: minGRU, minLSTM, HGRN, LRU, RG-LRU, S4D, S5, Mamba's S6, GateLoop.

Names load on first use, so that the cost model can import `flops` without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archdsl.kernels.scan.dispatch import choose, scan

__all__ = ["choose", "scan"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from archdsl.kernels.scan import dispatch

    return getattr(dispatch, name)
