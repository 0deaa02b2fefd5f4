"""The Miras space: what every point is, and whether points train.

    python -m tests.studies.miras --table                # every point: its family, or why it means nothing
    python -m tests.studies.miras --train 320            # so many distinct points, 20 steps each
    python -m tests.studies.miras --timing               # chunk form against token loop, time and memory
    python -m tests.studies.miras --chunks               # what a chunk costs against the online rule

Points are all combinations of the memories, biases, retentions and learners below.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import random
import re
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

import archdsl
from archdsl import Arch
from archdsl.blocks.base import Invalid
from archdsl.blocks.embed import Embed
from archdsl.blocks.miras.mixer import Miras
from archdsl.blocks.op import Type
from archdsl.blocks.ops.learner import LearnerMemory
from archdsl.blocks.ops.memory import DecayMemory, DeltaMemory, ScanMemory
from archdsl.compiler.graphs.lower import lower
from archdsl.compiler.graphs.passes import run
from archdsl.compiler.models.model import Model
from archdsl.compiler.terms.elements import Element

MEMORIES = (
    "vector",
    "matrix(heads = 2)",
    "mlp(depth = 1, heads = 2, bias = true)",
    "mlp(heads = 2, expand = 2)",
    "mlp(heads = 2, depth = 3, expand = 1, residual = false, norm = none, activation = silu)",
    "slots(count = 4, heads = 2)",
    "polynomial(matrix(heads = 4))",
    "polynomial(mlp(heads = 4, expand = 1, residual = false, norm = none))",
)
BIASES = (
    "dot", "l2", "lp(3)", "lp(3/2)", "huber", "huber(over = norm)", "huber(token, over = mixed)",
    "robust", "kl",
)  # fmt: skip
RETENTIONS = (
    "none", "decay(constant)", "decay(head)", "decay(channel)", "lq(4)", "lq(4, form = exact)",
    "elastic_net", "elastic_net(form = sum)", "kl", "kl(decay = decay(head))",
    "f_divergence(chi_squared)", "f_divergence(reverse_kl)", "f_divergence(hellinger)",
    "bregman(tanh)", "bregman(logistic, decay = decay(channel))", "sphere",
)  # fmt: skip
LEARNERS = (
    "gd(rate = token)", "gd(rate = fixed)", "gd(rate = head, chunk = 8)",
    "gd(rate = channel, chunk = 8)", "gd(rate = token, chunk = 8, average = true)",
    "gd(rate = token, chunk = 8, steps = 2)", "momentum(rate = token, chunk = 8)",
    "omega(rate = token, window = 4, chunk = 8)", "muon(rate = token, window = 2, chunk = 8)",
    "closed_form",
)  # fmt: skip

FAMILIES = {
    ScanMemory: "scan",
    DecayMemory: "decay",
    DeltaMemory: "delta",
    LearnerMemory: "learner",
}


@dataclass(frozen=True)
class Point:
    """One choice on each axis, as the language writes it."""

    memory: str
    bias: str
    retention: str
    learner: str

    @property
    def layer(self) -> str:
        """The mixer; keys of unit length, and values that are distributions where they are compared."""
        value = ", value = softmax" if self.bias == "kl" else ""
        return (
            f"miras({self.memory}, bias = {self.bias}, retention = {self.retention},"
            f" learner = {self.learner}, query = l2_norm, key = l2_norm{value})"
        )

    def arch(self, width: int = 16, symbols: int = 11) -> Arch:
        """A model of this layer between two residual branches' worth of structure.

        Raises:
            ArchError: the point means nothing.
        """
        body = f"embed(dim = {width}) residual {{ rms_norm {self.layer} }} rms_norm lm_head"
        body = body.replace("dim =", f"vocab = {symbols}, dim =")
        return archdsl.loads(f"model {{ {body} }}").sample(0)


@dataclass(frozen=True)
class Finding:
    """What a point is: the family that computes it and its name, or the reasons it is refused."""

    point: Point
    family: str
    note: str


def points() -> Iterator[Point]:
    """All of them."""
    for parts in itertools.product(MEMORIES, BIASES, RETENTIONS, LEARNERS):
        yield Point(*parts)


PARTNERS = {
    "memory": "miras({}, bias = l2)",
    "bias": "miras(matrix(heads = 2), bias = {}, value = softmax)",
    "retention": "miras(matrix(heads = 2), bias = l2, retention = {})",
    "learner": "miras(matrix(heads = 2), bias = l2, learner = {})",
}
"""A point in which every part of one axis means something, but for what is said of slots alone."""


@cache
def component(axis: str, text: str) -> Any:
    """One part as the language reads it."""
    layer = PARTNERS[axis].format(text)
    if text == "sphere":
        layer = layer.replace("matrix(heads = 2)", "slots(heads = 2)")
    return getattr(mixer(layer), axis)


@cache
def mixer(layer: str) -> Miras:
    """A mixer as the language reads it."""
    arch = archdsl.loads(f"model {{ embed(vocab = 11, dim = 16) {layer} lm_head }}").sample(0)
    read = arch.root[1].component
    assert isinstance(read, Miras)
    return read


def found(point: Point) -> Finding:
    """What the compiler says of a point: its parts are read once, and put together here."""
    parts = {axis: component(axis, getattr(point, axis)) for axis in PARTNERS}
    value = "softmax" if point.bias == "kl" else "none"
    whole = Miras(**parts, query="l2_norm", key="l2_norm", value=value)
    elements = [Element(Embed(dim=16, vocab=11)), Element(whole)]
    try:
        whole.verify()
        whole.infer(Type("features", 16))
        graph = run(lower(elements, 0), "recognise")
    except Invalid as complaint:
        return Finding(point, "rejected", complaint.id)
    [node] = [node for _, node in graph.walk() if type(node.op) in FAMILIES]
    return Finding(point, FAMILIES[type(node.op)], node.notes[0])


def table(findings: Sequence[Finding]) -> str:
    """How many points of each memory are computed by which family, and why others are refused."""
    kinds = [*FAMILIES.values(), "rejected"]
    lines = [f"{'memory':26}" + "".join(f"{kind:>10}" for kind in kinds)]
    for memory in MEMORIES:
        counts = Counter(f.family for f in findings if f.point.memory == memory)
        name = re.sub(r"\(.*?(depth = \d).*", r" \1", memory)[:25]
        lines.append(f"{name:26}" + "".join(f"{counts[kind]:10}" for kind in kinds))
    whole = Counter(f.family for f in findings)
    lines.append(
        f"{'all ' + str(len(findings)):26}" + "".join(f"{whole[kind]:10}" for kind in kinds)
    )
    reasons = Counter(f.note for f in findings if f.family == "rejected")
    lines += ["", "why rejected"] + [f"{n:8}  {reason}" for reason, n in reasons.most_common()]
    return "\n".join(lines)


def written(findings: Iterable[Finding], path: Path) -> None:
    """Every point as a line of a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["memory", "bias", "retention", "learner", "family", "note"])
        for f in findings:
            p = f.point
            writer.writerow([p.memory, p.bias, p.retention, p.learner, f.family, f.note])


