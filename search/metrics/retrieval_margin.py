"""How far the right memory stands out among others."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class RetrievalMargin(TrainingFree):
    """By how much the last token but one is nearer to what a linear reader finds than any other token.

    Embedded tokens are random keys in an untrained model: the margin says whether what a memory holds
    can be told apart; see :func:`archdsl.search.metrics.recall.recall`.
    """

    name: ClassVar[str] = "retrieval_margin"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.HIDDEN, Need.JACOBIAN})

    def measure(self, evidence: Evidence) -> float:
        """A share of the squared length of a token; negative where another is nearer."""
        return nan if evidence.recall is None else evidence.recall.margin
