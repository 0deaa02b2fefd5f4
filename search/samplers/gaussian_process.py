"""Bayesian optimisation with a Gaussian process over conditional choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random as Generator
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from archdsl.search.samplers.base import Past, SpaceSampler
from archdsl.search.space.protocols import Site, Space
from archdsl.search.space.sites import fitting, located

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MOST = 300
"""Candidates a process is fitted to: the best half of them, and the youngest."""

NOISES = (1e-3, 1e-2, 1e-1, 1.0)
SCALES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""What the likelihood chooses among: the noise's variance, and the inverse squared length of a choice."""

PARENTS = 4
"""Best candidates whose neighbours are looked at, beside uniform draws."""


class GaussianProcess(SpaceSampler):
    """Bayesian optimisation: the candidate of the largest expected improvement under a Gaussian process.

    "Practical Bayesian Optimization of Machine Learning Algorithms" (Snoek et al., NeurIPS 2012). The
    kernel is exp(−Σ w·d), with d the distance of two architectures at one choice: 1 where the
    alternatives differ or only one of the two has the choice, the squared distance of indices for ordered
    numbers (after Hutter and Osborne, "A Kernel for Hierarchical Parameter Spaces", 2013). Results are
    normal scores of their places, so several objectives and cut candidates have one scale.

    Args:
        startup: random candidates before the first process.
        candidates: candidates that expected improvement is compared over.
    """

    name: ClassVar[str] = "gp"

    startup: Annotated[int, Field(ge=2, le=10**6)] = 10
    candidates: Annotated[int, Field(ge=2, le=10**5)] = 96

    def pick(self, past: Sequence[Past], space: Space, draw: Generator) -> Mapping[str, int] | None:
        """The best of many candidates by expected improvement."""
        done = fewer([each for each in past if each.state == "done"])
        if len(done) < self.startup:
            return None
        known = {frozenset(each.assignment.items()) for each in past}
        offered = Offered(space, draw)
        offered.look(self.candidates, sorted(done, key=lambda each: each.place)[:PARENTS])
        new = [each for each in offered.found if frozenset(each.items()) not in known]
        running = [each for each in past if each.state == "running"]
        sizes = offered.sizes | spans([*done, *running])
        process = fitted(done, sizes).believing([each.assignment for each in running])
        gains = process.improvements(new) if new else []
        ordered = sorted(range(len(new)), key=lambda n: -gains[n])
        return next((new[n] for n in ordered if is_feasible(space, new[n])), None)


