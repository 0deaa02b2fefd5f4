"""Every component by name: one line each, imported when it is first asked for.

A package adds its own through the entry-point group ``archdsl.components``: the entry point's name is
free, its value is ``module:Class``; a class in the group shadows nothing that is built in.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from archdsl.blocks.base import Component, Kind

BUILT_IN: dict[tuple[Kind, str], str] = {
    ("layer", "embed"): "archdsl.blocks.embed:Embed",
    ("layer", "lm_head"): "archdsl.blocks.head:LMHead",
    ("layer", "classifier"): "archdsl.blocks.head:Classifier",
    ("layer", "rms_norm"): "archdsl.blocks.norm:RMSNorm",
    ("layer", "layer_norm"): "archdsl.blocks.norm:LayerNorm",
    ("layer", "linear"): "archdsl.blocks.linear:Linear",
    ("layer", "activation"): "archdsl.blocks.linear:ActivationLayer",
    ("layer", "swiglu"): "archdsl.blocks.channel:SwiGLU",
    ("layer", "mlp"): "archdsl.blocks.channel:MLP",
    ("layer", "conv"): "archdsl.blocks.conv:Conv",
    ("layer", "token_shift"): "archdsl.blocks.token_shift:TokenShift",
    ("layer", "attention"): "archdsl.blocks.attention:Attention",
    ("layer", "residual"): "archdsl.blocks.structure:Residual",
    ("layer", "stack"): "archdsl.blocks.stack:Stack",
    ("layer", "repeat"): "archdsl.blocks.structure:Repeat",
    ("layer", "parallel"): "archdsl.blocks.structure:Parallel",
    ("layer", "gated"): "archdsl.blocks.gated:Gated",
    ("layer", "cell"): "archdsl.blocks.cell:Cell",
    ("layer", "miras"): "archdsl.blocks.miras.mixer:Miras",
    ("memory", "vector"): "archdsl.blocks.miras.memory:Vector",
    ("memory", "matrix"): "archdsl.blocks.miras.memory:Matrix",
    ("bias", "dot"): "archdsl.blocks.miras.bias:Dot",
    ("bias", "l2"): "archdsl.blocks.miras.bias:L2",
    ("retention", "decay"): "archdsl.blocks.miras.retention:Decay",
    ("retention", "running_softmax"): "archdsl.blocks.miras.retention:RunningSoftmax",
    ("learner", "gd"): "archdsl.blocks.miras.learner:GradientDescent",
    ("task", "mqar"): "archdsl.search.tasks.mqar:MQAR",
    ("task", "forgetting_mqar"): "archdsl.search.tasks.forgetting_mqar:ForgettingMQAR",
    ("task", "in_context_recall"): "archdsl.search.tasks.in_context_recall:InContextRecall",
    ("task", "noisy_in_context_recall"): "archdsl.search.tasks.in_context_recall:NoisyInContextRecall",
    ("task", "fuzzy_in_context_recall"): "archdsl.search.tasks.fuzzy_in_context_recall:FuzzyInContextRecall",
    ("task", "selective_copying"): "archdsl.search.tasks.selective_copying:SelectiveCopying",
    ("task", "compression"): "archdsl.search.tasks.compression:Compression",
    ("task", "memorization"): "archdsl.search.tasks.memorization:Memorization",
    ("task", "automata"): "archdsl.search.tasks.automata:Automata",
    ("task", "text"): "archdsl.search.tasks.text:Text",
    ("sampler", "random"): "archdsl.search.samplers:Random",
    ("sampler", "tpe"): "archdsl.search.samplers:TPE",
    ("sampler", "nsga2"): "archdsl.search.samplers:NSGA2",
    ("metric", "hidden_covariance"): "archdsl.search.metrics.hidden_covariance:HiddenCovariance",
    ("metric", "jacobian_covariance"): "archdsl.search.metrics.jacobian_covariance:JacobianCovariance",
    ("metric", "snip"): "archdsl.search.metrics.snip:Snip",
    ("metric", "grad_norm"): "archdsl.search.metrics.grad_norm:GradNorm",
    ("metric", "activation_distance"): "archdsl.search.metrics.activation_distance:ActivationDistance",
    ("metric", "synflow"): "archdsl.search.metrics.synflow:Synflow",
    ("metric", "params"): "archdsl.search.metrics.baselines:Params",
    ("metric", "flops"): "archdsl.search.metrics.baselines:Flops",
    ("metric", "state_bytes"): "archdsl.search.metrics.baselines:StateBytes",
}  # fmt: skip

GROUP = "archdsl.components"


@cache
def third_party() -> dict[tuple[Kind, str], type[Component]]:
    """Components of other packages. An entry point that cannot be loaded is an error of its package."""
    found: dict[tuple[Kind, str], type[Component]] = {}
    for point in entry_points(group=GROUP):
        component = point.load()
        found[component.kind, component.name] = component
    return found


@cache
def find(kind: Kind, name: str) -> type[Component] | None:
    """The component that ``name`` means where a ``kind`` may stand, if there is one."""
    path = BUILT_IN.get((kind, name))
    if path is None:
        return third_party().get((kind, name))
    module, _, attribute = path.partition(":")
    component: type[Component] = getattr(import_module(module), attribute)
    return component


def names(kind: Kind) -> list[str]:
    """Every component name that may stand where a ``kind`` may."""
    return sorted({name for known, name in [*BUILT_IN, *third_party()] if known == kind})


def kinds_of(name: str) -> list[Kind]:
    """The kinds a component name has, for messages about a name in the wrong place."""
    return sorted({kind for kind, known in [*BUILT_IN, *third_party()] if known == name})
