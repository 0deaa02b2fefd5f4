"""How the next candidate is proposed: each sampler a component, and the Optuna sampler behind it.

To add a sampler: write a file here with a subclass of :class:`OptunaSampler` that gives an Optuna
sampler, or of :class:`SpaceSampler` that picks an architecture from those tried before; add its line to
``archdsl.blocks.registry.BUILT_IN`` and its example to ``tests/search/contracts.py``. A new one is made for
every proposal, so it must keep nothing but what it finds in the study.
"""

from archdsl.search.samplers.base import OptunaSampler, Past, SpaceSampler
from archdsl.search.samplers.evolution import Evolution
from archdsl.search.samplers.exhaustive import Exhaustive
from archdsl.search.samplers.gaussian_process import GaussianProcess
from archdsl.search.samplers.nsga import NSGA2, NSGA3
from archdsl.search.samplers.random import Random
from archdsl.search.samplers.reinforce import Reinforce
from archdsl.search.samplers.tpe import TPE
from archdsl.search.samplers.tree_search import TreeSearch

__all__ = [
    "NSGA2",
    "NSGA3",
    "TPE",
    "Evolution",
    "Exhaustive",
    "GaussianProcess",
    "OptunaSampler",
    "Past",
    "Random",
    "Reinforce",
    "SpaceSampler",
    "TreeSearch",
]
