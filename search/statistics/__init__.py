"""Statistics: rank correlations, Pareto ranks and who goes on, which differences are real.

Numbers in, numbers out: imports no other part of the search.
"""
