"""Random architectures of a wide space, each through its whole life.

    python -m tests.studies.architectures --count 300 --seed 0 --compile 20

draws architectures from ``wide.arch``, ``deep.arch`` and ``routed.arch`` in turn, or with ``--space`` from
one of them, every choice with equal odds, and checks of each what the language promises: it compiles, trains
a step, decodes with the same outputs token by token and in any chunks, sees no later token where it says so,
costs exactly what its cost says, and survives its checkpoint and its closed text. What fails is listed with
the seed and the text that shows it. A seed draws the same from a space whatever is drawn beside it.

Two forms of a model differ by the order of their roundings. In float64 that is nothing, and every two forms
must agree to 1e-10. In float32 it may be much: a norm behind a read that nearly cancels amplifies rounding
ten thousand times, and a token that stands between two memories goes to one or the other. How much a model
amplifies is measured on the model itself: each weight is moved to the float32 next to it, up or down by
chance, and the *same* form is run again. Two forms may differ by at most ``MULTIPLE`` times the most that
such changes do. Most models move by a few millionths, and are held to that; what one rounding of the weights
changes, no two orders of summation can agree on.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, inf
from torch.utils.flop_counter import FlopCounterMode

import archdsl
from archdsl import Arch, Space
from archdsl.blocks.op import Op, Work
from archdsl.blocks.ops.memory import Memory
from archdsl.compiler.graphs.cost import Cost
from archdsl.compiler.models.checkpoint import load_model
from archdsl.compiler.models.model import Model
from archdsl.grammar.format import format_program
from archdsl.grammar.parse import parse
from tests.routed_products import counted_learners

NAMES = ("wide", "deep", "routed")
SPACES = {name: (name,) for name in NAMES} | {"all": NAMES}
"""What ``--space`` takes, and the spaces it draws from in turn."""

LENGTH = 97
BATCH = 2
TRACED = 19
EXACT = 1e-10
"""How far two forms may be apart in float64, relative to the largest output."""

MULTIPLE = 4
"""How many times further apart two forms may be in float32 than one form where its weights are nudged."""

NUDGES = 32
"""How many such changes are tried at most; one is enough for nearly every model."""


@dataclass
class Life:
    """One architecture, and what its checks share."""

    seed: int
    arch: Arch
    moves: list[float] = field(default_factory=list)

    @cached_property
    def model(self) -> Model:
        """Compiled once; the checks leave its weights alone."""
        return self.arch.compile(seed=self.seed)

    @cached_property
    def tokens(self) -> Tensor:
        """``[B, T]`` of its vocabulary."""
        symbols = self.model.get_parameter("embed.weight").shape[0]
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randint(symbols, (BATCH, LENGTH), generator=generator)

    @cached_property
    def logits(self) -> Tensor:
        """What the parallel form gives."""
        with torch.no_grad():
            return self.model(self.tokens)

    @cached_property
    def exact(self) -> Model:
        """The same weights in float64."""
        model = self.arch.compile(dtype="float64", seed=self.seed)
        model.load_state_dict(self.model.state_dict())
        return model

    @cached_property
    def exact_logits(self) -> Tensor:
        """What the parallel form gives in float64."""
        with torch.no_grad():
            return self.exact(self.tokens)

    def moved(self, nudge: int) -> float:
        """How far the parallel form moves at a change of the weights; each is found once, in turn."""
        while len(self.moves) <= nudge:
            twin = nudged(self.model, len(self.moves))
            with torch.no_grad():
                self.moves.append(apart(twin(self.tokens), self.logits))
        return self.moves[nudge]

    def amplified(self, error: float) -> float:
        """A difference in float32, as a multiple of what nudged weights do; at most ``MULTIPLE``.

        Changes are tried until one explains the difference.
        """
        if error == 0:
            return 0.0
        for nudge in range(NUDGES):
            most = max(self.moved(earlier) for earlier in range(nudge + 1))
            if error <= MULTIPLE * most:
                return error / most
        raise AssertionError(f"{error:.1e} apart, and nudged weights move it by {most:.1e}")

    def chunkings(self) -> Iterator[list[int]]:
        """One token at a time, a few tokens at a time, and any sizes."""
        yield [1] * LENGTH
        yield [64, LENGTH - 64]
        rng, sizes = random.Random(self.seed), []
        while sum(sizes) < LENGTH:
            sizes.append(min(rng.randint(1, 40), LENGTH - sum(sizes)))
        yield sizes


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected element, at least one."""
    assert bool(torch.isfinite(found).all()), "not finite"
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))


def nudged(model: Model, seed: int) -> Model:
    """A copy whose every weight is the float32 next to it, above or below by chance."""
    twin, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in twin.parameters():
            up = torch.rand(weight.shape, generator=generator) < 0.5
            weight.copy_(torch.nextafter(weight, torch.where(up, inf, -inf)))
    return twin


