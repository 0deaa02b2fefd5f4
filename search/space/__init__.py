"""The space as the search sees it: what it asks of the compiler, its choices as ways, what is sought.

Imports no other part of the search.
"""
