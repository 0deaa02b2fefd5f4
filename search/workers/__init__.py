"""Workers: processes that score and train candidates, what they train with, and how they are asked.

:mod:`worker` is the search's side and loads no torch; :mod:`jobs` is the process's own. Imports ``metrics``,
``tasks``, ``storage`` and ``space``.
"""
