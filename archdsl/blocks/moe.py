"""``moe``: channel mixers of which each token uses a few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import (
    Builder,
    Children,
    Count,
    Invalid,
    Layer,
    Real,
    Rule,
    Value,
    features,
)
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
        score: what the router's logits are made into: a ``softmax`` over all experts, or each one's
            ``sigmoid`` (DeepSeek-V3, arXiv 2412.19437 §2.1.2).
        weights: ``renormalised`` to sum to one over the chosen, or each one's ``probability``.
        scale: of the weights of the chosen.
        shared_gate: whether each shared expert has a gate, the sigmoid of a map of the token (Qwen's).
        balance: of the load-balancing loss.
        balance_bias: balance by a bias an expert, added where experts are chosen and nowhere else (arXiv
            2408.15664). It is the size of its gradient, of the sign of how overloaded an expert was: a
            step of that rate is the paper's; an optimizer that rescales gradients makes its own.
        z_loss: of the router's z-loss.
    """

    name: ClassVar[str] = "moe"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "layers"
    experts: Choices
    top: Choices
    shared: Annotated[int, Field(ge=0, le=4096)] = 0
    router: Literal["linear", "recurrent"] = "linear"
    router_rank: Count = 256
    score: Literal["softmax", "sigmoid"] = "softmax"
    weights: Literal["renormalised", "probability"] = "renormalised"
    scale: Annotated[Real, Field(gt=0, le=1000)] = Fraction(1)
    shared_gate: bool = False
    balance: Coefficient = Fraction(1, 100)
    balance_bias: Coefficient = Fraction(0)
    z_loss: Coefficient = Fraction(0)

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """See :func:`choosing`; and a gate is of something."""
        return (*choosing("experts"), cls._gate_complaints)

    def _gate_complaints(self) -> Iterator[Invalid]:
        if self.shared_gate and not self.shared:
            yield Invalid(
                "gate-without-shared",
                "`shared_gate` is of shared experts, and there is none",
                argument="shared_gate",
                help="write `shared = 1`, or leave `shared_gate` out",
            )

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
        return mixed(
            self,
            build,
            stream,
            region,
            MixtureOfExperts,
            "experts",
            gates=self.shared if self.shared_gate else 0,
            score=self.score,
            scale=self.scale,
            gated=self.shared_gate,
            balance_bias=self.balance_bias,
        )
