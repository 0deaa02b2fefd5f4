"""How much of the past can be read from the last memory."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class StateCapacity(TrainingFree):
    """Σ over earlier tokens of the share of their embeddings' variance that a linear reader explains.

    The memory capacity of "Short term memory in echo state networks" (Jaeger, 2001), over the four
    tokens before the current one; see :func:`archdsl.search.metrics.recall.recall`. With ``relative``
    it is divided by the same sum with the current token.
    """

    name: ClassVar[str] = "state_capacity"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.HIDDEN, Need.JACOBIAN})

    relative: bool = False

    def measure(self, evidence: Evidence) -> float:
        """Between 0 and 4; between 0 and 1 where relative."""
        if evidence.recall is None:
            return nan
        shares = [max(share, 0.0) for share in evidence.recall.shares]
        past = sum(shares[1:])
        return past / (past + shares[0] + 1e-3) if self.relative else past