# --- training ---------------------------------------------------------------------------------------


def trained(point: Point, steps: int = 20, length: int = 18) -> tuple[float, float]:
    """First and last loss of AdamW on one batch of random tokens; raises where anything is not finite."""
    model = point.arch().compile(seed=0)
    tokens = torch.randint(11, (2, length), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(steps):
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            grad = parameter.grad
            assert grad is not None, f"{name} has no gradient"
            assert bool(torch.isfinite(grad).all()), f"{name} has no finite gradient"
        optimizer.step()
        losses.append(float(loss.detach()))
        assert losses[-1] == losses[-1], "the loss is not a number"
    return losses[0], losses[-1]


def drawn(count: int, seed: int) -> Iterator[Point]:
    """Distinct points that compile in the learner family."""
    every, taken = list(points()), 0
    random.Random(seed).shuffle(every)
    for point in every:
        if taken == count:
            return
        if found(point).family == "learner":
            taken += 1
            yield point


def training(count: int, seed: int, note: Callable[[str], None] = lambda _: None) -> list[str]:
    """Train so many points; what fails is told by a line each."""
    failures: list[str] = []
    better = 0
    for number, point in enumerate(drawn(count, seed)):
        try:
            first, last = trained(point)
            better += last < first
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}: {point.layer}")
            note(f"{failures[-1]}\n")
        note(f"{number + 1} trained, {len(failures)} failures, {better} with a lower loss")
    return failures


