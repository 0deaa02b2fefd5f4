"""Attentional biases: the inner objective a memory descends."""

from __future__ import annotations

from typing import ClassVar, Literal

from archdsl.blocks.base import Component, Kind


class Bias(Component):
    """An inner loss of prediction and target; the base of all biases."""

    kind: ClassVar[Kind] = "bias"


class Dot(Bias):
    """``-⟨M(k), v⟩``: write what comes, whatever is there (Hebbian)."""

    name: ClassVar[str] = "dot"


class L2(Bias):
    """``½‖M(k) - v‖²``: write the error (the delta rule).

    ``feedback = learned`` weighs what is corrected by a number a head in (0, 1): the error is
    ``v - M(σ(b) k)`` (Comba, arXiv 2506.02475).
    """

    name: ClassVar[str] = "l2"
    feedback: Literal["full", "learned"] = "full"
