"""What every metric has to beat: costs that need no model at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class Params(TrainingFree):
    """Number of parameters."""

    name: ClassVar[str] = "params"
    baseline: ClassVar[bool] = True

    def measure(self, evidence: Evidence) -> float:
        """Parameters."""
        return float(evidence.arch.cost.params)


class Flops(TrainingFree):
    """Floating-point operations of one prefill at the task's length."""

    name: ClassVar[str] = "flops"
    baseline: ClassVar[bool] = True

    def measure(self, evidence: Evidence) -> float:
        """FLOPs as the cost model counts them."""
        return float(evidence.arch.cost.flops(evidence.length, "prefill"))


class StateBytes(TrainingFree):
    """Bytes of the decoding state at the task's length, for one sequence."""

    name: ClassVar[str] = "state_bytes"
    baseline: ClassVar[bool] = True

    def measure(self, evidence: Evidence) -> float:
        """Bytes."""
        return float(evidence.arch.cost.state_bytes(evidence.length))
