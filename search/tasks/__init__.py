"""What a candidate learns: one file a task, each a component that the registry names.

To add a task: write a subclass of :class:`archdsl.search.tasks.base.LearningTask` in a file here, with what
is ``published`` about it, which ``archdsl verify tasks`` checks; add its line to
``archdsl.blocks.registry.BUILT_IN``, and its example to ``tests/search/contracts.py``.
"""