# --- checks: each gives a figure to show, or raises --------------------------------------------------


def compiles(life: Life) -> float:
    """A valid graph, a module, finite logits."""
    life.arch.graph.verify()
    assert bool(torch.isfinite(life.logits).all()), "logits are not finite"
    return 0.0


def trains(life: Life) -> float:
    """One step: a finite loss, a finite gradient for every parameter, another loss behind it."""
    model = life.arch.compile(seed=life.seed)
    targets = life.tokens[:, 1:] if life.logits.shape[1] > 1 else life.tokens[:, 0] % 5
    loss = model.loss(life.tokens[:, :-1], targets)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert bool(torch.isfinite(parameter.grad).all()), f"{name} has no finite gradient"
    torch.optim.SGD(model.parameters(), lr=1e-4).step()
    after = model.loss(life.tokens[:, :-1], targets)
    assert bool(torch.isfinite(after)), "the loss is not finite behind a step"
    return 0.0


def decodes(life: Life) -> float:
    """Step, prefill in any chunks, and the parallel form give the same in float64."""
    if not life.model.cost.causal:
        return 0.0
    return max(exactly_decoded(life, sizes) for sizes in life.chunkings())


def exactly_decoded(life: Life, sizes: list[int]) -> float:
    """How far one way to decode is from the parallel form in float64."""
    error = apart(decoded(life.exact, life.tokens, sizes), life.exact_logits)
    assert error <= EXACT, f"chunks of {sizes[:4]}… are {error:.1e} apart"
    return error


def rounds(life: Life) -> float:
    """In float32 they differ by rounding alone: the figure is a multiple of what nudged weights do."""
    if not life.model.cost.causal:
        return 0.0
    ways = (decoded(life.model, life.tokens, sizes) for sizes in life.chunkings())
    return max(life.amplified(apart(way, life.logits)) for way in ways)


def decoded(model: Model, tokens: Tensor, sizes: list[int]) -> Tensor:
    """The logits of prefills of the given sizes, one behind the other."""
    state, rows = model.init_state(len(tokens)), []
    with torch.no_grad():
        for part in tokens.split(sizes, 1):
            logits, state = model.prefill(part, state)
            rows.append(logits)
    return torch.cat(rows, 1)


def causal(life: Life) -> float:
    """No output sees a later token, where the cost says so."""
    if not life.model.cost.causal:
        return 0.0
    cut = LENGTH // 2
    changed = life.tokens.clone()
    changed[:, cut:] = 0
    with torch.no_grad():
        error = apart(life.exact(changed)[:, :cut], life.exact_logits[:, :cut])
    assert error <= EXACT, f"earlier outputs move by {error:.1e}"
    return error


def parameters(life: Life) -> float:
    """As many as the cost says."""
    found = sum(p.numel() for p in life.model.parameters())
    assert found == life.arch.cost.params, f"{found} are not {life.arch.cost.params}"
    return float(found)


def states(life: Life) -> float:
    """As large as the cost says, fresh and behind any number of tokens."""
    cost, model = life.arch.cost, life.model
    state, length = model.init_state(BATCH), 0
    for size in (0, 3, 30) if cost.causal else (0,):
        if size:
            with torch.no_grad():
                _, state = model.prefill(life.tokens[:, :size], state)
        length += size
        found, said = model.state_bytes(state), BATCH * cost.state_bytes(length)
        assert found == said, f"{found} bytes are not {said} behind {length} tokens"
    return float(model.state_bytes(state))


def flops(life: Life) -> float:
    """Within 5 % of what PyTorch counts, for a sequence and for a step.

    What depends on which tokens go where is counted as they went.
    """
    cost = life.arch.cost
    errors = [_from_counted(cost, Work(LENGTH, BATCH), lambda: life.model(life.tokens))]
    if life.model.cost.causal:
        with torch.no_grad():
            _, state = life.model.prefill(life.tokens, life.model.init_state(BATCH))
        work = Work(LENGTH + 1, BATCH, "decode")
        errors.append(_from_counted(cost, work, lambda: life.model.step(life.tokens[:, 0], state)))
    assert max(errors) <= 0.05, f"{max(errors):.1%} from PyTorch's count"
    return max(errors)


def _from_counted(cost: Cost, work: Work, action: Callable[[], object]) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter, counted_learners() as learned:
        action()
    said = cost.total_flops(work) - cost.estimated_flops(work) + sum(learned)
    return abs(said - counter.get_total_flops()) / counter.get_total_flops()


