"""A small space with real torch models, for tests of the search that need no compiler.

Its architectures can misbehave on purpose: diverge, hang, allocate without end, crash or raise.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from hashlib import sha256
from typing import Any

from archdsl.blocks.asking import SearchSection, TrainSection
from archdsl.search.metrics.hidden_covariance import HiddenCovariance
from archdsl.search.samplers.random import Random
from archdsl.search.space.sites import fitting
from archdsl.search.tasks.mqar import MQAR

TASK = MQAR(vocab=16, length=8, pairs=2)
TRAIN = TrainSection(batch=8, evaluate=16, learning_rate=Fraction(1, 100))
SEARCH = SearchSection(
    trials=8,
    sampler=Random(),
    rank=HiddenCovariance(),
    promote=Fraction(1, 2),
    rungs=(4, 8),
    trial_timeout=Fraction(60),
)


@dataclass(frozen=True)
class FakeSite:
    path: str
    kind: str
    options: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.options)

    def text(self, index: int) -> str:
        return self.options[index]


MEMORY = FakeSite("model.memory", "choice", ("gru", "linear", "rnn"))
WIDTH = FakeSite("model.width", "range", ("4", "8", "12", "16"))
LAYERS = FakeSite("model.memory.layers", "choice", ("1", "2"))
"""Only where the memory is not linear."""


@dataclass(frozen=True)
class FakeCost:
    params: int
    width: int

    def flops(self, length: int, mode: str = "prefill") -> float:
        return 2.0 * self.params

    def state_bytes(self, length: int) -> int:
        return 4 * self.width


@dataclass(frozen=True)
class FakeObjective:
    direction: str
    text: str
    needs: tuple[Any, ...] = ()

    def value(self, cost: FakeCost, measured: Mapping[str, float]) -> float:
        return float(cost.state_bytes(8)) if self.text == "state_bytes" else measured[self.text]


ACCURACY = FakeObjective("maximize", "recall.accuracy", ("recall.accuracy",))
STATE = FakeObjective("minimize", "state_bytes")


@dataclass(frozen=True)
class FakeArch:
    assignment: dict[str, int]
    choices: dict[str, str]
    trouble: dict[str, str] = field(default_factory=dict)
    task: MQAR = TASK
    train: TrainSection = TRAIN
    requirements: tuple[Any, ...] = ()

    @property
    def text(self) -> str:
        return json.dumps({"assignment": self.assignment, "choices": self.choices,
                           "trouble": self.trouble})  # fmt: skip

    @cached_property
    def hash(self) -> str:
        return sha256(json.dumps(self.choices, sort_keys=True).encode()).hexdigest()

    @property
    def tasks(self) -> dict[str, MQAR]:
        return {"recall": self.task}

    @property
    def width(self) -> int:
        return int(self.choices[WIDTH.path])

    @property
    def cost(self) -> FakeCost:
        return FakeCost(self.width**2 * (2 + len(self.choices)), self.width)

    def compile(self, device: str = "cpu", dtype: str = "float32", seed: int = 0) -> Any:
        from fake_model import build

        ways = [self.trouble[text] for text in self.choices.values() if text in self.trouble]
        return build(self, ways, seed)


@dataclass
class FakeSpace:
    """``trouble`` says what goes wrong with an architecture that holds a choice."""

    search: SearchSection = SEARCH
    objectives: tuple[FakeObjective, ...] = (ACCURACY,)
    trouble: dict[str, str] = field(default_factory=dict)
    largest: int = 10**9
    text_hash: str = "fake"
    slow: float = 0.0
    widths: tuple[str, ...] = WIDTH.options

    def to_json(self) -> str:
        raise AssertionError("fakes are read by their own loader")

    def count(self) -> int:
        return len(self.widths) * (2 * 2 + 1)

    def decide(self, choose: Callable[[FakeSite], int]) -> FakeArch:
        sites = [FakeSite(WIDTH.path, WIDTH.kind, self.widths), MEMORY]
        assignment = {site.path: choose(site) for site in sites}
        if MEMORY.options[assignment[MEMORY.path]] != "linear":
            sites.append(LAYERS)
            assignment[LAYERS.path] = choose(LAYERS)
        choices = {site.path: site.text(assignment[site.path]) for site in sites}
        return FakeArch(assignment, choices, self.trouble)

    def arch(self, assignment: Mapping[str, int]) -> FakeArch:
        return self.decide(lambda site: assignment[site.path])

    def sample(self, seed: int) -> FakeArch:
        draw = random.Random(seed)
        while True:
            arch = fitting(self, lambda site: draw.randrange(site.size))
            if arch is not None and self.feasible(arch):
                return arch

    def mutate(self, arch: FakeArch, seed: int) -> FakeArch:
        draw = random.Random(seed)
        while True:
            path = draw.choice(list(arch.assignment))

            def choose(site: FakeSite, path: str = path) -> int:
                kept = arch.assignment.get(site.path)
                return draw.randrange(site.size) if site.path == path or kept is None else kept

            found = fitting(self, choose)
            if found is not None and self.feasible(found):
                return found

    def crossover(self, a: FakeArch, b: FakeArch, seed: int) -> FakeArch:
        draw = random.Random(seed)

        def choose(site: FakeSite) -> int:
            known = [p.assignment[site.path] for p in (a, b) if site.path in p.assignment]
            return draw.choice(known) if known else draw.randrange(site.size)

        found = fitting(self, choose)
        return found if found is not None and self.feasible(found) else a

    def feasible(self, arch: FakeArch) -> bool:
        return arch.cost.params <= self.largest


def load_fake(text: str) -> FakeArch:
    """The worker's loader."""
    return FakeArch(**json.loads(text))


def misbehave(ways: list[str]) -> None:
    """Do what an architecture is marked with."""
    for way in ways:
        if way == "hang":
            time.sleep(1000)
        elif way == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif way == "error":
            raise ValueError("this model\nis broken")
        elif way == "memory":
            bytearray(2**46)
        elif way == "slow":
            time.sleep(0.05)
