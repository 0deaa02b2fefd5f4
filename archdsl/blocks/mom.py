"""``mom``: a mixer with several memories, each token written to and read from a few of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import (
    Builder,
    Children,
    Count,
    Invalid,
    Layer,
    Real,
    Region,
    Rule,
    Value,
    features,
)
from archdsl.blocks.op import Routed, Type
from archdsl.blocks.ops.routing import MixtureOfExperts, MixtureOfMemories, Router

Choices = Annotated[int, Field(ge=1, le=4096)]
Coefficient = Annotated[Real, Field(ge=0, le=1000)]


class MixtureOfMemoriesLayer(Layer):
    """Mixture of memories (arXiv 2502.13685) over any recurrent mixer.

    A router sends each token to ``top`` of ``memories``; only those are updated and read, and the rest
    keep their state (``idle = decay``: forget by their decay at that token). With ``shared`` one more
    memory takes every token. What is read is summed with the router's weights, the shared memory's as
    it is, in front of the mixer's norm, gate and output projection, which are the memories' in common,
    as queries are.

    Args:
        memories: how many there are.
        top: how many a token goes to.
        shared: whether one more memory takes all tokens.
        projections: whether what is written (keys, values, decays, rates) is projected by matrices of
            each ``memory``, or ``shared`` ones. A cell's own weights are always in common.
        neighbours: what short convolutions see: the ``text``, or the tokens a memory took (``routed``).
        idle: what happens to memories a token does not go to.
        capacity: a memory takes a token only while those that chose it before are fewer than
            ``capacity · top / memories`` of all so far.
        weights: ``renormalised`` to sum to one over the chosen, or each one's ``probability``.
        balance: of the load-balancing loss.
        z_loss: of the router's z-loss.
        router: ``linear``, or ``recurrent`` along depth (RMoE) with ``router_rank`` numbers.
    """

    name: ClassVar[str] = "mom"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "layers"
    memories: Choices
    top: Choices
    shared: bool = True
    projections: Literal["memory", "shared"] = "memory"
    neighbours: Literal["text", "routed"] = "text"
    idle: Literal["keep", "decay"] = "keep"
    capacity: Annotated[Real, Field(gt=0, le=1000)] | None = None
    weights: Literal["renormalised", "probability"] = "renormalised"
    balance: Coefficient = Fraction(1, 100)
    z_loss: Coefficient = Fraction(0)
    router: Literal["linear", "recurrent"] = "linear"
    router_rank: Count = 64

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """See :func:`choosing`."""
        return choosing("memories")

    def infer(self, stream: Type) -> Type:
        """Any features, marked as those of a routed region by what matters to the layers inside."""
        features(stream, self.name)
        return replace(stream, routed=self._routed(copies=1, chosen=1))

    def _routed(self, **sizes: Any) -> Routed:
        return Routed(within=self.name, neighbours=self.neighbours, idle=self.idle, **sizes)

    def _sizes(self) -> dict[str, Any]:
        """What only lowering asks for."""
        shared = int(self.shared)
        return {
            "copies": self.memories + shared,
            "chosen": self.top + shared,
            "own": self.projections == "memory",
            "refusing": self.capacity is not None,
        }

    def combine(self, stream: Type, outputs: Sequence[Type]) -> Type:
        """What the mixer gives, if there is a memory in it."""
        inside = outputs[0].routed
        if inside is None or not inside.written:
            raise Invalid(
                "nothing-routed",
                "`mom` has several memories, and nothing inside it has even one",
                help="put a recurrent mixer inside: `miras`, a `cell`, or a named one such as `gla`",
            )
        return replace(stream, width=outputs[0].width)

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """The router, and the mixer as a region."""
        inner = replace(stream.type, routed=self._routed(**self._sizes()))
        region = children.lower(0, inner, None)
        return mixed(
            self, build, stream, region, MixtureOfMemories, "memories", capacity=self.capacity
        )


def mixed(
    layer: Any,
    build: Builder,
    stream: Value,
    region: Region,
    mixture: type[MixtureOfMemories] | type[MixtureOfExperts],
    what: str,
    gates: int = 0,
    **own: Any,
) -> Value:
    """A router, and the mixture of copies of a region it sends tokens to.

    Args:
        layer: the component; its argument ``what`` says how many copies there are.
        build: where the operations go.
        stream: what is routed.
        region: one copy.
        mixture: the operation.
        what: the mixture's name too.
        gates: logits that are no choice, but the gates of shared copies.
        own: attributes that only this mixture has.
    """
    router = Router(
        width=stream.type.width,
        choices=getattr(layer, what) + gates,
        form=layer.router,
        rank=layer.router_rank if layer.router == "recurrent" else 0,
    )
    logits = build.add(router, stream, name="router")
    op = mixture(
        choices=getattr(layer, what),
        top=layer.top,
        shared=int(layer.shared),
        width=region.output.type.width,
        mixing=layer.weights,
        balance=layer.balance,
        z_loss=layer.z_loss,
        **own,
    )
    return build.add(op, stream, logits, name=what, regions=[region])


def choosing(what: str) -> tuple[Rule, ...]:
    """No more are chosen than there are, and the router learns from something.

    Args:
        what: the name of the argument that says how many there are.
    """

    def enough(self: Any) -> Iterator[Invalid]:
        return enough_to_choose(what, getattr(self, what), self.top)

    def learns(self: Any) -> Iterator[Invalid]:
        return router_learns(getattr(self, what), self.top, self.weights, self.balance)

    return (enough, learns)


def enough_to_choose(what: str, count: int, top: int) -> Iterator[Invalid]:
    """A complaint where more are to be chosen than there are."""
    if top > count:
        yield Invalid(
            "too-few-to-choose",
            f"`top = {top}` chooses more than the {count} {what} there are",
            argument="top",
            label=f"there are {count}",
            help=f"use `top` from 1 to {count}, or more {what}",
        )


def router_learns(count: int, top: int, weights: str, balance: Fraction) -> Iterator[Invalid]:
    """A complaint where nothing that the router gives reaches a loss."""
    if top == 1 and not balance and (weights == "renormalised" or count == 1):
        yield Invalid(
            "router-without-gradient",
            "the one weight of `top = 1` is always one when renormalised, and without a balance loss"
            " the router learns from nothing",
            argument="weights",
            help="write `weights = probability`, or give `balance` a number above 0",
        )
