"""Terms: what is left of a file when every name is resolved and every choice is kept.

What may stand in a place and how a value is spelt; the terms and the walks that decide them; the layers
they become when every choice is made (:mod:`elements`). Imports no other part of the compiler.
"""
