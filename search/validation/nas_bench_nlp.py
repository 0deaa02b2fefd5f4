"""NAS-Bench-NLP: recurrent cells, each trained as a three-layer language model on Penn Treebank.

"NAS-Bench-NLP: Neural Architecture Search Benchmark for Natural Language Processing" (Klyuchnikov et al.,
2020, arXiv 2006.07116). A recipe is a graph of operations; here it is said as a ``cell``'s equations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from archdsl.search.validation.base import Entry, Format

VOCAB, WIDTHS = 10_000, (400, 600, 600, 400)
"""The benchmark's: symbols; widths of the embedding and of the three layers."""

SCORED_VOCAB, SCORED_WIDTHS = 256, (24, 36, 36, 24)
"""What cells are scored with: the widths keep their proportions.

``archdsl_rank`` orders the development cells alike from here to twice the widths, four times the symbols,
eight tokens and 64 sequences: τ is within .611 to .622 in all of them.
"""

PAPER = {
    "hidden_covariance": 0.371, "hidden_covariance(layer = last)": 0.247, "jacobian_cosine": 0.264,
    "noised_jacobian": 0.280, "noised_jacobian(noise = large)": 0.273, "hidden_saliency": 0.268,
    "activation_distance(published = true)": 0.223, "synaptic_saliency(signed = true)": 0.122,
    "jacobian_covariance": 0.003, "params": 0.001,
}  # fmt: skip
"""|τ| of Serianni and Kalita (ACL 2023), from their data."""

Recipe = Mapping[str, Mapping[str, Any]]
"""Node → ``op`` and ``input``; sources are ``x`` and ``h_prev_i``, sinks ``h_new_i``."""


def _linear(*inputs: str) -> str:
    """``linear`` with the benchmark's start, whose bound is the same for every input.

    Where ``x`` is among them, whose width is another, the factor is the definition's: see :func:`gains`.
    """
    gain = f"gain{len(inputs)}" if "x" in inputs else f"{len(inputs) ** 0.5:.6f}"
    return f"linear({', '.join(inputs)}, init = uniform, bias_init = uniform, gain = {gain})"


def gains(recipe: Recipe, before: int, width: int) -> dict[str, float]:
    """What a definition takes: a layer's width, and a factor for each count of inputs.

    The language draws within the inverse root of all that a ``linear`` sums; the factor makes it that
    of the width alone.
    """
    counts = {len(n["input"]) for n in recipe.values() if n["op"] == "linear" and "x" in n["input"]}
    factors = {f"gain{count}": (before / width + count - 1) ** 0.5 for count in sorted(counts)}
    return {"width": width, **factors}


SPELLING: dict[str, Callable[..., str]] = {
    "linear": _linear,
    "blend": lambda gate, a, b: f"{gate} * {a} + (1 - {gate}) * {b}",
    "elementwise_prod": lambda a, b: f"{a} * {b}",
    "elementwise_sum": lambda a, b: f"{a} + {b}",
    "activation_tanh": lambda a: f"tanh({a})",
    "activation_sigm": lambda a: f"sigmoid({a})",
    "activation_leaky_relu": lambda a: f"leaky_relu({a})",
}
"""Each operation of the benchmark as an expression."""

TAKES = {
    "blend": 3, "elementwise_prod": 2, "elementwise_sum": 2,
    "activation_tanh": 1, "activation_sigm": 1, "activation_leaky_relu": 1,
}  # fmt: skip
"""How many inputs an operation takes; ``linear`` takes any."""


def cell(recipe: Recipe, states: int) -> str:
    """A recipe as a definition; states are assigned last, so that every node reads the old ones.

    Weights and biases start as in the benchmark: uniform within the inverse root of the width.
    """
    names = ", ".join(f"h{i}" for i in range(states))
    _check(recipe, states)
    equations = [f"{_name(node)} = {_expression(recipe[node])}" for node in ordered(recipe)]
    equations += [f"h{i} = new{i}" for i in range(states)]
    body = "\n".join(f"    {equation}" for equation in equations)
    heading = f"cell(state = [{names}], output = h0, width = width)"
    parameters = ", ".join(gains(recipe, 1, 1))
    return f"def layer({parameters}) = {heading} {{\n{body}\n}}\n"


