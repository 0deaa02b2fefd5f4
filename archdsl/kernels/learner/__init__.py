"""Memories that learn at test time: TTT, Titans, Moneta, Yaad, Memora, OmegaNet, ATLAS, Lattice.

A point is four names and their numbers (`rule`); every combination runs through one chunked form. Names
load on first use, so that the cost model can import `rule` and `flops` without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archdsl.kernels.learner.dispatch import choose, learn

__all__ = ["choose", "learn"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from archdsl.kernels.learner import dispatch

    return getattr(dispatch, name)