def checkpoint(life: Life) -> float:
    """A saved model loads as the same model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        life.model.save(str(path))
        other = load_model(path)
    assert other.arch.hash == life.arch.hash, "another architecture was loaded"
    with torch.no_grad():
        assert torch.equal(other(life.tokens), life.logits), "the loaded model gives other logits"
    return 0.0


def closed_text(life: Life) -> float:
    """The closed text is one architecture with the same hash, however it is laid out."""
    once = format_program(parse(life.arch.text))
    assert format_program(parse(once)) == once, "formatting twice changes the text again"
    for text in (life.arch.text, once):
        space = archdsl.loads(text)
        assert space.count() == 1, f"the closed text has {space.count()} architectures"
        assert space.sample(0).hash == life.arch.hash, "the closed text hashes otherwise"
    return 0.0


def compiled(life: Life, backend: str = "inductor") -> float:
    """``torch.compile(fullgraph=True)`` gives the same.

    On a few tokens: the loop of a cell that is no scan is traced a step at a time.
    """
    torch.compiler.reset()
    model = torch.compile(life.model, fullgraph=True, dynamic=False, backend=backend)
    few = life.tokens[:, :TRACED]
    with torch.no_grad():
        return life.amplified(apart(model(few), life.model(few)))


Check = Callable[[Life], float]

CHECKS: tuple[Check, ...] = (
    compiles, trains, decodes, rounds, causal, parameters, states, flops, checkpoint, closed_text,
)  # fmt: skip


# --- the study ---------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What one check found over all architectures."""

    passed: int = 0
    worst: float = 0.0
    seconds: float = 0.0


@dataclass
class Outcome:
    """A whole study."""

    count: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    hashes: set[str] = field(default_factory=set)

    def run(self, life: Life, check: Check, name: str) -> None:
        """One check of one architecture."""
        tally, start = self.tallies.setdefault(name, Tally()), perf_counter()
        try:
            tally.worst = max(tally.worst, check(life))
            tally.passed += 1
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self.failures.append(f"seed {life.seed}, {name}: {reason}\n{life.arch.text}")
        tally.seconds += perf_counter() - start

    def see(self, life: Life) -> None:
        """Count the operations of an architecture."""
        self.hashes.add(life.arch.hash)
        for kind in {named(node.op) for _, node in life.arch.graph.walk()}:
            self.kinds[kind] = self.kinds.get(kind, 0) + 1


def named(op: Op) -> str:
    """What is counted: an operation's kind; for a memory its point without the learner."""
    return " ".join(op.point[:3]) if isinstance(op, Memory) else op.kind()


Note = Callable[[str], None]


def quiet(text: str) -> None:
    """Say nothing."""


def aloud(text: str) -> None:
    """One line of the terminal, over and over."""
    if sys.stderr.isatty():
        print(f"\r{text}", end="", file=sys.stderr, flush=True)


def text_of(space: str) -> Path:
    """The file of a space."""
    return Path(__file__).with_name(f"{space}.arch")


def drawn(space: Space, seed: int) -> Arch:
    """An architecture with equal odds for the alternatives of each choice."""
    rng = random.Random(seed)
    return space.decide(lambda site: rng.randrange(site.size))


def study(
    seeds: Iterable[int],
    compile_first: int = 0,
    backend: str = "inductor",
    note: Note = quiet,
    space: str = "wide",
    minutes: float = math.inf,
) -> Outcome:
    """Every check of every seed's architecture; the first so many are also compiled.

    ``note`` is told how far it is, behind each architecture. None is begun behind so many ``minutes``.
    """
    end = perf_counter() + 60 * minutes
    outcome, spaces = Outcome(), [archdsl.load(text_of(name)) for name in SPACES[space]]
    for number, seed in enumerate(seeds):
        if perf_counter() > end:
            break
        life = Life(seed, drawn(spaces[seed % len(spaces)], seed))
        outcome.count += 1
        for check in CHECKS:
            outcome.run(life, check, check.__name__)
        if number < compile_first:
            outcome.run(life, lambda life: compiled(life, backend), "torch.compile")
        outcome.see(life)
        note(f"{number + 1} drawn, {len(outcome.failures)} failures")
    return outcome


def table(outcome: Outcome) -> str:
    """The study as text."""
    lines = [f"{outcome.count} architectures, {len(outcome.hashes)} of them different"]
    lines += [f"{'check':15}{'passed':>8}{'worst':>12}{'seconds':>10}"]
    lines += [
        f"{name:15}{tally.passed:8}{tally.worst:12.3g}{tally.seconds:10.1f}"
        for name, tally in outcome.tallies.items()
    ]
    kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(outcome.kinds.items()))
    lines += [f"architectures with an operation: {kinds}", f"failures: {len(outcome.failures)}"]
    return "\n".join([*lines, *outcome.failures])


def main() -> int:
    """The command; the exit status is 1 where something failed."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", type=int, default=0, help="how many to torch.compile as well")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin none behind so many")
    parser.add_argument("--space", choices=SPACES, default="all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(given.seed, given.seed + given.count)
    outcome = study(seeds, given.compile, given.backend, aloud, given.space, given.minutes)
    print(table(outcome))
    return bool(outcome.failures)


if __name__ == "__main__":
    sys.exit(main())
