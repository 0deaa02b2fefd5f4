"""Spaces: from a file to its architectures, counted, drawn and decided.

:class:`~archdsl.Space` and :class:`~archdsl.Arch` are what a user holds. Imports ``checking`` and what lies
below it; ``Arch.compile`` alone calls ``models``, above, and only when it is called.
"""
