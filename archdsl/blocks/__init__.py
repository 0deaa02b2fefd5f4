"""Components of the language and the operations they lower to.

To add a layer, write one file beside these: a frozen pydantic model with a name, its parameters in
positional order, ``infer`` (what stream it takes and gives) and ``lower`` (which operations it is made
of), and one line in :mod:`archdsl.blocks.registry`. It then inherits the contract suite of
``tests/blocks``. A mixer that the language can already say is a file in ``std/`` and nothing else.
A primitive operation is declared in ``ops`` (free of torch) and computed in ``nn``.
"""
