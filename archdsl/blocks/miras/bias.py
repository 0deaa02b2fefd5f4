"""Attentional biases: the inner objective a memory descends."""

from __future__ import annotations

from typing import ClassVar

from archdsl.blocks.base import Component, Kind


class Bias(Component):
    """An inner loss of prediction and target; the base of all biases."""

    kind: ClassVar[Kind] = "bias"


class Dot(Bias):
    """``-⟨M(k), v⟩``: write what comes, whatever is there (Hebbian)."""

    name: ClassVar[str] = "dot"


class L2(Bias):
    """``½‖M(k) - v‖²``: write the error (the delta rule)."""

    name: ClassVar[str] = "l2"
