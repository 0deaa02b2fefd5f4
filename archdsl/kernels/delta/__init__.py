"""Error-correcting memories: DeltaNet, Gated DeltaNet, KDA, DeltaProduct, Comba, RWKV-7.

Names load on first use, so that the cost model can import `flops` without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archdsl.kernels.decay.dispatch import choose
    from archdsl.kernels.delta.dispatch import delta, delta_general

__all__ = ["choose", "delta", "delta_general"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from archdsl.kernels.delta import dispatch

    return getattr(dispatch, name)
