"""``moe``: channel mixers of which each token uses a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Builder, Children, Count, Layer, Rule, Value, features
from archdsl.blocks.mom import Choices, Coefficient, choosing, mixed
from archdsl.blocks.op import Routed, Type
from archdsl.blocks.ops.routing import MixtureOfExperts


class MixtureOfExpertsLayer(Layer):
    """A sparse mixture of experts over the channel mixer inside (arXiv 1701.06538, 2101.03961).

    Each token goes to ``top`` of ``experts``, each with weights of its own, and to ``shared`` more that
    take every token and count once (arXiv 2401.06066). None is dropped: tokens are sorted by expert and
    each expert's rows are one matrix product.

    Args:
        experts: how many there are to choose from.
        top: how many a token goes to.
        shared: how many more take every token.
        router: ``linear``, or ``recurrent``: a GRU along depth with ``router_rank`` numbers a token,
            shared by all recurrent routers of that rank (RMoE, arXiv 2408.06793).
        weights: ``renormalised`` to sum to one over the chosen, or each one's ``probability``.
        balance: of the load-balancing loss.
        z_loss: of the router's z-loss.
    """

    name: ClassVar[str] = "moe"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "layers"
    experts: Choices
    top: Choices
    shared: Annotated[int, Field(ge=0, le=4096)] = 0
    router: Literal["linear", "recurrent"] = "linear"
    router_rank: Count = 256
    weights: Literal["renormalised", "probability"] = "renormalised"
    balance: Coefficient = Fraction(1, 100)
    z_loss: Coefficient = Fraction(0)

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """See :func:`choosing`."""
        return choosing("experts")

    def infer(self, stream: Type) -> Type:
        """Any features, as the rows of experts."""
        features(stream, self.name)
        return replace(stream, routed=self._routed(1, 1))

    def _routed(self, copies: int, chosen: int) -> Routed:
        return Routed(within=self.name, copies=copies, chosen=chosen, form="packed")

    def combine(self, stream: Type, outputs: Sequence[Type]) -> Type:
        """What the experts give."""
        return replace(stream, width=outputs[0].width)

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """The router, and one expert as a region."""
        routed = self._routed(self.experts + self.shared, self.top + self.shared)
        region = children.lower(0, replace(stream.type, routed=routed), None)
        return mixed(self, build, stream, region, MixtureOfExperts, "experts")
