"""From a program to a module: space, architecture, graph, passes, cost, torch.

Each part imports those below it (``lint-imports`` checks it), from the top: :mod:`~archdsl.compiler.models`
and :mod:`~archdsl.compiler.patterns`, :mod:`~archdsl.compiler.spaces`, :mod:`~archdsl.compiler.checking`,
:mod:`~archdsl.compiler.reading`, :mod:`~archdsl.compiler.graphs`, :mod:`~archdsl.compiler.terms`.
"""