class Offered:
    """Candidates to compare, constraints aside, and the choices they have.

    Args:
        space: all candidates.
        draw: the source of chance.
    """

    def __init__(self, space: Space, draw: Generator) -> None:
        self.space, self.draw = space, draw
        self.found: list[Mapping[str, int]] = []
        self.sizes: dict[str, float] = {}

    def look(self, count: int, parents: Sequence[Past]) -> None:
        """Half of them drawn uniformly, half of them neighbours of the parents."""
        for _ in range(count // 2):
            self._add({}, frozenset())
        for number in range(count - count // 2):
            parent = parents[number % len(parents)].assignment
            many = min(len(parent), self.draw.choice((1, 1, 2)))
            self._add(parent, frozenset(self.draw.sample(sorted(parent), many)))

    def _add(self, like: Mapping[str, int], again: frozenset[str]) -> None:
        """One that decides as ``like`` does, but for what is to be drawn again or is new."""

        def choose(site: Site) -> int:
            self.sizes[site.path] = site.size - 1.0 if site.kind == "range" else 0.0
            kept = like.get(site.path, site.size)
            new = site.path in again or kept >= site.size
            return self.draw.randrange(site.size) if new else kept

        arch = fitting(self.space, choose)
        if arch is not None:
            self.found.append(arch.assignment)


def spans(past: Sequence[Past]) -> dict[str, float]:
    """Each choice's largest distance of indices: 0 for unordered alternatives."""
    return {
        path: shape.size - 1.0 if shape.ordered else 0.0
        for each in past
        for path, shape in each.shapes.items()
    }


def is_feasible(space: Space, assignment: Mapping[str, int]) -> bool:
    """Whether an assignment keeps every constraint."""
    arch = located(space, assignment)
    return arch is not None and space.feasible(arch)


def fewer(done: Sequence[Past]) -> list[Past]:
    """At most :data:`MOST`: the best half of them, and the youngest of the others."""
    if len(done) <= MOST:
        return list(done)
    best = set(sorted(range(len(done)), key=lambda n: done[n].place)[: MOST // 2])
    young = [n for n in range(len(done)) if n not in best][-(MOST - len(best)) :]
    return [done[n] for n in sorted([*best, *young])]


@dataclass(frozen=True)
class Process:
    """A Gaussian process with mean 0 and unit variance, fitted to points.

    Args:
        sizes: of the choices; see :func:`spans`.
        seen: the points.
        values: their results, [n].
        weights: inverse squared length of each choice, [sites].
        noise: variance.
    """

    sizes: Mapping[str, float]
    seen: Sequence[Mapping[str, int]]
    values: Floats
    weights: Floats
    noise: float

    def predict(self, points: Sequence[Mapping[str, int]]) -> tuple[Floats, Floats]:
        """Mean and standard deviation at each point, [m] each."""
        import numpy as np

        kernel = _kernel(distances(self.seen, self.seen, self.sizes), self.weights)
        across = _kernel(distances(points, self.seen, self.sizes), self.weights)
        inverse = np.linalg.inv(kernel + self.noise * np.eye(len(kernel)))
        variance = 1.0 - np.einsum("ij,jk,ik->i", across, inverse, across, optimize=True)
        return across @ (inverse @ self.values), np.sqrt(np.maximum(variance, 1e-12))

    def believing(self, points: Sequence[Mapping[str, int]]) -> Process:
        """With points whose results are not known yet as they are expected to be."""
        import numpy as np

        if not points:
            return self
        mean, _ = self.predict(points)
        values = np.concatenate([self.values, mean])
        return Process(self.sizes, [*self.seen, *points], values, self.weights, self.noise)

    def improvements(self, points: Sequence[Mapping[str, int]]) -> list[float]:
        """Expected improvement over the best expected result at each point."""
        mean, deviation = self.predict(points)
        best = float(self.predict(self.seen)[0].max())
        unit = NormalDist()
        scaled = [(float(m) - best) / float(d) for m, d in zip(mean, deviation, strict=True)]
        return [
            float(d) * (z * unit.cdf(z) + unit.pdf(z))
            for d, z in zip(deviation, scaled, strict=True)
        ]


def fitted(done: Sequence[Past], sizes: Mapping[str, float]) -> Process:
    """The process of the largest likelihood: one length for all choices, then each choice by itself."""
    import numpy as np

    seen = [each.assignment for each in done]
    values = np.array([each.merit for each in done])
    apart = distances(seen, seen, sizes)
    count = apart.shape[0]
    options = [(noise, scale) for noise in NOISES for scale in SCALES]
    noise, scale = max(
        options, key=lambda each: likelihood(apart, np.full(count, each[1]), each[0], values)
    )
    weights = np.full(count, scale)
    for site in range(count):
        tried = [_changed(weights, site, factor) for factor in (1.0, 0.1, 0.01, 4.0)]
        weights = max(tried, key=lambda each: likelihood(apart, each, noise, values))
    return Process(sizes, seen, values, weights, noise)


def likelihood(apart: Floats, weights: Floats, noise: float, values: Floats) -> float:
    """Log-likelihood of values under a process, up to a constant.

    Args:
        apart: distances at each choice, [sites, n, n].
        weights: [sites].
        noise: variance.
        values: [n].
    """
    import numpy as np

    kernel = _kernel(apart, weights) + noise * np.eye(len(values))
    lower = np.linalg.cholesky(kernel)
    whitened = np.linalg.solve(lower, values)
    return float(-0.5 * whitened @ whitened - np.log(np.diag(lower)).sum())


def distances(
    one: Sequence[Mapping[str, int]], other: Sequence[Mapping[str, int]], sizes: Mapping[str, float]
) -> Floats:
    """Distances at each choice: [sites, n, m]."""
    import numpy as np

    found = []
    for path, size in sizes.items():
        a = np.array([each.get(path, -1) for each in one], dtype=np.float64)[:, None]
        b = np.array([each.get(path, -1) for each in other], dtype=np.float64)[None, :]
        differ = (a != b).astype(np.float64)
        ordered = (a >= 0) & (b >= 0) & (size > 0)
        found.append(np.where(ordered, ((a - b) / max(size, 1.0)) ** 2, differ))
    return np.array(found)


def _kernel(apart: Floats, weights: Floats) -> Floats:
    import numpy as np

    found: Floats = np.exp(-np.tensordot(weights, apart, 1))
    return found


def _changed(weights: Floats, site: int, factor: float) -> Floats:
    found = weights.copy()
    found[site] *= factor
    return found
