"""The shell around the recurrences: projections, norms, gates, short convolutions, the loss.

Every function here has a plain form, which is its definition; a CPU form for float32 and float64,
which makes fewer passes over memory and keeps less for the backward pass; and, but for the projections,
a Triton form. `shell.choice` picks among them. Under `torch.compile` the plain form runs: the compiler
fuses it by itself.
"""
