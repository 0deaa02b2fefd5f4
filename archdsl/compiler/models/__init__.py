"""Models: torch modules of an architecture's graph, their weights, checkpoints and speed.

What needs torch is here and nowhere else in the compiler. Imports ``spaces`` and what lies below it.
"""
