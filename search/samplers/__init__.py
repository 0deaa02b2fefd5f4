"""How the next candidate is proposed: each sampler a component, and the Optuna sampler behind it.

To add a sampler: write a file here with a subclass of :class:`OptunaSampler` that gives an Optuna
sampler, or of :class:`SpaceSampler` that picks an architecture from those tried before; add its line to
``archdsl.blocks.registry.BUILT_IN`` and its example to ``tests/search/contracts.py``. A new one is made for
every proposal, so it must keep nothing but what it finds in the study.
"""
