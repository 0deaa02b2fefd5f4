"""What is known about a task: its sequences as they were published, and how far small models come.

A task states it as ``published``; ``archdsl verify tasks`` checks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

MEMORYLESS = ""
"""The mixer of a model that sees one token at a time: what it reaches, a task gives away."""


@dataclass(frozen=True)
class Anchor:
    """A small model of which it is known how far it comes.

    Two blocks of the mixer and a SwiGLU, each behind a norm and in a residual: MAD's backbone at a width
    and with a number of steps that a CPU has time for.

    Args:
        mixer: as a spec writes it; :data:`MEMORYLESS` for none.
        bound: of the task's first measure.
        solves: whether it must reach the bound, or must not get beyond it.
        steps: optimiser steps, fewer where the bound is reached before.
        sizes: arguments of the task as a spec writes them; the published ones where empty.
        width: of the stream.
        channel: whether a SwiGLU stands behind each mixer; Zoology's models have none.
        position: of the embedding.
        learning_rate: after a warm-up over a tenth of the steps; constant.
        batch: sequences of a step.
        starts: weights it may begin with, one after another until it solves the task: what finds a
            solution after a long plateau hangs on the draw, and on how a machine rounds.
    """

    mixer: str
    bound: float
    solves: bool = True
    steps: int = 200
    sizes: str = ""
    width: int = 64
    channel: bool = True
    position: str = "none"
    learning_rate: Fraction = Fraction(3, 1000)
    batch: int = 64
    starts: int = 1


@dataclass(frozen=True)
class Published:
    """A task with the arguments it has by default.

    Args:
        vocabulary: symbols.
        positions: of the sequence that a model sees.
        scored: mean share of positions that are judged; ``None`` where no source says it.
        anchors: how far small models come.
    """

    vocabulary: int
    positions: int
    scored: float | None
    anchors: tuple[Anchor, ...]