# --- chunks -----------------------------------------------------------------------------------------

LINEAR = (
    "miras(matrix(heads = 4), bias = l2, retention = decay(head), query = l2_norm, key = l2_norm,"
    " learner = gd(rate = token, chunk = {chunk}))"
)
DEEP = "titans(heads = 4, chunk = {chunk})"


def model_of(layer: str, width: int = 128, depth: int = 1) -> Model:
    """A stack of one layer between a table and a head."""
    body = f"embed(vocab = 64, dim = {width}) repeat(times = {depth}) {{ residual {{ rms_norm {layer} }} }}"
    return archdsl.loads(f"model {{ {body} rms_norm lm_head }}").sample(0).compile(seed=0)


def whole(model: Model, tokens: Tensor) -> None:
    """Forward and backward of the chunk form."""
    model(tokens).square().mean().backward()


def stepped(model: Model, tokens: Tensor) -> None:
    """The same, a token at a time."""
    state, outputs = model.init_state(len(tokens)), []
    for token in tokens.unbind(1):
        out, state = model.step(token, state)
        outputs.append(out)
    torch.stack(outputs, 1).square().mean().backward()


def seconds(work: Callable[[], None], times: int) -> float:
    """The best of several runs."""
    best = float("inf")
    for _ in range(times):
        start = perf_counter()
        work()
        best = min(best, perf_counter() - start)
    return best


def timing(length: int = 1024, chunk: int = 16) -> Iterator[str]:
    """Chunk form against token loop, and the memory of a longer sequence."""
    tokens = torch.randint(64, (1, length), generator=torch.Generator().manual_seed(0))
    for name, layer in (("linear", LINEAR), ("MLP", DEEP)):
        model = model_of(layer.format(chunk=chunk))
        fast = seconds(lambda model=model: whole(model, tokens), 3)
        slow = seconds(lambda model=model: stepped(model, tokens), 1)
        said = f"{fast:.3f} s, a token at a time {slow:.2f} s, {slow / fast:.1f} x"
        yield f"{name:7} chunk {chunk}, T {length}: {said}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    long = torch.randint(64, (1, 4 * length), generator=torch.Generator().manual_seed(0))
    whole(model_of(DEEP.format(chunk=chunk), depth=2), long)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield f"2 MLP layers, T {4 * length}: peak {after:.2f} GB of the process ({before:.2f} GB before)"


def chunks(length: int = 256) -> Iterator[str]:
    """How far the output of a chunked rule is from the online one with the same weights, and its time.

    The step size a write is kept (its share of a chunk is undone), so that only the staleness differs.
    """
    tokens = torch.randint(64, (2, length), generator=torch.Generator().manual_seed(0))
    for name, layer in (("linear", LINEAR), ("MLP", DEEP)):
        online = None
        for chunk in (1, 2, 4, 8, 16, 32, 64):
            rate = f"beta_max = {chunk}/64, chunk = {chunk}"
            text = layer.replace("chunk = {chunk}", rate)
            if "titans" in layer:
                text = f"titans(heads = 4, chunk = {chunk}, rate = {chunk}/64)"
            model = model_of(text)
            with torch.no_grad():
                start = perf_counter()
                out = model(tokens)
                spent = perf_counter() - start
            online = out if online is None else online
            error = float((out - online).norm() / online.norm())
            yield f"{name:7} chunk {chunk:3}: {error:8.4f} from the online rule, forward {spent:.3f} s"


def main() -> int:
    """The command; the exit status is 1 where a point fails."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, help="a CSV file for the table's points")
    parser.add_argument("--train", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timing", action="store_true")
    parser.add_argument("--chunks", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.table:
        findings = [found(point) for point in points()]
        print(table(findings))
        if given.out:
            written(findings, given.out)
    lines = itertools.chain(timing() if given.timing else (), chunks() if given.chunks else ())
    for line in lines:
        print(line, flush=True)
    if not given.train:
        return 0
    failures = training(
        given.train, given.seed, lambda text: print(f"\r{text}", end="", file=sys.stderr)
    )
    print(f"\n{given.train} points, {len(failures)} failures", *failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
