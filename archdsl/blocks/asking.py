"""What a file asks: tasks, samplers and metrics as components, and the ``train`` and ``search`` sections.

The language checks them like any other component; what they do is written above the compiler, in
``archdsl.search``, by subclasses that the registry names.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from archdsl.blocks.base import Component, Count, Kind, Real

Direction = Literal["maximize", "minimize"]


class Task(Component):
    """Something to learn. ``measures`` names what an evaluation gives and which way is better."""

    kind: ClassVar[Kind] = "task"
    measures: ClassVar[Mapping[str, Direction]]

    @property
    def symbols(self) -> int:
        """Vocabulary the task needs: what ``embed`` and the head take where the file names none."""
        raise AssertionError(f"{type(self).__name__} does not say its vocabulary")

    @property
    def positions(self) -> int:
        """Length of one training sequence, in tokens."""
        raise AssertionError(f"{type(self).__name__} does not say its length")


class Sampler(Component):
    """How the next candidate is proposed."""

    kind: ClassVar[Kind] = "sampler"


class Metric(Component):
    """A score of an untrained model; larger is better."""

    kind: ClassVar[Kind] = "metric"


class Section(BaseModel):
    """The settings of one section; checked like a component's arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainSection(Section):
    """``train { … }``: how every candidate is trained. Its settings may be choices of the space."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[Real, Field(gt=0, le=100)] = Fraction(3, 1000)
    weight_decay: Annotated[Real, Field(ge=0, le=10)] = Fraction(1, 10)
    batch: Annotated[int, Field(ge=1, le=65536)] = 64
    warmup: Annotated[Real, Field(ge=0, lt=1)] = Fraction(1, 10)
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    clip: Annotated[Real, Field(gt=0)] | None = Fraction(1)
    evaluate: Annotated[int, Field(ge=1, le=10**6)] = 512
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


class SearchSection(Section):
    """``search { … }``: how the space is searched; objectives stand apart.

    ``promote`` is the share of scored candidates that are trained, ``rungs`` the optimiser steps
    after which the rest are cut, ``trial_timeout`` the seconds one trial may take.
    """

    trials: Annotated[int, Field(ge=1, le=10**7)] = 100
    sampler: Sampler | None = None
    rank: Metric | None = None
    promote: Annotated[Real, Field(gt=0, le=1)] = Fraction(1)
    rungs: Annotated[tuple[Count, ...], Field(min_length=1, max_length=32)] = (200,)
    trial_timeout: Annotated[Real, Field(gt=0)] = Fraction(600)
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