def _check(recipe: Recipe, states: int) -> None:
    """Complain of a recipe that is none of so many states.

    Raises:
        ValueError: it gives no new value of a state, or reads a state that there is not.
    """
    lacking = [f"h_new_{i}" for i in range(states) if f"h_new_{i}" not in recipe]
    if states < 1 or lacking:
        raise ValueError(f"its recipe gives no `{(lacking or ['h_new_0'])[0]}`")
    read = {source for node in recipe.values() for source in node["input"]}
    beyond = sorted(s for s in read if s.startswith("h_prev_") and s not in _old(states))
    if beyond:
        raise ValueError(f"its recipe reads `{beyond[0]}`, and it has {states} states")


def _old(states: int) -> set[str]:
    return {f"h_prev_{i}" for i in range(states)}


def ordered(recipe: Recipe) -> list[str]:
    """Nodes, each behind those it reads.

    Raises:
        ValueError: nodes read each other in a circle, or one reads what there is not.
    """
    done: dict[str, None] = {}
    while len(done) < len(recipe):
        ready = [
            node
            for node in recipe
            if node not in done and all(_known(source, done) for source in recipe[node]["input"])
        ]
        if not ready:
            left = next(node for node in recipe if node not in done)
            raise ValueError(f"node `{left}` reads what no node gives before it")
        done |= dict.fromkeys(ready)
    return list(done)


def _entry(record: Mapping[str, Any]) -> Entry:
    recipe, states = record["recipe"], record["hidden_states"]
    loss, definition = record["ptb_test_loss"], cell(recipe, states)
    return Entry(
        name=str(record["arch"]),
        text=_around(definition, recipe, VOCAB, WIDTHS),
        scored=_around(definition, recipe, SCORED_VOCAB, SCORED_WIDTHS),
        reached=None if loss is None else -loss,
        stratum=f"{states} states",
        params=record.get("params"),
    )


def _known(source: str, done: Mapping[str, None]) -> bool:
    return source == "x" or source.startswith("h_prev_") or source in done


def _expression(node: Mapping[str, Any]) -> str:
    operation, inputs = node["op"], [_name(each) for each in node["input"]]
    if operation not in SPELLING:
        raise ValueError(f"`{operation}` is no operation of the benchmark")
    if not inputs or len(inputs) != TAKES.get(operation, len(inputs)):
        raise ValueError(f"`{operation}` does not take {len(inputs)} inputs")
    return SPELLING[operation](*inputs)


def _name(node: str) -> str:
    return node.replace("h_prev_", "h").replace("h_new_", "new").replace("node_", "n")


def language_model(recipe: Recipe, states: int, vocab: int, widths: Sequence[int]) -> str:
    """The closed text of the language model around a cell.

    Args:
        recipe: of the cell.
        states: how many hidden states it has.
        vocab: symbols.
        widths: of the embedding, then of each layer; the last is the embedding's, whose table the
            head reads.
    """
    return _around(cell(recipe, states), recipe, vocab, widths)


def _around(definition: str, recipe: Recipe, vocab: int, widths: Sequence[int]) -> str:
    layers = "\n".join(
        f"    layer({_written(gains(recipe, before, width))})" for before, width in pairwise(widths)
    )
    return (
        f"{definition}\nmodel {{\n    embed(dim = {widths[0]}, vocab = {vocab})\n"
        f"{layers}\n    lm_head(tied = true, bias = true)\n}}\n"
    )


def _written(arguments: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {round(value, 6):g}" for name, value in arguments.items())


FORMAT = Format(
    name="NAS-Bench-NLP cells (Penn Treebank)",
    entry=_entry,
    vocab=SCORED_VOCAB,
    length=6,
    sequences=48,
    reached="minus the test loss, nats",
    paper=PAPER,
)
