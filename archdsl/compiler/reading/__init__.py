"""Reading: from a syntax tree to the terms of a whole program.

Names are resolved, definitions written out, arguments given to components; a mistake is reported where it
stands. Imports :mod:`archdsl.compiler.terms`, and of ``graphs`` the costs that a file may ask for.
"""
