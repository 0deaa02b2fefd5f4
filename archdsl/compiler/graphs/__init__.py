"""Graphs: the operations of an architecture, the passes that rewrite them, their cost and pictures.

Free of torch. Of the compiler it imports :mod:`archdsl.compiler.terms`, for the layers that are lowered.
"""
