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
    ("layer", "latent_attention"): "archdsl.blocks.latent:LatentAttentionLayer",
    ("layer", "span_attention"): "archdsl.blocks.span_attention:SpanAttention",
    ("layer", "fourier"): "archdsl.blocks.fourier:Fourier",
    ("layer", "context_memory"): "archdsl.blocks.context_memory:ContextMemoryLayer",
    ("layer", "persistent_attention"): "archdsl.blocks.persistent:PersistentAttentionLayer",
    ("layer", "residual"): "archdsl.blocks.structure:Residual",
    ("layer", "stack"): "archdsl.blocks.stack:Stack",
    ("layer", "repeat"): "archdsl.blocks.structure:Repeat",
    ("layer", "loop"): "archdsl.blocks.loop:Loop",
    ("layer", "scaled_init"): "archdsl.blocks.initial:ScaledInit",
    ("layer", "hyper"): "archdsl.blocks.streams:Hyper",
    ("layer", "mhc"): "archdsl.blocks.streams:ManifoldHyper",
    ("layer", "skip"): "archdsl.blocks.skip:Skip",
    ("draw", "uniform"): "archdsl.blocks.times:Uniform",
    ("draw", "poisson"): "archdsl.blocks.times:Poisson",
    ("halting rule", "act"): "archdsl.blocks.loop:Act",
    ("layer", "parallel"): "archdsl.blocks.structure:Parallel",
    ("layer", "mom"): "archdsl.blocks.mom:MixtureOfMemoriesLayer",
    ("layer", "moe"): "archdsl.blocks.moe:MixtureOfExpertsLayer",
    ("layer", "gated"): "archdsl.blocks.gated:Gated",
    ("layer", "cell"): "archdsl.blocks.cell:Cell",
    ("layer", "miras"): "archdsl.blocks.miras.mixer:Miras",
    ("layer", "mlstm_block"): "archdsl.blocks.mlstm_block:MLSTMBlock",
    ("memory", "vector"): "archdsl.blocks.miras.memory:Vector",
    ("memory", "matrix"): "archdsl.blocks.miras.memory:Matrix",
    ("memory", "mlp"): "archdsl.blocks.miras.memory:MLP",
    ("memory", "slots"): "archdsl.blocks.miras.memory:Slots",
    ("memory", "polynomial"): "archdsl.blocks.miras.memory:Polynomial",
    ("bias", "dot"): "archdsl.blocks.miras.bias:Dot",
    ("bias", "l2"): "archdsl.blocks.miras.bias:L2",
    ("bias", "lp"): "archdsl.blocks.miras.bias:Lp",
    ("bias", "huber"): "archdsl.blocks.miras.bias:Huber",
    ("bias", "robust"): "archdsl.blocks.miras.bias:Robust",
    ("bias", "kl"): "archdsl.blocks.miras.bias:KL",
    ("bias", "written"): "archdsl.blocks.miras.bias:Written",
    ("retention", "decay"): "archdsl.blocks.miras.retention:Decay",
    ("retention", "running_softmax"): "archdsl.blocks.miras.retention:RunningSoftmax",
    ("retention", "lq"): "archdsl.blocks.miras.maps:Lq",
    ("retention", "elastic_net"): "archdsl.blocks.miras.maps:ElasticNet",
    ("retention", "kl"): "archdsl.blocks.miras.maps:Simplex",
    ("retention", "f_divergence"): "archdsl.blocks.miras.maps:FDivergence",
    ("retention", "bregman"): "archdsl.blocks.miras.maps:Bregman",
    ("retention", "sphere"): "archdsl.blocks.miras.maps:Sphere",
    ("learner", "gd"): "archdsl.blocks.miras.learner:GradientDescent",
    ("learner", "momentum"): "archdsl.blocks.miras.descents:Momentum",
    ("learner", "omega"): "archdsl.blocks.miras.descents:Omega",
    ("learner", "muon"): "archdsl.blocks.miras.descents:Muon",
    ("learner", "closed_form"): "archdsl.blocks.miras.descents:ClosedForm",
    ("task", "mqar"): "archdsl.search.tasks.mqar:MQAR",
    ("task", "forgetting_mqar"): "archdsl.search.tasks.forgetting_mqar:ForgettingMQAR",
    ("task", "in_context_recall"): "archdsl.search.tasks.in_context_recall:InContextRecall",
    ("task", "noisy_in_context_recall"): "archdsl.search.tasks.in_context_recall:NoisyInContextRecall",
    ("task", "fuzzy_in_context_recall"): "archdsl.search.tasks.fuzzy_in_context_recall:FuzzyInContextRecall",
    ("task", "selective_copying"): "archdsl.search.tasks.selective_copying:SelectiveCopying",
    ("task", "compression"): "archdsl.search.tasks.compression:Compression",
    ("task", "memorization"): "archdsl.search.tasks.memorization:Memorization",
    ("task", "automata"): "archdsl.search.tasks.automata:Automata",
    ("task", "state_tracking"): "archdsl.search.tasks.state_tracking:StateTracking",
    ("task", "text"): "archdsl.search.tasks.text:Text",
    ("sampler", "random"): "archdsl.search.samplers.random:Random",
    ("sampler", "exhaustive"): "archdsl.search.samplers.exhaustive:Exhaustive",
    ("sampler", "tpe"): "archdsl.search.samplers.tpe:TPE",
    ("sampler", "gp"): "archdsl.search.samplers.gaussian_process:GaussianProcess",
    ("sampler", "nsga2"): "archdsl.search.samplers.nsga:NSGA2",
    ("sampler", "nsga3"): "archdsl.search.samplers.nsga:NSGA3",
    ("sampler", "evolution"): "archdsl.search.samplers.evolution:Evolution",
    ("sampler", "tree_search"): "archdsl.search.samplers.tree_search:TreeSearch",
    ("sampler", "reinforce"): "archdsl.search.samplers.reinforce:Reinforce",
    ("metric", "hidden_covariance"): "archdsl.search.metrics.hidden_covariance:HiddenCovariance",
    ("metric", "jacobian_covariance"): "archdsl.search.metrics.jacobian_covariance:JacobianCovariance",
    ("metric", "snip"): "archdsl.search.metrics.snip:Snip",
    ("metric", "grad_norm"): "archdsl.search.metrics.grad_norm:GradNorm",
    ("metric", "activation_distance"): "archdsl.search.metrics.activation_distance:ActivationDistance",
    ("metric", "synflow"): "archdsl.search.metrics.synflow:Synflow",
    ("metric", "jacobian_cosine"): "archdsl.search.metrics.jacobian_cosine:JacobianCosine",
    ("metric", "noised_jacobian"): "archdsl.search.metrics.noised_jacobian:NoisedJacobian",
    ("metric", "synaptic_saliency"): "archdsl.search.metrics.synaptic_saliency:SynapticSaliency",
    ("metric", "synaptic_diversity"): "archdsl.search.metrics.synaptic_diversity:SynapticDiversity",
    ("metric", "hidden_saliency"): "archdsl.search.metrics.hidden_saliency:HiddenSaliency",
    ("metric", "head_importance"): "archdsl.search.metrics.head_importance:HeadImportance",
    ("metric", "head_confidence"): "archdsl.search.metrics.head_confidence:HeadConfidence",
    ("metric", "softmax_confidence"): "archdsl.search.metrics.softmax_confidence:SoftmaxConfidence",
    ("metric", "fisher"): "archdsl.search.metrics.fisher:Fisher",
    ("metric", "grasp"): "archdsl.search.metrics.grasp:Grasp",
    ("metric", "zico"): "archdsl.search.metrics.zico:ZiCo",
    ("metric", "expressivity"): "archdsl.search.metrics.expressivity:Expressivity",
    ("metric", "trainability"): "archdsl.search.metrics.trainability:Trainability",
    ("metric", "spectral_capacity"): "archdsl.search.metrics.spectral_capacity:SpectralCapacity",
    ("metric", "state_capacity"): "archdsl.search.metrics.state_capacity:StateCapacity",
    ("metric", "retrieval_margin"): "archdsl.search.metrics.retrieval_margin:RetrievalMargin",
    ("metric", "write_interference"): "archdsl.search.metrics.write_interference:WriteInterference",
    ("metric", "decay_horizon"): "archdsl.search.metrics.decay_horizon:DecayHorizon",
    ("metric", "gradient_reach"): "archdsl.search.metrics.gradient_reach:GradientReach",
    ("metric", "archdsl_rank"): "archdsl.search.metrics.archdsl_rank:ArchdslRank",
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
