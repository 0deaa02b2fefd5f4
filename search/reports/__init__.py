"""Reports: what a study shows, as data, figures and a page, and the files that a search leaves.

Imports ``study`` and what lies below it.
"""
